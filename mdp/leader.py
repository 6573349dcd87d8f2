"""Publishes the market's boards and the pipeline's status, merged over partitions, on behalf of who owns partition 0.

Invariant: a board shows no row that nobody ranks any more: one that was taken out of MDP_BOARDS is emptied, and the share of a
partition whose worker does not know a board does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from mdc import keys
from mdc.channels import BOARDS
from mdc.connect import AWAY, unavailable
from mdc.documents import decode_doc
from mdc.writer import Flush, Outcome, Writer
from mdp.analyzers.boards import merge_shares
from mdp.partition import Partition
from mdp.status import PipelineStatus

BOARDS_EVERY_S = 0.25
STATUS_EVERY_S = 1.0
STATS = "mdp:stats"
log = structlog.get_logger()


class Leader:
    """Publishes what is merged over partitions. Fenced like a flush of partition 0, so two leaders never both write."""

    def __init__(self, redis: Any, writer: Writer, partitions: int, board_rows: int, boards: Sequence[str]) -> None:
        self._redis = redis
        self._writer = writer
        self._partitions = partitions
        self._rows_max = board_rows
        self._boards = boards
        self._status = PipelineStatus()
        self._shares: dict[str, list[bytes]] = {}
        self._epoch = ""
        self._differ: list[str] = []  # the workers that rank other boards than this one

    @property
    def days(self) -> list[int]:
        """The trading days of stocks (starts, ms) that some worker's symbols are in, the newest first."""
        return sorted({day for stats in self._status.alive for day in stats.days}, reverse=True)

    @property
    def lost(self) -> int:
        """How many events are missing by sequence numbers."""
        return self._status.lost

    async def publish(self, zero: Partition, now_ms: int, mono_ms: int, with_status: bool) -> None:
        """Publish the boards whose shares changed, and the status when it is due.  Raises: CacheUnavailable."""
        flush = Flush(0, zero.epoch)
        try:
            if zero.epoch != self._epoch:
                self._shares.clear()
                await self._read_last_status(mono_ms)
                await self._empty_boards_of_before(flush, now_ms)
            if with_status:
                await self._add_status(flush, zero, now_ms, mono_ms)
                self._compare_boards()
            shares = await self._add_boards(flush, now_ms)
        except AWAY as error:
            raise unavailable(error) from None
        if flush.empty:
            self._epoch = zero.epoch
            return
        [outcome] = await self._writer.write([(0, flush.arguments(zero.fence, 0))])
        if outcome is Outcome.APPLIED:
            self._epoch = zero.epoch
            self._shares.update(shares)

    async def _read_last_status(self, mono_ms: int) -> None:
        body = await self._redis.get(keys.document("status:pipeline"))
        if body is not None:
            self._status.go_on_from(bytes(decode_doc(body).data), mono_ms)

    async def _add_boards(self, flush: Flush, now_ms: int) -> dict[str, list[bytes]]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for board in self._boards:
                pipe.hgetall(keys.parts(f"board:{board}"))
            found = await pipe.execute()
        changed: dict[str, list[bytes]] = {}
        for board, shares in zip(self._boards, found, strict=True):
            unranked = self._unranked(board)
            ranked = {int(number): body for number, body in shares.items() if int(number) not in unranked}
            values = [body for number, body in sorted(ranked.items()) if number < self._partitions]
            if values != self._shares.get(board, []):
                if board not in self._shares:
                    flush.add_channel("board", board)
                changed[board] = values
                flush.add_shared("board", f"board:{board}", now_ms, merge_shares(values, self._rows_max))
        return changed

    def _unranked(self, board: str) -> set[int]:
        """Return the partitions whose workers do not know the board: their shares are of before."""
        if board in BOARDS:
            return set()
        return {number for stats in self._status.alive if board not in stats.boards for number in stats.flowing}

    async def _empty_boards_of_before(self, flush: Flush, now_ms: int) -> None:
        """Take the rows of boards that are not defined any more from the screens, and the boards from the lists."""
        known = {name.decode() for name in await self._redis.smembers(keys.index("board"))}
        for board in sorted(known.difference(self._boards)):
            log.warning("board_not_ranked_any_more", board=board, why="MDP_BOARDS of this worker does not define it")
            flush.remove([keys.parts(f"board:{board}")])
            flush.remove_channel("board", board)
            flush.add_shared("board", f"board:{board}", now_ms, merge_shares((), self._rows_max))

    def _compare_boards(self) -> None:
        own = sorted(set(self._boards).difference(BOARDS))
        differ = sorted(stats.worker for stats in self._status.alive if sorted(stats.boards) != own)
        if differ and differ != self._differ:
            log.warning("boards_differ", workers=differ, fix="give every worker the same MDP_BOARDS", own_boards=own)
        self._differ = differ

    async def _add_status(self, flush: Flush, zero: Partition, now_ms: int, mono_ms: int) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hvals(keys.parts("counts"))
            pipe.hgetall(STATS)
            counts, workers = await pipe.execute()
        data = self._status.build(now_ms, mono_ms, counts, workers, zero.listeners, self._partitions)
        if gone := self._status.gone(mono_ms):
            await self._redis.hdel(STATS, *gone)
        flush.add_shared("status", "status:pipeline", now_ms, data)
