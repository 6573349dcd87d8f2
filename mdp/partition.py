"""Turns the batches of one partition into flushes: analyzers, positions, losses and bad events together. Pure.

Invariant: an event changes the analyzers at most once: what lies at or below the position in the checkpoint is skipped, and
checkpoint, position and documents leave in the same flush.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer
from mdp.conditions import ALL, VOLUME, Rules
from mdp.events import (
    MINUTE_BARS,
    QUOTES,
    SECOND_BARS,
    TRADES,
    BadEvent,
    Book,
    Decoder,
    Event,
    IndexValue,
    LimitBands,
    ListenerStatus,
)  # fmt: skip
from mdp.exact import units
from mdq.batch import Batch
from mdq.gaps import SOURCES_MAX, Arrival, GapCounter, Position, Verdict

SAMPLE_BYTES_MAX = 500
UNKNOWN_TYPES_MAX = 50
KEYS_MAX = 1_000  # source/stream pairs counted apart; what is more is counted together
OTHERS = "(other)/(other)"
VERSION = 2  # of the checkpoint; 1 had positions without a source
Handler = Callable[[Any], None]


class NewerCheckpoint(ValueError):
    """A checkpoint that a newer version of the processors has written."""


class Unreadable(NamedTuple):
    """A checkpoint cell that could not be read: of an analyzer's symbol, or (empty) one of the partition's own."""

    analyzer: str
    symbol: str
    field: str
    value: bytes
    fault: str


class Counts(msgspec.Struct):
    """What happened to a partition since its cache began; they survive hand-overs with the checkpoint. All in events.

    The keys of the dicts are `source/stream`; of `unknown` the types.
    """

    events: dict[str, int] = {}
    expired: dict[str, int] = {}
    dropped: dict[str, int] = {}
    fenced: dict[str, int] = {}
    redelivered: int = 0
    bad: int = 0
    malformed_batches: int = 0
    unreadable_cells: int = 0
    unknown: dict[str, int] = {}
    late: int = 0


def _overrides(analyzer: Analyzer, name: str) -> bool:
    return getattr(type(analyzer), name) is not getattr(Analyzer, name)


class Partition:
    """One partition's state. `epoch` is the cache's; `fence` proves to the cache that we own it."""

    def __init__(self, number: int, fence: int, epoch: str, analyzers: Sequence[Analyzer]) -> None:
        self.number = number
        self.fence = fence
        self.epoch = epoch
        self.counts = Counts()
        self.flush_number = 0
        self.oldest_ns: dict[str, int] = {}  # by source, when the oldest event of the flush in the making was received
        self.listeners: dict[str, dict[str, Any]] = {}  # the newest status event of each source
        self._analyzers = analyzers
        self._gaps = GapCounter()
        self._decoder = Decoder()
        self._rules = Rules()
        self.sources: dict[str, str] = {}  # symbol → the source that spoke of it last
        self._moved: set[str] = set()  # symbols whose source is not in the checkpoint yet
        self._set_aside: list[str] = []  # checkpoint cells that could not be read
        self._letters: list[bytes] = []
        self._late = 0  # of the analyzers, as far as it is in the counts
        self._now_ms = 0
        self._dirty = False
        self._start_over = False
        self._handlers = self._routes()
        self._trade_handlers = [a.on_trade for a in analyzers if _overrides(a, "on_trade")]

    def on_batch(self, batch: Batch, redelivered: bool, now_ns: int) -> None:
        """Take one delivery: skip what is already in, count what is missing, feed the rest to the analyzers."""
        if not self._now_ms:
            self._tell_time(now_ns // 1_000_000)  # before the first flush, too: impossible times are judged by it
        seen = self._gaps.observe(batch, now_ns, redelivered)
        fresh = self._count(batch, seen, redelivered)
        if fresh <= 0:
            return
        stream = batch.stream
        oldest_ns = self.oldest_ns.get(batch.source)
        if oldest_ns is None or batch.first_ns < oldest_ns:
            self.oldest_ns[batch.source] = batch.first_ns
        if stream == "unknown":
            self._count_unknown(batch.body, seen.skip)
        elif stream == "status":
            self._take_status(batch)
        else:
            self._take_events(batch, seen.skip)

    def _count(self, batch: Batch, seen: Arrival, redelivered: bool) -> int:
        """Count what a batch's arrival means; return how many of its events are new."""
        counts, key = self.counts, f"{batch.source}/{batch.stream}"
        fenced = seen.verdict is Verdict.FENCED
        fresh = batch.count - seen.skip
        for found, n in (
            (counts.expired, seen.expired), (counts.dropped, seen.dropped), (counts.fenced, seen.skip if fenced else 0),
            (counts.events, fresh),
        ):  # fmt: skip
            if n > 0:
                name = key if key in found or len(found) < KEYS_MAX else OTHERS
                found[name] = found.get(name, 0) + n
                self._dirty = True
        if redelivered and not fenced:
            counts.redelivered += seen.skip
        self._dirty = self._dirty or seen.skip > 0
        return fresh

    def on_malformed(self, body: bytes, reason: str) -> None:
        """Count and keep a queue message that is no batch at all."""
        self.counts.malformed_batches += 1
        self._dirty = True
        self._keep(body, reason, "batch")

    def collect(self, now_ms: int) -> Flush | None:
        """Return everything that changed since the last call, None when nothing did. The caller must get it applied,
        unchanged, before the next call, or throw this partition away."""
        flush = Flush(self.number, self.epoch)
        flush.start_over, flush.sources, flush.moved = self._start_over, self.sources, self._moved
        self._tell_time(now_ms)
        for analyzer in self._analyzers:
            analyzer.collect(flush)
        self._count_late()
        for letter in self._letters:
            flush.add_dead_letter(letter)
        self._letters.clear()
        if self._dirty:
            self._dirty = False
            self._checkpoint(flush)
        self._moved = set()
        if flush.empty:
            return None
        self._start_over = False
        self.flush_number += 1
        return flush

    def positions(self) -> list[tuple[str, str, Position]]:
        """Return how far each source's streams were taken in, (source, stream, position)."""
        return list(self._gaps.positions())

    def restore(self, cells: dict[bytes, bytes], now_ms: int = 0) -> list[Unreadable]:
        """Continue from a checkpoint: the fields and values of its hash.

        Returns: what could not be read. It is kept among the dead letters and its symbols begin anew: call `resume` for
        each, so that its channel does not count from one again.  Raises: NewerCheckpoint.
        """
        version = _version(cells.pop(b"version", b"1"))
        if version > VERSION:
            raise NewerCheckpoint(f"the checkpoint of partition {self.number} has version {version}, this worker reads {VERSION}")
        self._now_ms = self._now_ms or now_ms
        by_symbol: dict[tuple[Analyzer, str], list[tuple[str, bytes]]] = {}
        names = {analyzer.name: analyzer for analyzer in self._analyzers}
        ordered, bad = sorted(names, key=len, reverse=True), []
        for field, value in cells.items():
            key = field.decode(errors="replace")
            analyzer = next((names[name] for name in ordered if key.startswith(f"{name}:")), None)
            if not value:
                continue  # set aside by an earlier owner
            if analyzer is not None:
                rest = key[len(analyzer.name) + 1 :]
                by_symbol.setdefault((analyzer, rest.partition("|")[0]), []).append((rest, value))
            elif fault := _fault_of(self._restore_own, key, value):
                bad.append(Unreadable("", "", key, value, fault))
        for (analyzer, symbol), own in by_symbol.items():
            if fault := _fault_of(analyzer.restore, own):
                bad.append(Unreadable(analyzer.name, symbol, own[0][0], b"\n".join(value for _, value in own), fault))
                self._set_aside += [f"{analyzer.name}:{name}" for name, _ in own]
        for one in bad:
            self._set_down(one)
        return bad

    def _restore_own(self, key: str, value: bytes) -> None:
        if key == "flush":
            self.flush_number = int(value)
        elif key == "counts":
            self.counts = msgspec.json.decode(value, type=Counts)
        elif key.startswith("position:"):
            source, slash, stream = key.removeprefix("position:").partition("/")
            if slash:  # version 1 knew no sources: where it stood nobody can tell
                self._gaps.restore(source, stream, msgspec.json.decode(value, type=Position))
        elif key.startswith("source:"):
            self.sources[key.removeprefix("source:")] = value.decode()

    def _set_down(self, bad: Unreadable) -> None:
        """Keep an unreadable cell where the operators look, and do not read it again."""
        self.counts.unreadable_cells += 1
        self._dirty = True
        name = f"{bad.analyzer}:{bad.field}" if bad.analyzer else bad.field
        self._keep(bad.value, f"unreadable checkpoint cell {name}: {bad.fault}", "checkpoint")

    def resume(self, analyzer: str, symbol: str, seq: int) -> None:
        """Begin a symbol anew, its channel going on after `seq`."""
        for known in self._analyzers:
            if known.name == analyzer:
                known.resume(symbol, seq)

    def rewrite(self, fence: int, epoch: str) -> None:
        """The cache is new: write everything we know under its epoch."""
        self.fence, self.epoch = fence, epoch
        self._dirty = self._start_over = True
        self._moved.update(self.sources)
        for analyzer in self._analyzers:
            analyzer.rewrite()

    def _tell_time(self, now_ms: int) -> None:
        self._now_ms = now_ms
        for analyzer in self._analyzers:
            analyzer.on_time(now_ms)

    def _count_late(self) -> None:
        late = sum(analyzer.late for analyzer in self._analyzers)
        if late != self._late:
            self.counts.late += late - self._late
            self._late = late
            self._dirty = True

    def _take_events(self, batch: Batch, skip: int) -> None:
        events, bad = self._decoder.decode(batch.body, skip)
        for body, reason in bad:
            self._bad(body, reason, batch.stream)
        self._learn_sources(events, batch.source)
        self._dispatch(events, batch.stream)

    def _learn_sources(self, events: list[Event], source: str) -> None:
        known = self.sources
        for event in events:
            if event.__class__ is not ListenerStatus and known.get(event.symbol) != source:  # type: ignore[union-attr]
                known[event.symbol] = source  # type: ignore[union-attr]
                self._moved.add(event.symbol)  # type: ignore[union-attr]

    def _dispatch(self, events: list[Event], stream: str) -> None:
        handlers, on_trade, rules = self._handlers, self._trade_handlers, self._rules
        position = 0
        while position < len(events):
            try:
                for event in events[position:] if position else events:
                    position += 1
                    many = handlers[event.__class__]
                    if many is None:
                        rule = rules.of(event.conditions) if event.conditions and not event.continuous else ALL  # type: ignore[union-attr]
                        volume = units(event.size) if rule & VOLUME else 0  # type: ignore[union-attr]
                        notional = volume * units(event.price) if volume else 0  # type: ignore[union-attr]
                        for trade_handler in on_trade:
                            trade_handler(event, rule, volume, notional)  # type: ignore[arg-type]
                    else:
                        for handler in many:
                            handler(event)
            except Exception as error:  # one event never loses its batch, whatever it or an analyzer's defect does
                reason = str(error) if isinstance(error, BadEvent) else f"analyzer failed: {error!r}"
                self._bad(msgspec.json.encode(events[position - 1]), reason, stream)

    def _routes(self) -> dict[type, list[Handler] | None]:
        """Return event type → handlers; None marks a trade, which is prepared once for all analyzers."""
        routes: dict[type, list[Handler] | None] = dict.fromkeys(TRADES)
        routes[ListenerStatus] = []  # belongs into the status stream
        for types, name in (
            (QUOTES, "on_quote"), (SECOND_BARS, "on_second_bar"), (MINUTE_BARS, "on_minute_bar"), ((LimitBands,), "on_bands"),
            ((IndexValue,), "on_value"), ((Book,), "on_book"),
        ):  # fmt: skip
            for kind in types:
                routes[kind] = [getattr(a, name) for a in self._analyzers if _overrides(a, name)]
        return routes

    def _count_unknown(self, body: bytes, skip: int) -> None:
        unknown = self.counts.unknown
        for piece in self._decoder.pieces(body)[skip:]:
            name = self._decoder.type_name(piece)
            if name not in unknown and len(unknown) >= UNKNOWN_TYPES_MAX:
                name = "(other)"
            if name not in unknown:
                self._keep(piece, f"unknown event type {name}", "unknown")
            unknown[name] = unknown.get(name, 0) + 1

    def _take_status(self, batch: Batch) -> None:
        for piece in self._decoder.pieces(batch.body):
            try:
                facts = msgspec.json.decode(piece, type=dict[str, Any])
                if batch.source in self.listeners or len(self.listeners) < SOURCES_MAX:
                    self.listeners[batch.source] = facts
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._bad(piece, str(error), "status")

    def _bad(self, body: bytes, reason: str, stream: str) -> None:
        self.counts.bad += 1
        self._dirty = True
        self._keep(body, reason, stream)

    def _keep(self, body: bytes, reason: str, stream: str) -> None:
        sample = body[:SAMPLE_BYTES_MAX].decode(errors="replace")
        facts = {"ts": self._now_ms, "stream": stream, "partition": self.number, "reason": reason, "event": sample}
        self._letters.append(msgspec.json.encode(facts))
        del self._letters[:-1000]

    def _checkpoint(self, flush: Flush) -> None:
        flush.checkpoint += ("version", b"%d" % VERSION)
        for symbol in self._moved:
            flush.checkpoint += (f"source:{symbol}", self.sources[symbol])
        for name in self._set_aside:
            flush.checkpoint[:0] = (name, b"")  # first: a cell written anew comes later and wins
        self._set_aside.clear()
        counts = msgspec.json.encode(self.counts)
        flush.checkpoint += ("counts", counts)
        flush.add_share("counts", counts)
        for source, stream, position in self._gaps.positions():
            flush.checkpoint += (f"position:{source}/{stream}", msgspec.json.encode(position))


def _version(value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        return VERSION  # a cell like any other may be unreadable; the others say themselves whether they can be read


def _fault_of(call: Callable[..., None], *arguments: Any) -> str:
    try:
        call(*arguments)
    except Exception as error:  # whatever a decoder or an analyzer makes of bytes that are not its own
        return f"{type(error).__name__}: {error}"[:200]
    return ""
