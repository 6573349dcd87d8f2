"""Publishes the market's boards and the pipeline's status, merged over partitions, on behalf of who owns partition 0.

Invariant: a board shows no row that nobody ranks any more: one that was taken out of MDP_BOARDS is emptied, and the share of a
partition whose worker does not know a board does not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from mdc import keys
from mdc.channels import BOARDS
from mdc.connect import AWAY, unavailable
from mdc.documents import decode_doc
from mdc.writer import Flush, Outcome, Writer
from mdp.analyzers.boards import Share, merge_shares, read_share
from mdp.leader.reading import Reading
from mdp.leader.status import PipelineStatus, WorkerStats
from mdp.partitions.partition import Partition

BOARDS_EVERY_S = 0.25
LOOK_AGAIN_MS = 5_000  # shares are read again after so long, whatever their versions say
STATUS_EVERY_S = 1.0
STATS = "mdp:stats"
log = structlog.get_logger()


class Told(NamedTuple):
    """A partition's share of a board, as it was read."""

    version: bytes
    rows: Share


Shares = dict[int, Told]  # by partition


class Leader:
    """Publishes what is merged over partitions. Fenced like a flush of partition 0, so two leaders never both write."""

    def __init__(
        self, redis: Any, writer: Writer, partitions: int, board_rows: int, boards: Sequence[str], own: WorkerStats | None = None
    ) -> None:
        """`boards` are all that this worker ranks, `own` is what it says of itself."""
        self._redis = redis
        self._writer = writer
        self._space = writer.space
        self._homes = self._space.homes(partitions)
        self._counts: dict[str, list[bytes]] = {}  # home → its partitions' counts, as they were read last
        self._partitions = partitions
        self._rows_max = board_rows
        self._boards = boards
        self._own = own
        self._reading = Reading()
        self._status = PipelineStatus(self._reading)
        self._shares: dict[str, Shares] = {}
        self._read_ms = 0  # when all shares were read, by the monotonic clock
        self._epoch = ""
        self._differ: list[str] = []  # the workers that rank other boards than this one
        self._others: list[str] = []  # the workers that have other plug-ins

    @property
    def days(self) -> list[int]:
        """The trading days of stocks (starts, ms) that some worker's symbols are in, the newest first."""
        return sorted({day for stats in self._status.alive for day in stats.days}, reverse=True)

    @property
    def lost(self) -> int:
        """How many events are missing by sequence numbers."""
        return self._status.lost

    async def publish(self, zero: Partition, now_ms: int, mono_ms: int, with_status: bool, epoch: str = "") -> None:
        """Publish the boards whose shares changed, and the status when it is due.  Raises: CacheUnavailable.

        `epoch` is that of what all partitions share, where it is another than partition 0 has.
        """
        epoch = epoch or zero.epoch
        flush = Flush(0, epoch)
        try:
            if epoch != self._epoch:
                self._shares.clear()
                await self._read_last_status(mono_ms)
                await self._empty_boards_of_before(flush, now_ms)
            if with_status:
                await self._add_status(flush, zero, now_ms, mono_ms)
                self._compare_workers()
            shares = await self._add_boards(flush, now_ms, mono_ms)
        except AWAY as error:
            raise unavailable(error) from None
        if flush.empty:
            self._epoch = epoch
            return
        [outcome] = await self._writer.write([self._writer.call(flush, zero.fence, 0, self._space.shared)])
        if outcome is Outcome.APPLIED:
            self._epoch = epoch
            self._shares.update(shares)

    async def _read_last_status(self, mono_ms: int) -> None:
        body = await self._redis.get(self._space.shared + keys.document("status:pipeline"))
        doc = None if body is None else self._reading.read("status:pipeline", body, decode_doc)
        if doc is not None:
            self._status.go_on_from(bytes(doc.data), mono_ms)

    async def _add_boards(self, flush: Flush, now_ms: int, mono_ms: int) -> dict[str, Shares]:
        """Merge the boards of which a share changed; return their shares."""
        changed = await self._read_changed(mono_ms)
        for board, shares in changed.items():
            if board not in self._shares:
                flush.add_channel("board", board)
            rows = [share.rows for _, share in sorted(shares.items())]
            flush.add_shared("board", f"board:{board}", now_ms, merge_shares(rows, self._rows_max, self._partitions))
        return changed

    async def _read_changed(self, mono_ms: int) -> dict[str, Shares]:
        """Return the shares of the boards of which one changed. Those that stand still are read again now and then only.

        A version of a newer worker stays when an older one takes the partition over, which tells none.
        """
        if whole := mono_ms >= self._read_ms + LOOK_AGAIN_MS:
            self._read_ms = mono_ms
        told: defaultdict[int, dict[str, bytes]] = defaultdict(dict)
        deaf: set[int] = set()  # partitions of a cluster whose node does not answer: what is known of them stands
        async with self._redis.pipeline(transaction=False) as pipe:
            for home in self._homes:
                pipe.hgetall(home + keys.BOARD_VERSIONS)
            answers = await self._execute(pipe)
        for number, answer in enumerate(answers):
            if isinstance(answer, BaseException):
                deaf.add(number)
                continue
            for field, version in answer.items():
                place = self._reading.read(f"{keys.BOARD_VERSIONS} {field!r}", field, _place)
                if place is not None:
                    told[place[0]][place[1]] = version
        changed: dict[str, Shares] = {}
        wanted: list[tuple[str, int, bytes]] = []
        for board in self._boards:
            known, now = self._shares.get(board, {}), self._versions(board, told)
            now |= {number: share.version for number, share in known.items() if number in deaf}
            kept = {at: share for at, share in known.items() if at in deaf or (not whole and now.get(at) == share.version)}
            news = [(board, at, version) for at, version in now.items() if at not in kept]
            if news or len(kept) < len(known):
                changed[board] = kept
                wanted += news
        async with self._redis.pipeline(transaction=False) as pipe:
            for board, at, _ in wanted:
                pipe.hget(self._space.of(at) + keys.parts(f"board:{board}"), at)
            bodies = await self._execute(pipe)
        for (board, at, version), body in zip(wanted, bodies, strict=True):
            if body is not None and not isinstance(body, BaseException):
                rows = self._reading.read(f"{keys.parts(f'board:{board}')} {at}", body, read_share)
                changed[board][at] = Told(version or body, rows or [])
        return {board: shares for board, shares in changed.items() if shares != self._shares.get(board, {})}

    def _versions(self, board: str, told: Mapping[int, Mapping[str, bytes]]) -> dict[int, bytes]:
        """Return the version of each partition's share; b"" = its worker is older than versions are, and it must be read."""
        unranked = self._unranked(board)
        ranked = (number for number in range(self._partitions) if number not in unranked)
        said = {number: told[number].get(board) if number in told else b"" for number in ranked}
        return {number: version for number, version in said.items() if version is not None}

    async def _execute(self, pipe: Any) -> list[Any]:
        """Return the answers; in a cluster, where one node may be away alone, with what it met in place of those of its keys."""
        return list(await pipe.execute(raise_on_error=not self._space.clustered))

    def _unranked(self, board: str) -> set[int]:
        """Return the partitions whose workers do not know the board: their shares are of before."""
        if board in BOARDS:
            return set()
        return {number for stats in self._status.alive if board not in _ranked(stats) for number in stats.flowing}

    async def _empty_boards_of_before(self, flush: Flush, now_ms: int) -> None:
        """Take the rows of boards that are not defined any more from the screens, and the boards from the lists."""
        known = {name.decode() for name in await self._redis.smembers(self._space.shared + keys.index("board"))}
        for board in sorted(known.difference(self._boards)):
            log.warning("board_not_ranked_any_more", board=board, why="neither MDP_BOARDS nor a plug-in of this worker has it")
            if self._space.clustered:
                for home in self._homes:
                    await self._redis.unlink(home + keys.parts(f"board:{board}"))
            else:
                flush.remove([keys.parts(f"board:{board}")])
            flush.remove_channel("board", board)
            flush.add_shared("board", f"board:{board}", now_ms, merge_shares((), self._rows_max, self._partitions))

    def _compare_workers(self) -> None:
        """Say which workers have other boards or plug-ins than this one: what is in their partitions is another thing."""
        plugin_boards = {board for plugin in self._own.plugins for board in plugin.boards} if self._own is not None else set()
        own = sorted(set(self._boards).difference(BOARDS, plugin_boards))
        differ = sorted(stats.worker for stats in self._status.alive if sorted(stats.boards) != own)
        if differ and differ != self._differ:
            log.warning("boards_differ", workers=differ, fix="give every worker the same MDP_BOARDS", own_boards=own)
        self._differ = differ
        if self._own is None:
            return
        plugins = _installed(self._own)
        others = sorted(stats.worker for stats in self._status.alive if _installed(stats) != plugins)
        if others and others != self._others:
            log.warning("plugins_differ", workers=others, fix="install the same plug-ins for every worker", own_plugins=plugins)
        self._others = others

    async def _add_status(self, flush: Flush, zero: Partition, now_ms: int, mono_ms: int) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._space.shared + STATS)
            for home in self._homes:
                pipe.hvals(home + keys.parts("counts"))
            workers, *told = await self._execute(pipe)
        if isinstance(workers, BaseException):
            raise workers
        self._counts.update({home: one for home, one in zip(self._homes, told, strict=True) if isinstance(one, list)})
        counts = [body for one in self._counts.values() for body in one]
        data = self._status.build(now_ms, mono_ms, counts, workers, zero.listeners, self._partitions)
        if gone := self._status.gone(mono_ms):
            await self._redis.hdel(self._space.shared + STATS, *gone)
        flush.add_shared("status", "status:pipeline", now_ms, data)


def _place(field: bytes) -> tuple[int, str]:
    """Return partition and board of a field of the versions.  Raises: ValueError."""
    number, _, board = field.decode().partition(" ")
    return int(number), board


def _ranked(stats: WorkerStats) -> set[str]:
    """Return the boards that a worker ranks beside the built-in ones."""
    return {*stats.boards, *(board for plugin in stats.plugins for board in plugin.boards)}


def _installed(stats: WorkerStats) -> list[str]:
    return sorted(f"{plugin.name} {plugin.version}{' (refused)' * (plugin.state == 'refused')}" for plugin in stats.plugins)
