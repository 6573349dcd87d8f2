"""Writes a partition as the processors do, with every version known, for the cache's tests."""

from __future__ import annotations

import json
from typing import Any

from mdc import keys
from mdc.channels import KINDS, kind_of
from mdc.writer import Flush, Outcome, Writer
from mdp.leader.merging import Merger

PARTITIONS = 8


class Source:
    """One partition that a test writes: it numbers documents and flushes as a processor does."""

    def __init__(self, redis: Any, writer: Writer, epoch: str, partition: int = 0) -> None:
        self.redis, self.writer, self.epoch, self.partition = redis, writer, epoch, partition
        self.fence, self.number = 1, 0
        self.seqs: dict[str, int] = {}

    async def own(self, fence: int = 1) -> Source:
        """Take the partition as ownership.lua would."""
        self.fence = fence
        await self.redis.set(f"fence:partition:{self.partition}", fence)
        if self.writer.space.clustered:
            self.redis.partition = self.partition
            found = await self.writer.claim({self.partition: fence}, self.epoch, self.epoch)
            assert found == {self.partition: self.epoch}
        return self

    def flush(self, start_over: bool = False) -> Flush:
        """Begin the next flush; its number goes into `arguments`."""
        self.number += 1
        flush = Flush(self.partition, self.epoch)
        flush.start_over = start_over
        flush.checkpoint += ("counts", b"{}")
        return flush

    def add(self, flush: Flush, channel: str, data: Any) -> bytes:
        """Add the next version of `channel`; return its document."""
        seq = self.seqs[channel] = self.seqs.get(channel, 0) + 1
        facts = {"ch": channel, "epoch": self.epoch, "seq": seq, "ts": 1_700_000_000_000 + seq, "data": data}
        document = json.dumps(facts, separators=(",", ":")).encode()
        flush.channel_writer(kind_of(channel).name).extend((keys.document(channel), document))
        return document

    async def send(self, flush: Flush, number: int | None = None) -> Outcome:
        """Send a flush (again, with the same `number`)."""
        call = self.writer.call(flush, self.fence, self.number if number is None else number)
        [outcome] = await self.writer.write([call])
        assert isinstance(outcome, Outcome)
        if self.writer.space.clustered and outcome is Outcome.APPLIED:
            await self._merge()
        return outcome

    async def _merge(self) -> None:
        """Do in a cluster what the owner of partition 0 does: channels that several partitions write are complete after it."""
        shared, epoch = self.writer.space.shared, "of all"
        await self.redis.set(f"{shared}{keys.EPOCH}", epoch)
        await self.redis.set(f"{shared}{keys.fence(0)}", 1)
        await Merger(self.redis, self.writer, PARTITIONS).merge(1, epoch)

    async def publish(self, *changes: tuple[str, Any]) -> list[bytes]:
        """Flush new versions of channels; return their documents."""
        flush = self.flush()
        documents = [self.add(flush, channel, data) for channel, data in changes]
        assert await self.send(flush) is Outcome.APPLIED
        return documents


async def open_source(redis: Any, partition: int = 0, epoch: str = "e1", partitions: int = PARTITIONS) -> Source:
    """Open the cache and own `partition`."""
    writer = Writer(redis)
    return await Source(redis, writer, await writer.open(epoch, partitions), partition).own()


async def life(writer: Writer, epoch: str, partition: int = 0) -> str:
    """Open the cache again; return the epoch that a partition's flushes must have."""
    found = (await writer.claim({partition: 1}, await writer.open(epoch, PARTITIONS), epoch))[partition]
    assert isinstance(found, str)
    return found


def everything(flush: Flush, source: Source) -> None:
    """Put something of every kind into a flush."""
    source.add(flush, "quote:AAPL", {"last": 1})
    source.add(flush, "trades:AAPL", {"price": 1})
    source.add(flush, "halts:AAPL", {"state": "halted"})
    source.add(flush, "book:AAPL", {"bids": [[1, 2]]})
    source.add(flush, "bars:1m:AAPL", {"t": 60_000})
    flush.add_history("bars:1m", "bars:1m:AAPL", [b"[0,1,1,1,1,1,1,1]"])
    flush.add_share("board:volume", b"[]")
    flush.add_channel("quote", "AAPL")
    flush.add_dead_letter(b"{}")
    flush.add_shared("alerts", "alerts:range", 5, b'{"sym":"AAPL"}')
    flush.add_shared("board", "board:volume", 5, b'{"order":[],"rows":{}}')
    flush.add_shared("status", "status:pipeline", 5, b'{"ts":5}')


async def contents(redis: Any) -> dict[bytes, Any]:
    """Return everything in the cache, by key."""
    found: dict[bytes, Any] = {}
    for key in await redis.keys("*"):
        kind = (await redis.type(key)).decode()
        read = {
            "string": redis.get,
            "hash": redis.hgetall,
            "set": redis.smembers,
            "list": lambda k: redis.lrange(k, 0, -1),
            "zset": lambda k: redis.zrange(k, 0, -1, withscores=True),
        }[kind]
        found[key] = await read(key)
    return found


def ttl_ms_of(channel: str) -> int:
    """Return what the catalogue says."""
    return KINDS[kind_of(channel).name].ttl_ms
