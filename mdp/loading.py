"""Reads the checkpoint of a partition from the cache, so that whoever owns it now goes on where the last owner stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from mdc import keys
from mdc.connect import AWAY, unavailable
from mdc.documents import decode_doc
from mdp import roster
from mdp.analyzers.boards import share_rows
from mdp.analyzers.ranks import BUILT_IN, Board
from mdp.partitions.partition import Partition
from mdp.partitions.reading import NewerCheckpoint, Unreadable
from mdp.plugins.installed import Found
from mdp.plugins.rack import Rack
from mdp.reference import Reference
from mdp.settings import MdpSettings
from service.clock import Clock
from service.errors import OperatorError
from service.keyspace import space_of

log = structlog.get_logger()


class Loader:
    """Makes partitions of `partitions` (0 = any symbol is taken in any of them) from what the cache holds of them."""

    def __init__(
        self, settings: MdpSettings, redis: Any, clock: Clock, reference: Reference, boards: Sequence[Board] = BUILT_IN,
        rack: Rack | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._redis = redis
        self._space = space_of(redis)
        self._clock = clock
        self._reference = reference
        self._boards = boards
        self._markets = settings.markets
        self._rack = rack or Rack(Found([], []))

    async def load(self, number: int, fence: int, epoch: str) -> Partition:
        """Return the partition as its last owner left it.  Raises: CacheUnavailable, OperatorError for a newer version's."""
        settings = self._settings
        if self._rack.found.plugins:
            await self._learn()
        analyzers = roster.build(
            settings.analyzer_names, self._reference, share_rows(settings.board_rows, settings.mdq_partitions), self._markets,
            self._boards, settings.thresholds,
            self._rack.analyzers,
        )  # fmt: skip
        partition = Partition(number, fence, epoch, analyzers, settings.time_ahead_s * 1000, settings.mdq_partitions)
        try:
            cells = await self._redis.hgetall(self._space.of(number) + keys.checkpoint(number))
            if not cells:
                return partition
            life = cells.get(b"life")
            try:
                bad = partition.restore(cells, self._clock.wall_ns() // 1_000_000)
            except NewerCheckpoint as error:
                raise OperatorError(str(error), "Run the version that wrote it, or a newer one", 3) from None
            await self._resume(partition, bad)
        except AWAY as error:
            raise unavailable(error) from None
        if life != epoch.encode():  # of before the cache was rolled back: still the best there is
            partition.rewrite(fence, epoch)
        return partition

    async def _learn(self) -> None:
        """Look which plug-ins are off before the partition's first event: one may have ended its last owner."""
        try:
            self._rack.learn(await self._redis.hgetall(self._space.shared + keys.PLUGINS))
        except AWAY as error:
            raise unavailable(error) from None

    async def _resume(self, partition: Partition, bad: list[Unreadable]) -> None:
        """Let symbols whose checkpoint cannot be read begin anew, each channel behind its last document."""
        for cell in bad:
            if cell.fault:
                log.error("checkpoint_cell_unreadable", partition=partition.number, cell=cell.field, error=cell.fault)
            if cell.analyzer:
                home = self._space.of(partition.number)
                seq = await self._last_seq(home + keys.document(f"{cell.analyzer}:{cell.symbol}"))
                partition.resume(cell.analyzer, cell.symbol, seq)

    async def _last_seq(self, key: str) -> int:
        """Return a channel's last sequence number; when its document cannot be read either, one above all it can have had."""
        try:
            body = await (self._redis.lindex(key, -1) if await self._redis.type(key) == b"list" else self._redis.get(key))
            return decode_doc(body).seq if body else 0
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._clock.wall_ns() // 1_000_000
