"""Turns the batches of one partition into flushes: analyzers, positions, losses and bad events together. Pure.

Invariant: an event changes the analyzers at most once: what lies at or below the position in the checkpoint is skipped, and
checkpoint, position and documents leave in the same flush. In between, the watched symbols may leave alone, each with all its
cells (`collect_watched`); the positions stay, and the checkpoint says which symbols are ahead of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import msgspec

from mdc.writer import Flush
from mdp.analyzer import NONE, Analyzer
from mdp.days.watermark import Watermark
from mdp.events.conditions import ALL, CANCEL, VOLUME, Rules
from mdp.events.exact import units
from mdp.events.vendor import (
    MINUTE_BARS,
    QUOTES,
    SECOND_BARS,
    TRADES,
    Article,
    BadEvent,
    Book,
    Decoder,
    Event,
    IndexValue,
    LimitBands,
)  # fmt: skip
from mdp.partitions import ahead
from mdp.partitions.ahead import Ahead
from mdp.partitions.counts import Counts
from mdp.partitions.listing import Listing
from mdp.partitions.reading import VERSION, NewerCheckpoint, Unreadable, fault_of, version_of
from mdp.partitions.runs import Runs, Turn
from mdq.batch import Batch, began_ms
from mdq.gaps import NEVER_MS, SOURCES_MAX, Arrival, GapCounter, Position, Verdict
from service.days.markets import calendar_of

SAMPLE_BYTES_MAX = 500
UNKNOWN_TYPES_MAX = 50
KEYS_MAX = 1_000  # source/stream pairs counted apart; what is more is counted together
OTHERS = "(other)/(other)"
TIME_AHEAD_MS = 60_000  # of the feed's clock, which may differ a little from the venues'
TIME_BEHIND_MS = 8 * 86_400_000  # corrections of the last session are reported after a long weekend; nothing is older
COUNTED = VOLUME | CANCEL
KEPT_MAX = 200  # symbols in one flush whose documents live on
Handler = Callable[[Any], None]


def _misdated(ts: int, feed_ms: int) -> BadEvent:
    off_s = (ts - feed_ms) / 1000
    if off_s > 0:
        return BadEvent(f"its time {ts} is {off_s:.0f} s ahead of the feed's clock", "time_ahead")
    return BadEvent(f"its time {ts} is {-off_s / 86_400:.0f} days behind the feed's clock", "time_behind")


class Partition:
    """One partition's state, of `partitions` (0 = it takes any symbol). `epoch` is the cache's; `fence` proves that we own it."""

    def __init__(
        self,
        number: int,
        fence: int,
        epoch: str,
        analyzers: Sequence[Analyzer],
        time_ahead_ms: int = TIME_AHEAD_MS,
        partitions: int = 0,
    ) -> None:
        self.number = number
        self.fence = fence
        self.epoch = epoch
        self.counts = Counts()
        self.flush_number = 0
        self.oldest_ns: dict[str, int] = {}  # by source, when the oldest event of the flush in the making was received
        self.listeners: dict[str, dict[str, Any]] = {}  # the newest status event of each source
        self.listing = Listing(number, partitions)
        self.analyzers = analyzers
        self.watched: Mapping[str, set[str]] = {}  # kind → symbols that somebody looks at
        self._watched: frozenset[str] = frozenset()  # all of these symbols
        self._hurried: set[str] = set()  # symbols that were flushed alone since the last whole flush
        self._ahead: Ahead | None = None  # what our predecessor's checkpoint holds beyond its positions
        self._settled = True  # nothing happened since the last whole flush that only a whole one can tell
        self._time_ahead_ms = time_ahead_ms
        self._gaps = GapCounter(since_ms=began_ms(epoch) or NEVER_MS)
        self._runs = Runs()
        self._watermark = Watermark()
        self._event_ms = 0  # time of the newest event of the batch in hand, 0 = it has none
        self._decoder = Decoder()
        self._articles = Decoder(Article)
        self._rules = Rules()
        self._set_aside: list[str] = []  # checkpoint cells that could not be read
        self._letters: list[bytes] = []
        self._passed_over = {"late_bar": 0, "earlier_day": 0, "repeated": 0}  # by the analyzers, as far as it is in the counts
        self._restarted: list[str] = []  # symbols whose past is to be taken out of the cache
        self._heard: deque[str] = deque()  # symbols whose documents are to live on
        self._now_ms = 0
        self._floor = 0  # no channel of a forgotten symbol counted higher
        self._dirty = False
        self._start_over = False
        self._handlers = self._routes()
        self._deaf: dict[type, list[Handler] | None] = {kind: [] for kind in self._handlers}
        self._trade_handlers = [a.on_trade for a in analyzers if a.hears("on_trade")]
        self._time_handlers = [a.on_feed_time for a in analyzers if a.hears("on_feed_time")]
        self._article_handlers = [a.on_article for a in analyzers if a.hears("on_article")]
        self._source_handlers = [a.on_source for a in analyzers if a.hears("on_source")]

    def on_batch(self, batch: Batch, redelivered: bool, now_ns: int) -> bool:
        """Take one delivery: skip what is already in, count what is missing, feed the rest to the analyzers.

        Returns: whether it is of the publisher that speaks for its source now.
        """
        if not self._now_ms:
            self._tell_time(now_ns // 1_000_000)  # a dead letter says when
        seen = self._gaps.observe(batch, now_ns, redelivered)
        fresh = self._count(batch, seen, redelivered)
        self._event_ms = 0
        if fresh > 0:
            self._take(batch, seen.skip, redelivered)
        speaks = seen.verdict is not Verdict.FENCED and seen.verdict is not Verdict.PAST
        if speaks:
            self._go_on(batch, now_ns // 1_000_000)
        return speaks

    def _take(self, batch: Batch, skip: int, redelivered: bool) -> None:
        stream = batch.stream
        oldest_ns = self.oldest_ns.get(batch.source)
        if oldest_ns is None or batch.first_ns < oldest_ns:
            self.oldest_ns[batch.source] = batch.first_ns
        if stream == "unknown":
            self._count_unknown(batch.body, skip)
        elif stream == "status":
            self._take_status(batch)
        elif stream == "news":
            self._take_articles(batch, skip)
        else:
            self._take_events(batch, skip, redelivered)

    def _go_on(self, batch: Batch, now_ms: int) -> None:
        """Let days and sessions change when their time has come, whether events say so or not."""
        if not batch.feed_ns:
            return  # nothing has come from the feed yet
        feed_ms, event_ms = batch.feed_ns // 1_000_000, self._event_ms
        reached_ms = self._watermark.note(batch.source, batch.epoch, batch.stream, feed_ms, now_ms, event_ms, batch.run > 0)
        if reached_ms:
            for handler in self._time_handlers:
                handler(batch.source, reached_ms)

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
        flush = self._begin(now_ms)
        flush.start_over, flush.events = self._start_over, sum(self.counts.events.values())
        self._forget_past(flush)
        self._fill(flush)
        self._count_passed_over()
        self._catch_up(flush, now_ms)
        for letter in self._letters:
            flush.add_dead_letter(letter)
        self._letters.clear()
        if self._dirty:
            self._dirty = False
            self._checkpoint(flush)
        self._settled = True
        if flush.empty:
            return None
        self._start_over = False
        self.flush_number += 1
        return flush

    @property
    def hurries(self) -> bool:
        """Whether the watched symbols may be flushed alone: not after anything that concerns more than one symbol."""
        if not self._settled or self._ahead is not None or self._start_over or any(one.moved for one in self.analyzers):
            return False
        chosen = self._chosen()  # what was passed over of theirs is counted in a whole flush only
        return all(analyzer.passed.isdisjoint(chosen) for analyzer in self.analyzers)

    @property
    def pressing(self) -> bool:
        """Whether there are symbols that should not wait for a whole flush."""
        return bool(self._watched) or any(analyzer.urgent for analyzer in self.analyzers)

    def watch(self, channels: Iterable[tuple[str, str]], boards: Set[str] = NONE) -> None:
        """From now on somebody looks at these (kind, symbol) and at these boards, and at no others."""
        for analyzer in self.analyzers:
            analyzer.on_watched(boards)
        known = self.listing.marks  # names that nobody trades would cost with every flush, and anybody may ask for thousands
        found: dict[str, set[str]] = {}
        for kind, symbol in channels:
            if symbol in known:
                found.setdefault(kind, set()).add(symbol)
        self.watched, self._watched = found, frozenset().union(*found.values())

    def collect_watched(self, now_ms: int) -> Flush | None:
        """Return what changed of the pressing symbols, None when nothing did; as `collect`, but only when `hurries`.

        The batches behind it may not be acknowledged yet: for the other symbols they are not in the cache.
        """
        assert self.hurries, "a whole flush is due"
        flush = self._begin(now_ms)
        # Who was flushed alone stays in until the next whole flush: all who are ahead stand at the same positions.
        hurried = flush.only = self._chosen()
        flush.watched = self.watched
        self._fill(flush)
        if flush.empty:
            return None
        self._hurried = hurried
        flush.checkpoint += (ahead.FIELD, ahead.cell(hurried, self._gaps.positions()))
        self.flush_number += 1
        return flush

    def _fill(self, flush: Flush) -> None:
        for analyzer in self.analyzers:
            analyzer.collect(flush)
            if analyzer.outlet is not None:
                analyzer.outlet.end()

    def _chosen(self) -> set[str]:
        return self._hurried.union(self._watched, *(analyzer.urgent for analyzer in self.analyzers))

    def _begin(self, now_ms: int) -> Flush:
        flush = Flush(self.number, self.epoch)
        flush.sources = self.listing.sources
        if moved := self.listing.take_moved():
            for analyzer in self.analyzers:
                if analyzer.outlet is not None:
                    analyzer.outlet.note_moved(moved)
        self._tell_time(now_ms)
        return flush

    def _catch_up(self, flush: Flush, now_ms: int) -> None:
        """Say in a whole flush who is ahead of it: nobody of ours, but maybe of our predecessor's."""
        if self._ahead is not None and not self._ahead.over(self._gaps.positions(), now_ms):
            if self._start_over:
                flush.checkpoint += (ahead.FIELD, self._ahead.body)
        elif self._hurried or self._ahead is not None:
            flush.checkpoint += (ahead.FIELD, b"")
            self._ahead = None
        self._hurried = set()

    def positions(self) -> list[tuple[str, str, Position]]:
        """Return how far each source's streams were taken in, (source, stream, position)."""
        return list(self._gaps.positions())

    def restore(self, cells: dict[bytes, bytes], now_ms: int = 0) -> list[Unreadable]:
        """Continue from a checkpoint: the fields and values of its hash.

        Returns: what could not be read. It is kept among the dead letters and its symbols begin anew: call `resume` for
        each, so that its channel does not count from one again.  Raises: NewerCheckpoint.
        """
        version = version_of(cells.pop(b"version", b"1"))
        if version > VERSION:
            raise NewerCheckpoint(f"the checkpoint of partition {self.number} has version {version}, this worker reads {VERSION}")
        self._now_ms = self._now_ms or now_ms
        by_symbol: dict[tuple[Analyzer, str], list[tuple[str, bytes]]] = {}
        names = {analyzer.name: analyzer for analyzer in self.analyzers}
        ordered, bad = sorted(names, key=len, reverse=True), []
        for field, value in cells.items():
            key = field.decode(errors="replace")
            analyzer = next((names[name] for name in ordered if key.startswith(f"{name}:")), None)
            if analyzer is not None:
                rest = key[len(analyzer.name) + 1 :]
                by_symbol.setdefault((analyzer, rest.partition("|")[0]), []).append((rest, value))
            elif not value:
                continue
            elif fault := fault_of(self._restore_own, key, value):
                bad.append(Unreadable("", "", key, value, fault))
                if key.startswith("position:"):
                    self._gaps.forgot()
                if key == "floor":
                    self._set_floor(now_ms)  # no channel can have counted as high
        self.listing.sort()
        for analyzer in self.analyzers:
            own_cell = cells.get(analyzer.own_cell.encode())
            if own_cell and (fault := fault_of(analyzer.restore_own, own_cell, sum(self.counts.events.values()))):
                bad.append(Unreadable("", "", analyzer.own_cell, own_cell, fault))
        late = self._ahead.symbols if self._ahead is not None else frozenset()  # their documents may be older than their cells
        for (analyzer, symbol), own in by_symbol.items():
            if not any(value for _, value in own):  # set aside by an earlier owner, and nothing came since
                bad.append(Unreadable(analyzer.name, symbol, own[0][0], b"", ""))
            elif fault := fault_of(analyzer.restore, [(name, value) for name, value in own if value]):
                bad.append(Unreadable(analyzer.name, symbol, own[0][0], b"\n".join(value for _, value in own), fault))
                self._set_aside += [f"{analyzer.name}:{name}" for name, _ in own]
            elif symbol in late and analyzer.outlet is not None:
                analyzer.outlet.late.add(symbol)
        for one in bad:
            if one.fault:
                self._set_down(one)
        return bad

    def _restore_own(self, key: str, value: bytes) -> None:
        if key == ahead.FIELD:
            self._ahead = Ahead(value, self._now_ms)
        elif key == "flush":
            self.flush_number = int(value)
        elif key == "counts":
            self.counts = msgspec.json.decode(value, type=Counts)
        elif key.startswith("position:"):
            source, slash, stream = key.removeprefix("position:").partition("/")
            if not slash:  # version 1 knew no sources: where it stood nobody can tell
                self._gaps.forgot()
            else:
                self._gaps.restore(source, stream, msgspec.json.decode(value, type=Position))
        elif key.startswith("heard:"):
            self.listing.restore(key.removeprefix("heard:"), value)
        elif key == "runs":
            self._runs.restore(value)
        elif key == "lags":
            self._watermark.restore(msgspec.json.decode(value, type=dict[str, tuple[str, int]]), self._now_ms)
        elif key == "floor":
            self._set_floor(int(value))

    def _set_down(self, bad: Unreadable) -> None:
        """Keep an unreadable cell where the operators look, and do not read it again."""
        self.counts.unreadable_cells += 1
        self._dirty = True
        name = f"{bad.analyzer}:{bad.field}" if bad.analyzer else bad.field
        self._keep(bad.value, f"unreadable checkpoint cell {name}: {bad.fault}", "checkpoint")

    def resume(self, analyzer: str, symbol: str, seq: int) -> None:
        """Begin a symbol anew, its channel going on after `seq`."""
        for known in self.analyzers:
            if known.name == analyzer and not symbol.startswith("@"):  # that is a calendar: it has no channel
                known.resume(symbol, seq)

    def rewrite(self, fence: int, epoch: str) -> None:
        """The cache is new: write everything we know under its epoch."""
        self.fence, self.epoch = fence, epoch
        self._dirty = self._start_over = True
        self.listing.rewrite()
        for analyzer in self.analyzers:
            analyzer.rewrite()

    def align(self, runs: Mapping[str, tuple[str, int]], days: Mapping[str, int]) -> None:
        """Go on to the runs (source → epoch, run) and days (calendar → its newest event, ms) that another partition has seen.

        What a partition knows of the time it learns from its own events; whoever puts symbols of several together brings them
        to the same day first.
        """
        for source in self._runs.catch_up(runs):
            self._restart(source)
        for analyzer in self.analyzers:
            analyzer.on_days(days)
        self._dirty, self._settled = True, False

    def _tell_time(self, now_ms: int) -> None:
        self._now_ms = now_ms
        for analyzer in self.analyzers:
            analyzer.on_time(now_ms)

    def _forget_past(self, flush: Flush) -> None:
        """Take out of the cache what is not traded any more and what a restarted tape has left; let the rest live on."""
        floor = self._floor
        for symbol in self.listing.leave():
            floor = max(floor, self._forget(symbol, flush))
        if floor > self._floor:
            self._set_floor(floor)
        outlets = [analyzer.outlet for analyzer in self.analyzers if analyzer.outlet is not None]
        for symbol in self._restarted:
            for outlet in outlets:
                outlet.clear(symbol, flush)
        self._restarted.clear()
        for symbol, cell in self.listing.cells():
            flush.checkpoint += (f"heard:{symbol}", cell)
            self._heard.append(symbol)
        for _ in range(min(len(self._heard), KEPT_MAX)):
            symbol = self._heard.popleft()
            for outlet in outlets:
                flush.keep(outlet.stored(symbol))

    def _forget(self, symbol: str, flush: Flush) -> int:
        """Let go of a symbol everywhere; return how far its channels counted."""
        self.counts.forgotten += 1
        self._dirty = True
        floor = 0
        flush.remove_cells([f"heard:{symbol}"])
        for analyzer in self.analyzers:
            analyzer.forget(symbol)
            flush.remove_cells([f"{analyzer.name}:{symbol}{cell}" for cell in analyzer.cells])
            if analyzer.outlet is not None:
                floor = max(floor, analyzer.outlet.forget(symbol, flush))
        return floor

    def _set_floor(self, floor: int) -> None:
        self._floor = floor
        for analyzer in self.analyzers:
            if analyzer.outlet is not None:
                analyzer.outlet.floor = floor

    def _restart(self, source: str) -> None:
        """The tape of a source begins anew: so do its symbols, and its time."""
        self._settled = False
        symbols = self.listing.of_source(source)
        self.listing.restart(source)
        self._watermark.restart(source)
        for analyzer in self.analyzers:
            analyzer.restart_source(source)
            for symbol in symbols:
                analyzer.restart(symbol)
        self._restarted += symbols

    def _count_passed_over(self) -> None:
        for why, name in (("late_bar", "late_bars"), ("earlier_day", "earlier_day"), ("repeated", "repeated")):
            found = sum(getattr(analyzer, name) for analyzer in self.analyzers)
            self._discard(why, found - self._passed_over[why])
            self._passed_over[why] = found
        for analyzer in self.analyzers:
            analyzer.passed.clear()

    def _discard(self, why: str, events: int) -> None:
        if events:
            self.counts.discarded[why] = self.counts.discarded.get(why, 0) + events
            self._dirty, self._settled = True, False

    def _is_past(self, batch: Batch, skip: int) -> bool:
        """Return whether a batch is of a run that is over, and begin the run that it is of."""
        turn = self._runs.turn(batch.source, batch.epoch, batch.run)
        if turn is Turn.PAST:
            self._discard("earlier_run", batch.count - skip)
        elif turn is Turn.NEW:
            self._restart(batch.source)
        return turn is Turn.PAST

    def _take_articles(self, batch: Batch, skip: int) -> None:
        """Articles go their own way: they move no day and say of no symbol whose it is. What comes again is known by its id."""
        if self._is_past(batch, skip):
            return
        articles, bad = self._articles.decode(batch.body, skip)
        for body, reason in bad:
            self._bad(body, reason, batch.stream)
        feed_ms = batch.feed_ns // 1_000_000
        mark = self.listing.mark(batch.source, feed_ms)
        for article in articles:
            try:
                if not feed_ms - TIME_BEHIND_MS <= article.ts <= feed_ms + self._time_ahead_ms:
                    raise _misdated(article.ts, feed_ms)
                if article.symbol:
                    self.listing.note_article(article.symbol, mark)
                else:
                    self.listing.check_place(article.id)
                for handler in self._article_handlers:
                    handler(article, batch.source)
            except BadEvent as error:
                self._bad(msgspec.json.encode(article), str(error), batch.stream, error.why)
            except Exception as error:
                self._bad(msgspec.json.encode(article), f"analyzer failed: {error!r}", batch.stream, "failed")

    def _take_events(self, batch: Batch, skip: int, redelivered: bool) -> None:
        if self._is_past(batch, skip):
            return
        market = calendar_of(batch.market)
        for on_source in self._source_handlers:
            on_source(batch.source, market)
        events, bad = self._decoder.decode(batch.body, skip)
        for body, reason in bad:
            self._bad(body, reason, batch.stream)
        if events:
            self._event_ms = events[-1].ts
        if self._ahead is not None:
            had, events = self._ahead.split(events, batch, skip, redelivered)
            self._dispatch(had, batch, self._deaf)  # the symbols are listed, and nothing else
        self._dispatch(events, batch, self._handlers)

    def _dispatch(self, events: list[Event], batch: Batch, handlers: dict[type, list[Handler] | None]) -> None:
        on_trade, rules = self._trade_handlers, self._rules
        feed_ms = batch.feed_ns // 1_000_000
        earliest, latest = feed_ms - TIME_BEHIND_MS, feed_ms + self._time_ahead_ms
        mark, heard = self.listing.mark(batch.source, feed_ms), self.listing.marks.get
        position = 0
        while position < len(events):
            try:
                for event in events[position:] if position else events:
                    position += 1
                    if not earliest <= event.ts <= latest:
                        raise _misdated(event.ts, feed_ms)
                    if heard(event.symbol) is not mark:
                        self.listing.note(event.symbol, mark)
                    many = handlers[event.__class__]
                    if many is None:
                        codes = event.conditions  # type: ignore[union-attr]
                        rule = rules.of(codes, event.symbol) if codes and not event.continuous else ALL  # type: ignore[union-attr]
                        volume = units(event.size) if rule & COUNTED else 0  # type: ignore[union-attr]
                        notional = volume * units(event.price) if volume else 0  # type: ignore[union-attr]
                        for trade_handler in on_trade:
                            trade_handler(event, rule, volume, notional)  # type: ignore[arg-type]
                    else:
                        for handler in many:
                            handler(event)
            except BadEvent as error:  # one event never loses its batch, whatever it or an analyzer's defect does
                self._bad(msgspec.json.encode(events[position - 1]), str(error), batch.stream, error.why)
            except Exception as error:
                self._bad(msgspec.json.encode(events[position - 1]), f"analyzer failed: {error!r}", batch.stream, "failed")

    def _routes(self) -> dict[type, list[Handler] | None]:
        """Return event type → handlers; None marks a trade, which is prepared once for all analyzers."""
        routes: dict[type, list[Handler] | None] = dict.fromkeys(TRADES)
        for types, name in (
            (QUOTES, "on_quote"), (SECOND_BARS, "on_second_bar"), (MINUTE_BARS, "on_minute_bar"), ((LimitBands,), "on_bands"),
            ((IndexValue,), "on_value"), ((Book,), "on_book"),
        ):  # fmt: skip
            for kind in types:
                routes[kind] = [getattr(a, name) for a in self.analyzers if a.hears(name)]
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

    def _bad(self, body: bytes, reason: str, stream: str, why: str = "bad") -> None:
        self.counts.bad += 1
        self._discard(why, 1)
        self._keep(body, reason, stream)

    def _keep(self, body: bytes, reason: str, stream: str) -> None:
        sample = body[:SAMPLE_BYTES_MAX].decode(errors="replace")
        facts = {"ts": self._now_ms, "stream": stream, "partition": self.number, "reason": reason, "event": sample}
        self._letters.append(msgspec.json.encode(facts))
        del self._letters[:-1000]

    def _checkpoint(self, flush: Flush) -> None:
        flush.checkpoint += ("version", b"%d" % VERSION)
        for name in self._set_aside:
            flush.checkpoint[:0] = (name, b"")  # first: a cell written anew comes later and wins
        self._set_aside.clear()
        counts = msgspec.json.encode(self.counts)
        flush.checkpoint += ("counts", counts)
        flush.add_share("counts", counts)
        lags = msgspec.json.encode(self._watermark.lags())
        flush.checkpoint += ("runs", self._runs.cell(), "floor", b"%d" % self._floor, "lags", lags)
        for source, stream, position in self._gaps.positions():
            flush.checkpoint += (f"position:{source}/{stream}", msgspec.json.encode(position))
