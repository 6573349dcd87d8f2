"""Subscribes to sharded channels of a Redis Cluster: one connection a node, one stream of messages.

Invariant: a subscription that may miss messages ends in an exception: when a connection is lost, when a channel's slot has
another node by now, when a node takes a subscription back. Who reads subscribes anew then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError

RETRY_S = 0.2
LOOK_S = 1.0  # a node that froze is noticed when another one serves its slots
WAITING_MAX = 1_000  # messages that nobody has taken; then no more is read, and the node cuts us off when its bound is full
TAKE_S = 1.0
LOST = (RedisError, OSError, TimeoutError)


class ShardedPubSub:
    """As a redis.asyncio PubSub: `subscribe`, `unsubscribe`, `get_message`; its messages are called as theirs are."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._nodes: dict[Any, Any] = {}  # address → its pub/sub connection
        self._channels: dict[str, Any] = {}  # channel → address
        self._left: Counter[str] = Counter()  # channels that we have left ourselves, and no answer to it yet
        self._readers: list[asyncio.Task[None]] = []
        self._looking: asyncio.Task[None] | None = None
        self._missing: set[str] = set()  # asked for, on a node that does not answer
        self._retrying: asyncio.Task[None] | None = None
        self._waiting: asyncio.Queue[Any] = asyncio.Queue(WAITING_MAX)
        self._looked: tuple[int, float] = (-1, 0.0)

    async def subscribe(self, *channels: str) -> None:
        """Subscribe to channels, each on the node that serves its slot.

        Where that node does not answer it is tried again until it does, or another one serves the slot; the others' messages come
        meanwhile, and the channel is not confirmed before.
        """
        for channel in channels:
            try:
                await self._subscribe(channel)
            except LOST:
                self._missing.add(channel)
                if self._retrying is None or self._retrying.done():
                    self._retrying = asyncio.create_task(self._retry(), name="subscribe again")

    async def _subscribe(self, channel: str) -> None:
        address = await self._client.address_of(channel)
        pubsub = self._nodes.get(address)
        if pubsub is None:
            pubsub = self._client.node(address).pubsub()
        await pubsub.ssubscribe(channel)
        self._nodes[address], self._channels[channel] = pubsub, address
        if not any(task.get_name() == str(address) for task in self._readers):
            self._readers.append(asyncio.create_task(self._read(pubsub), name=str(address)))

    async def _retry(self) -> None:
        while self._missing:
            await asyncio.sleep(RETRY_S)
            await self._client.look()
            for channel in list(self._missing):
                with contextlib.suppress(*LOST):
                    await self._subscribe(channel)
                    self._missing.discard(channel)

    async def unsubscribe(self, *channels: str) -> None:
        """Take subscriptions back."""
        for channel in channels:
            self._missing.discard(channel)
            address = self._channels.pop(channel, None)
            if address is not None:
                self._left[channel] += 1
                await self._nodes[address].sunsubscribe(channel)

    async def get_message(self, timeout: float) -> dict[str, Any] | None:  # as redis-py calls it
        """Return the next message, None when none comes in time.  Raises: what ended a connection."""
        await self._look()
        found = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                found = await self._waiting.get()
        if isinstance(found, BaseException):
            raise found
        return found

    async def aclose(self) -> None:
        """Close all connections."""
        ending = [task for task in (*self._readers, self._looking, self._retrying) if task is not None]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending, timeout=1.0)
        for pubsub in self._nodes.values():
            with contextlib.suppress(*LOST):
                await pubsub.aclose()
        self._nodes.clear()
        self._channels.clear()

    async def _look(self) -> None:
        """See whether each channel is still where its slot is."""
        loop = asyncio.get_running_loop()
        version, at_s = self._looked
        if loop.time() - at_s > LOOK_S:
            self._looking = asyncio.create_task(self._client.look(), name="cluster look")  # messages do not wait for it
            at_s = loop.time()
        self._looked = (self._client.topology.version, at_s)
        if version != self._client.topology.version:
            for channel, address in self._channels.items():
                if await self._client.address_of(channel) != address:
                    raise ConnectionLost("the cluster has moved what we read to another node")

    def _leaves(self, channel: str) -> bool:
        """Return whether we asked for the end of this subscription ourselves."""
        asked = self._left[channel] > 0
        self._left[channel] -= asked
        return asked

    async def _read(self, pubsub: Any) -> None:
        try:
            while True:
                message = await pubsub.get_message(timeout=TAKE_S)
                if message is None:
                    continue
                kind = message["type"]
                if kind == "sunsubscribe" and not self._leaves(message["channel"].decode()):
                    raise ConnectionLost("the cluster is moving what we read to another node")
                if kind in ("smessage", "ssubscribe"):
                    await self._waiting.put(message | {"type": kind[1:]})
        except LOST as error:
            await self._waiting.put(error)
