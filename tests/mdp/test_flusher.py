"""The flusher: one flush of a partition at a time, and the pace."""

from __future__ import annotations

import asyncio
from typing import Any

from mdc.connect import forget_in_process
from mdc.writer import Writer
from mdp.flusher import Flusher
from tests.mdp.farm import farm, memory_urls


async def test_an_answer_settles_the_flush_that_it_belongs_to() -> None:
    """Two rounds at once, as when a hand-over meets the timer: they follow each other, so none settles what the other sent."""
    urls = memory_urls()
    async with farm(*urls) as made:
        running = await made.start("first")
        await made.balanced(4)
        worker, slow = running.worker, Slow(running.worker._writer)
        assert isinstance(worker._flusher, Flusher)
        worker._flusher._writer = slow
        feeding = asyncio.create_task(made.feed(300))
        while not feeding.done():
            await asyncio.gather(*(worker._flusher.flush(list(worker.owned.values())) for _ in range(3)))
        await made.exact()
        assert slow.rounds > 3
    forget_in_process(urls[1])


class Slow(Writer):
    """A writer whose answers take a while; it must never be asked twice at once for a partition."""

    def __init__(self, real: Writer) -> None:
        self._real, self._busy, self.rounds = real, set[int](), 0

    async def write(self, flushes: Any) -> Any:
        if len(flushes) == 1 and flushes[0][1][2] == 0:
            return await self._real.write(flushes)  # the leader's: not numbered, of no partition's flush
        partitions = {partition for partition, _ in flushes}
        assert not partitions & self._busy
        self._busy |= partitions
        self.rounds += 1
        try:
            for _ in range(5):
                await asyncio.sleep(0)
            return await self._real.write(flushes)
        finally:
            self._busy -= partitions

    async def open(self, new_epoch: str, partitions: int) -> str:
        return await self._real.open(new_epoch, partitions)
