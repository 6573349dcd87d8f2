"""Merges, in a cluster, what the partitions add to channels that several of them write (alerts, all news) into these channels.

A partition cannot write to another slot in its own flush: it leaves entries in a stream of its own, `out`. Whoever owns
partition 0 takes them from there, in the order of their times.

Invariant: an entry is taken once. Positions are written by the call that writes what was taken; a flush whose answer was lost
is sent again unchanged before anything else; who leads after a crash goes on from the positions in the cache.
"""

from __future__ import annotations

from typing import Any

from mdc import keys
from mdc.channels import kind_of
from mdc.connect import AWAY, unavailable
from mdc.writer import Call, Flush, Outcome, Writer

MERGE_EVERY_S = 0.1
ENTRIES_MAX = 500  # of a partition at a time; the rest follows with the next round
FIELD = "out:"  # of the shared checkpoint: the last entry of a partition that was taken


class Merger:
    """Merges on behalf of one leader at a time: fenced as its other flushes are."""

    def __init__(self, redis: Any, writer: Writer, partitions: int) -> None:
        self.merged = 0  # entries
        self._redis = redis
        self._writer = writer
        self._space = writer.space
        self._partitions = partitions
        self._tenure: tuple[int, str] | None = None
        self._number = 0
        self._positions: dict[int, str] = {}
        self._pending: tuple[Call, dict[int, str], int] | None = None

    async def merge(self, fence: int, epoch: str) -> None:
        """Take what is new, as the leader with this fence in this life of the shared slot.  Raises: CacheUnavailable."""
        if self._tenure != (fence, epoch):
            await self._begin(fence, epoch)
        if self._pending is None:
            self._pending = await self._gather(fence, epoch)
        if self._pending is None:
            return
        call, positions, entries = self._pending
        [outcome] = await self._writer.write([call])
        self._pending = None
        if outcome is not Outcome.APPLIED:
            self._tenure = None  # somebody else leads, or the cache is another: begin from what it says
            return
        self._number += 1
        self._positions |= positions
        self.merged += entries

    async def _begin(self, fence: int, epoch: str) -> None:
        self._pending = None
        try:
            cells = await self._redis.hgetall(self._space.shared + keys.checkpoint(0))
        except AWAY as error:
            raise unavailable(error) from None
        told = {name.decode(): value.decode() for name, value in cells.items()}
        self._number = int(told.get("flush", 0))
        self._positions = {int(name[len(FIELD) :]): at for name, at in told.items() if name.startswith(FIELD)}
        self._tenure = (fence, epoch)

    async def _gather(self, fence: int, epoch: str) -> tuple[Call, dict[int, str], int] | None:
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for number in range(self._partitions):
                    first = f"({self._positions[number]}" if number in self._positions else "-"
                    pipe.xrange(self._space.of(number) + keys.OUT, first, "+", ENTRIES_MAX)
                answers = await pipe.execute(raise_on_error=False)
        except AWAY as error:
            raise unavailable(error) from None
        positions: dict[int, str] = {}
        entries: list[tuple[tuple[int, ...], dict[bytes, bytes]]] = []
        for number, answer in enumerate(answers):
            if isinstance(answer, BaseException) or not answer:
                continue  # of a node that does not answer: later
            entries += [(tuple(map(int, at.split(b"-"))), fields) for at, fields in answer]
            positions[number] = answer[-1][0].decode()
        if not entries:
            return None
        flush = Flush(0, epoch)
        for _, fields in sorted(entries, key=lambda entry: entry[0]):
            channel = fields[b"c"].decode()
            flush.add_shared(kind_of(channel).name, channel, int(fields[b"s"]), fields[b"d"])
        for number, at in positions.items():
            flush.checkpoint += (f"{FIELD}{number}", at)
        return self._writer.call(flush, fence, self._number + 1, self._space.shared), positions, len(entries)
