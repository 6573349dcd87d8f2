"""Writes the changes of one partition in one atomic fenced flush.

Invariant: a flush is applied once or not at all; its documents, checkpoint and updates appear together; a writer that lost
its partition (fence) or whose cache was emptied (epoch) writes nothing.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Mapping, Sequence, Set
from enum import IntEnum
from importlib.resources import files
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from mdc import keys
from mdc.channels import KEPT_MS, KINDS, Kind, kind_named
from mdc.connect import AWAY, CacheUnavailable, unavailable
from service.errors import OperatorError
from service.keyspace import space_of

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
# One slot of a cluster. The server process is asked in the same call: between two it could be another one.
# KEYS: epoch, server, fence or partitions, and of what all share mdp:since: leases run out during a failover, and after it those
# who still have a partition's state get it back first (mdp/scripts/ownership.lua).
# ARGV: new epoch, fence (0 = none), partitions (0 = not kept here).
OPEN_HOME = """
local life = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
if redis.call('GET', KEYS[2]) ~= life or redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SET', KEYS[1], ARGV[1])
  redis.call('SET', KEYS[2], life)
  if KEYS[4] then redis.call('DEL', KEYS[4]) end
end
if ARGV[2] ~= '0' and tonumber(redis.call('GET', KEYS[3]) or 0) < tonumber(ARGV[2]) then redis.call('SET', KEYS[3], ARGV[2]) end
if ARGV[3] ~= '0' then redis.call('SET', KEYS[3], ARGV[3], 'NX') end
return {redis.call('GET', KEYS[1]), life, redis.call('GET', KEYS[3])}
"""
CLAIM_S_MAX = 0.8  # of a beat; a node that hangs must not cost the leases of partitions on the others
UNKNOWN_SHA = "0" * 40  # not opened yet: refused as a script that the server has forgotten
RENEW_CACHE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end"


class Outcome(IntEnum):
    """What became of a flush: applied, or refused because another worker owns the partition, the cache is new or rolled back."""

    APPLIED = 0
    FENCED = 1
    NEW_CACHE = 2
    ROLLED_BACK = 3


class Call(NamedTuple):
    """A flush as it is sent: the partition, ARGV, and in a cluster what stands before its keys and all keys that it touches."""

    partition: int
    args: list[Any]
    home: str = ""
    declared: Sequence[str] = ()


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
        self._spelled = False

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
        return self._arguments(fence, number, "")

    def call(self, fence: int, number: int, home: str, shared: str) -> Call:
        """Return the flush as it is sent, `home` before its keys; `shared` is what stands before those of no partition."""
        if not home:
            return Call(self.partition, self.arguments(fence, number))
        if not self._spelled:
            self._spell(home)
        self._spelled = True
        return Call(self.partition, self._arguments(fence, number, home), home, self._declared(home, home == shared))

    def _spell(self, home: str) -> None:
        widths = ((self._history, 5), (self._shares, 3), (self._index, 2), (self._removed_channels, 2))
        for pairs in (*((pairs, 2) for pairs in self._groups.values()), *widths, (self._removed, 1), (self._kept, 1)):
            values, width = pairs
            values[::width] = [home + key for key in values[::width]]

    def _declared(self, home: str, merges: bool) -> list[str]:
        """Return the keys that the call touches beside the three that it names."""
        found: dict[str, None] = {}
        for values, width in (
            *((pairs, 2) for pairs in self._groups.values()), (self._history, 5), (self._shares, 3), (self._index, 2),
            (self._removed_channels, 2), (self._removed, 1), (self._kept, 1),
        ):  # fmt: skip
            found.update(dict.fromkeys(values[::width]))
        if self._letters:
            found[home + keys.DEAD_LETTERS] = None
        for channel in dict.fromkeys(self._shared[0::5]) if merges else ():
            found[f"{home}seq:{channel}"] = found[home + keys.document(channel)] = None
        if self._shared and not merges:
            found[home + keys.OUT] = None
        return list(found)

    def _arguments(self, fence: int, number: int, home: str) -> list[Any]:
        groups = {name: pairs for name, pairs in self._groups.items() if pairs}
        if self.trace is not None:
            groups = {name: _traced(pairs, self.trace) for name, pairs in groups.items()}
        args: list[Any] = [fence, self.epoch, number, int(self.start_over), CHECKPOINT_MS]
        _add(args, (self._removed, 1), (self._removed_channels, 2), (self._removed_cells, 1), (self._kept, 1))
        args.append(len(groups))
        for name, pairs in groups.items():
            kind = _kind(name)
            channel = f"{home}up:{kind.group}:{self.partition}"
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
        self.space = space_of(redis)
        self._redis = redis
        self._source = files("mdc").joinpath("scripts/flush.lua").read_text()
        self._sha: dict[str, str] = {}  # home → the script as it is known there
        self._lives: dict[str, str] = {}  # home → the server process that has the script; clusters only

    def call(self, flush: Flush, fence: int, number: int, home: str | None = None) -> Call:
        """Return a flush as it is sent, to its partition's `home` unless told otherwise."""
        return flush.call(fence, number, self.space.of(flush.partition) if home is None else home, self.space.shared)

    async def open(self, new_epoch: str, partitions: int) -> str:
        """Return the epoch of the cache: `new_epoch` if it was empty, or is another server process than last time.

        Raises: OperatorError, CacheUnavailable.  Call it before anything is read or claimed, and once a beat.
        In a cluster it is the epoch of what all partitions share; `claim` returns those of the partitions.
        """
        try:
            if self.space.clustered:
                epoch, known = await self._open_home(self.space.shared, new_epoch, "", 0, partitions)
            else:
                epoch, known = await self._open_server(new_epoch, partitions)
        except AWAY as error:
            raise unavailable(error) from None
        if int(known) != partitions:
            what = f"the cache was written with {int(known)} partitions, this worker has MDQ_PARTITIONS={partitions}"
            move = f"or move the cache: python -m mdp repartition --to {partitions}"
            fix = "Give every component the same number, " + ("or empty the cache" if self.space.clustered else move)
            raise OperatorError(what, fix)
        return epoch

    async def claim(self, owned: Mapping[int, int], epoch: str, new_epoch: str) -> dict[int, str | CacheUnavailable]:
        """Return the epoch of each of these partitions (number → fence), or why it cannot be told.

        On a single server all have that of the cache, `epoch`. In a cluster each has its own, on its own node, where the fence
        is raised as well: after that no earlier owner's flush is applied, and the checkpoint may be read.
        """
        if not self.space.clustered:
            return dict.fromkeys(owned, epoch)
        tasks = {number: asyncio.create_task(self._claim(number, fence, new_epoch)) for number, fence in owned.items()}
        found: dict[int, str | CacheUnavailable] = {}
        try:
            if tasks:
                await asyncio.wait(tasks.values(), timeout=CLAIM_S_MAX)
            for number, task in tasks.items():
                known = CacheUnavailable(f"the node of partition {number} does not answer")
                found[number] = task.result() if task.done() else known
        finally:
            for task in tasks.values():
                task.cancel()
        return found

    async def _claim(self, partition: int, fence: int, new_epoch: str) -> str | CacheUnavailable:
        home = self.space.of(partition)
        try:
            return (await self._open_home(home, new_epoch, keys.fence(partition), fence, 0))[0]
        except AWAY as error:
            return unavailable(error)

    async def _open_home(self, home: str, new_epoch: str, fence_key: str, fence: int, partitions: int) -> tuple[str, int]:
        """Open one slot of a cluster: its life, its fence, its script.

        The script has a name of its own in each home: a flush passes only on a server process whose life was looked at here, for
        this very partition, since it started or was promoted.
        """
        names = [home + name for name in (keys.EPOCH, keys.SERVER, fence_key or keys.PARTITIONS)]
        if partitions:
            names.append(home + keys.SINCE)
        answer = await self._redis.eval(OPEN_HOME, len(names), *names, new_epoch, fence, partitions)
        epoch, life, known = answer[0].decode(), answer[1].decode(), int(answer[2])
        if self._lives.get(home) != life:
            text = f"-- {home}\n{self._source}"
            self._sha[home] = await self._redis.execute_command("SCRIPT LOAD", text, near=home)
            self._lives[home] = life
        return epoch, known

    async def _open_server(self, new_epoch: str, partitions: int) -> tuple[str, int]:
        names = [keys.EPOCH, keys.PARTITIONS, keys.SERVER]
        async with self._redis.pipeline(transaction=False) as pipe:  # one round trip: a beat has little time
            pipe.info("server")
            pipe.script_load(self._source)
            pipe.mget(names)
            server, self._sha[""], (epoch, known, before) = _unfailed(await pipe.execute(raise_on_error=False))
        life = str(server.get("run_id", ""))
        if epoch is None or known is None or before != life.encode():
            epoch, known = await self._redis.eval(OPEN_CACHE, len(names), *names, new_epoch, partitions, life)
        return str(epoch.decode()), int(known)

    async def renew(self, old_epoch: str, new_epoch: str, partition: int = 0) -> None:
        """Begin a new life of the cache (in a cluster: of the partition) unless another worker already has.

        Raises: CacheUnavailable.
        """
        try:
            await self._redis.eval(RENEW_CACHE, 1, self.space.of(partition) + keys.EPOCH, old_epoch, new_epoch)
        except AWAY as error:
            raise unavailable(error) from None

    async def write(self, flushes: Sequence[Call | tuple[int, list[Any]]]) -> list[Outcome | CacheUnavailable]:
        """Apply flushes, each on its own; return what became of each.

        Raises: CacheUnavailable (apply them again, unchanged). Of several in a cluster the answer says which were not applied.
        """
        calls = [Call(*one) for one in flushes]
        try:
            answers = await self._evaluate(calls)
        except AWAY as error:
            raise unavailable(error) from None
        outcomes = [self._outcome(call, answer) for call, answer in zip(calls, answers, strict=True)]
        for outcome in outcomes:
            if isinstance(outcome, CacheUnavailable) and (len(calls) == 1 or not self.space.clustered):
                raise outcome
        return outcomes

    def _outcome(self, call: Call, answer: Any) -> Outcome | CacheUnavailable:
        if isinstance(answer, NoScriptError):  # another server, or a restarted one: `open` has to look at its life first
            self._lives.pop(call.home, None)
            return CacheUnavailable("the cache is another server than before")
        return unavailable(answer) if isinstance(answer, BaseException) else Outcome(int(answer))

    async def _evaluate(self, calls: list[Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for partition, args, home, declared in calls:
                names = (home + keys.fence(partition), home + keys.EPOCH, home + keys.checkpoint(partition), *declared)
                pipe.execute_command("EVALSHA", self._sha.get(home, UNKNOWN_SHA), len(names), *names, *args)
            return list(await pipe.execute(raise_on_error=False))


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
