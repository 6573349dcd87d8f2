"""Writes the changes of one partition in one atomic fenced flush.

Invariant: a flush is applied once or not at all; its documents, checkpoint and updates appear together; a writer that lost
its partition (fence) or whose cache was emptied (epoch) writes nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence, Set
from enum import IntEnum
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from mdc import keys
from mdc.channels import KEPT_MS, KINDS, Kind, kind_named
from mdc.connect import AWAY, CacheUnavailable, unavailable
from service.errors import OperatorError

CHECKPOINT_MS = KEPT_MS  # as long as any document: a channel's sequence must not begin again within one cache life
# A server that was restarted or failed over may have forgotten its newest writes: it begins a new life, whatever it holds.
OPEN_CACHE = """
redis.call('SET', KEYS[2], ARGV[2], 'NX')
if redis.call('GET', KEYS[3]) ~= ARGV[3] or redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SET', KEYS[1], ARGV[1])
  redis.call('SET', KEYS[3], ARGV[3])
end
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}
"""
RENEW_CACHE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end"


class Outcome(IntEnum):
    """What became of a flush: applied, or refused because another worker owns the partition, the cache is new or rolled back."""

    APPLIED = 0
    FENCED = 1
    NEW_CACHE = 2
    ROLLED_BACK = 3


class Flush:
    """The changes of one partition since the last flush, gathered by analyzers. Counts and bytes only; does no I/O."""

    def __init__(self, partition: int, epoch: str) -> None:
        self.partition = partition
        self.epoch = epoch
        self.sources: Mapping[str, str] = {}  # symbol → the source that its documents are made from
        self.only: Set[str] | None = None  # the symbols that this flush is about; None = all
        self.watched: Mapping[str, Set[str]] = {}  # kind → symbols; only these documents of such a flush cannot wait
        self.events = 0  # how many events the partition has counted so far, lost ones not
        self.start_over = False  # the first flush of a partition into a new cache replaces whatever checkpoint is there
        self.trace: str | None = None  # a W3C traceparent that its documents carry to whoever shows them
        self.checkpoint: list[Any] = []
        self._groups: dict[str, list[Any]] = {}
        self._history: list[Any] = []
        self._shares: list[Any] = []
        self._index: list[Any] = []
        self._letters: list[bytes] = []
        self._shared: list[Any] = []
        self._removed: list[str] = []
        self._removed_channels: list[str] = []
        self._removed_cells: list[str] = []
        self._kept: list[str] = []

    def take(self, changed: set[str]) -> list[str]:
        """Move the symbols that this flush is about out of `changed`, and return them."""
        taken = self.chosen(changed)
        if self.only is None:
            changed.clear()
        else:
            changed.difference_update(taken)
        return taken

    def chosen(self, symbols: Set[str]) -> list[str]:
        """Return those of `symbols` that this flush is about."""
        return list(symbols) if self.only is None else list(self.only & symbols)

    def channel_writer(self, kind: str) -> list[Any]:
        """Return the list that takes `key, document` pairs of `kind`: the hot path appends to it directly."""
        found = self._groups.get(kind)
        if found is None:
            found = self._groups[kind] = []
        return found

    def add_history(self, kind: str, channel: str, values: Sequence[bytes], drop: int = 0) -> None:
        """Append closed bars, oldest first, after dropping the newest `drop` of the history (they are written anew, corrected).

        A negative `drop` takes away the bars that start at -`drop` ms or later: when it is not known how many there are.
        """
        for value in values or ((b"",) if drop else ()):
            self._history += (keys.history(channel), drop, value, KINDS[kind].keep, KINDS[kind].ttl_ms)
            drop = 0

    def add_share(self, what: str, value: bytes) -> None:
        """Write this partition's share of something merged over partitions."""
        self._shares += (keys.parts(what), self.partition, value)

    def add_board(self, board: str, share: bytes) -> None:
        """Write this partition's share of a board, and its version: who merges reads it only when that is another."""
        self._shares += (keys.parts(f"board:{board}"), self.partition, share)
        self._shares += (keys.BOARD_VERSIONS, f"{self.partition} {board}", f"{zlib.crc32(share):x}-{len(share)}")

    def add_channel(self, kind: str, name: str) -> None:
        """Say that a channel now exists, so that wildcards find it."""
        self._index += (keys.index(kind), name)

    def add_dead_letter(self, value: bytes) -> None:
        """Keep a bad event for the operators (the newest 1000 are kept)."""
        self._letters.append(value)

    def add_shared(self, kind: str, channel: str, ts_ms: int, data: bytes) -> None:
        """Write a channel that several partitions write; the cache gives the sequence number."""
        self._shared += (channel, KINDS[kind].keep, KINDS[kind].ttl_ms, ts_ms, data)

    def remove(self, stored: Sequence[str]) -> None:
        """Delete keys, before anything of this flush is written."""
        self._removed += stored

    def remove_channel(self, kind: str, name: str) -> None:
        """Say that a channel is gone, so that wildcards do not find it."""
        self._removed_channels += (keys.index(kind), name)

    def remove_cells(self, cells: Sequence[str]) -> None:
        """Delete fields of the checkpoint."""
        self._removed_cells += cells

    def keep(self, stored: Sequence[str]) -> None:
        """Let keys live on as if they had been written now."""
        self._kept += stored

    def documents(self) -> Iterator[bytes]:
        """Yield the documents of channels that one partition writes, those of a channel in their order."""
        for pairs in self._groups.values():
            yield from pairs[1::2]

    def shared(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield channel, time (ms) and data of what several partitions write."""
        return zip(self._shared[0::5], self._shared[3::5], self._shared[4::5], strict=True)

    def shares(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and value of this partition's shares of what is merged."""
        return zip(self._shares[0::3], self._shares[2::3], strict=True)

    @property
    def empty(self) -> bool:
        parts = (self.checkpoint, self._shared, self._shares, self._letters, self._history, *self._groups.values())
        return not any((*parts, self._removed, self._removed_channels, self._removed_cells, self._kept))

    def arguments(self, fence: int, number: int) -> list[Any]:
        """Return the ARGV of scripts/flush.lua; `number` grows by one with every flush of the partition, 0 = not numbered."""
        groups = {name: pairs for name, pairs in self._groups.items() if pairs}
        if self.trace is not None:
            groups = {name: _traced(pairs, self.trace) for name, pairs in groups.items()}
        args: list[Any] = [fence, self.epoch, number, int(self.start_over), CHECKPOINT_MS]
        _add(args, (self._removed, 1), (self._removed_channels, 2), (self._removed_cells, 1), (self._kept, 1))
        args.append(len(groups))
        for name, pairs in groups.items():
            kind = _kind(name)
            channel = f"up:{kind.group}:{self.partition}"
            args += (channel, kind.keep if kind.mode == "event" else 0, kind.ttl_ms, len(pairs) // 2)
            args += pairs
        _add(
            args,
            (self._history, 5),
            (self.checkpoint, 2),
            (self._shares, 3),
            (self._index, 2),
            (self._letters, 1),
            (self._shared, 5),
        )
        return args


def _traced(pairs: list[Any], trace: str) -> list[Any]:
    """Return `key, document` pairs whose documents have the member `trace`."""
    end = b',"trace":"' + trace.encode() + b'"}'
    return [value if at % 2 == 0 else value[:-1] + end for at, value in enumerate(pairs)]


def _kind(name: str) -> Kind:
    kind = kind_named(name)
    assert kind is not None, f"{name} is no kind of the catalogue"
    return kind


def _add(args: list[Any], *sections: tuple[list[Any], int]) -> None:
    """Append sections, each led by its count of entries of so many values."""
    for values, width in sections:
        args.append(len(values) // width)
        args += values


class Writer:
    """Writes flushes to the cache through one pipeline a round."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._source = files("mdc").joinpath("scripts/flush.lua").read_text()
        self._sha = ""

    async def open(self, new_epoch: str, partitions: int) -> str:
        """Return the epoch of the cache: `new_epoch` if it was empty, or is another server process than last time.

        Raises: OperatorError, CacheUnavailable.  Call it before anything is read or claimed, and once a beat.
        """
        names = [keys.EPOCH, keys.PARTITIONS, keys.SERVER]
        try:
            async with self._redis.pipeline(transaction=False) as pipe:  # one round trip: a beat has little time
                pipe.info("server")
                pipe.script_load(self._source)
                pipe.mget(names)
                server, self._sha, (epoch, known, before) = _unfailed(await pipe.execute(raise_on_error=False))
            life = str(server.get("run_id", ""))
            if epoch is None or known is None or before != life.encode():
                epoch, known = await self._redis.eval(OPEN_CACHE, len(names), *names, new_epoch, partitions, life)
        except AWAY as error:
            raise unavailable(error) from None
        if int(known) != partitions:
            what = f"the cache was written with {int(known)} partitions, this worker has MDQ_PARTITIONS={partitions}"
            fix = f"Give every component the same number, or move the cache: python -m mdp repartition --to {partitions}"
            raise OperatorError(what, fix)
        return str(epoch.decode())

    async def renew(self, old_epoch: str, new_epoch: str) -> None:
        """Begin a new life of the cache unless another worker already has.  Raises: CacheUnavailable."""
        try:
            await self._redis.eval(RENEW_CACHE, 1, keys.EPOCH, old_epoch, new_epoch)
        except AWAY as error:
            raise unavailable(error) from None

    async def write(self, flushes: list[tuple[int, list[Any]]]) -> list[Outcome]:
        """Apply `(partition, arguments)` flushes, each on its own.  Raises: CacheUnavailable (apply them again, unchanged)."""
        try:
            return await self._evaluate(flushes)
        except NoScriptError:  # another server, or a restarted one: nothing is written before `open` has looked at its life
            raise CacheUnavailable("the cache is another server than before") from None
        except AWAY as error:
            raise unavailable(error) from None

    async def _evaluate(self, flushes: list[tuple[int, list[Any]]]) -> list[Outcome]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for partition, args in flushes:
                fence = f"fence:partition:{partition}"
                pipe.execute_command("EVALSHA", self._sha, 3, fence, keys.EPOCH, keys.checkpoint(partition), *args)
            return [Outcome(int(code)) for code in await pipe.execute()]


def _unfailed(answers: list[Any]) -> list[Any]:
    """Return the answers of `open`'s pipeline; the embedded cache, which knows no INFO, has no processes to tell apart.

    Raises: the error of any other answer.
    """
    server, *others = answers
    for one in others:
        if isinstance(one, Exception):
            raise one
    if isinstance(server, ResponseError):
        server = {}
    elif isinstance(server, Exception):
        raise server
    return [server, *others]
