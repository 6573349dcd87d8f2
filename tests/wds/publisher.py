"""Writes and publishes states and events to a cache as the processors do it: one key, one update message a document."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from mdc import keys
from mdc.channels import group_of, kind_of, split
from mdc.connect import open_cache

LIVE = {"sources": {"s": {"state": "live"}}, "processors": {"partitions_expected": 8}, "ts": 0}


class Publisher:
    """One writer of every channel."""

    def __init__(self, url: str, epoch: str = "k1", partitions: int = 8) -> None:
        self.epoch = epoch
        self.seq: dict[str, int] = {}
        self._partitions = partitions
        self._redis = open_cache(url, "test-publisher")
        self._beat: asyncio.Task[None] | None = None

    async def publish(self, channel: str, *states: Any, ts: int | None = None) -> int:
        """Write one document a state; return the last one's seq."""
        kind, name = split(channel)
        bodies = []
        for state in states:
            self.seq[channel] = seq = self.seq.get(channel, 0) + 1
            body = {"ch": channel, "epoch": self.epoch, "seq": seq, "ts": ts or int(time.time() * 1000), "data": state}
            bodies.append(json.dumps(body, separators=(",", ":")).encode())
        if kind.mode == "event":
            await self._redis.rpush(keys.document(channel), *bodies)
            await self._redis.ltrim(keys.document(channel), -kind.keep, -1)
        else:
            await self._redis.set(keys.document(channel), bodies[-1])
        if not kind.names:
            await self._redis.sadd(keys.index(kind.name), name)
        await self._redis.publish(group_of(channel, self._partitions), b"[" + b",".join(bodies) + b"]")
        return self.seq[channel]

    async def store(self, channels: list[str], state: Any) -> None:
        """Write the first document of many state channels at once, without an update message."""
        for at in range(0, len(channels), 1000):
            async with self._redis.pipeline(transaction=False) as pipe:
                for channel in channels[at : at + 1000]:
                    kind, name = split(channel)
                    self.seq[channel] = 1
                    body = {"ch": channel, "epoch": self.epoch, "seq": 1, "ts": int(time.time() * 1000), "data": state}
                    pipe.set(keys.document(channel), json.dumps(body, separators=(",", ":")).encode())
                    pipe.sadd(keys.index(kind.name), name)
                await pipe.execute()

    async def close_bar(self, channel: str, *bars: list[Any]) -> None:
        assert kind_of(channel).keep
        await self._redis.rpush(keys.history(channel), *(json.dumps(bar, separators=(",", ":")).encode() for bar in bars))

    async def listeners(self, channel: str) -> int:
        """How many connections follow the group of `channel`."""
        found = await self._redis.pubsub_numsub(group_of(channel, self._partitions))
        return int(found[0][1])

    def start_beat(self, state: dict[str, Any] = LIVE, every_s: float = 0.2) -> None:
        """Publish status:pipeline from now on."""
        self.stop_beat()
        self._beat = asyncio.create_task(self._keep_beating(state, every_s))

    def stop_beat(self) -> None:
        if self._beat is not None:
            self._beat.cancel()

    async def _keep_beating(self, state: dict[str, Any], every_s: float) -> None:
        while True:
            await self.publish("status:pipeline", state)
            await asyncio.sleep(every_s)

    async def empty(self, epoch: str) -> None:
        await self._redis.flushall()
        self.epoch = epoch
        self.seq.clear()

    async def close(self) -> None:
        self.stop_beat()
        await self._redis.aclose()
