"""Runs a plug-in inside a partition as an analyzer like any other, and keeps the others safe from it. Pure.

Invariant: whatever a plug-in raises, or however long it takes, its partition goes on; its state is then that of the last flush,
and every event that it did not have is counted as missed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer, Outlet
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.events.vendor import AnyBar, AnyQuote, AnyTrade, Article, Book, IndexValue, LimitBands
from mdp.plugin import HANDLERS, Plugin, QuoteView
from mdp.plugins.ranking import RANKED_MAX, Ranking
from mdp.plugins.reports import Reports, Unusable
from mdp.plugins.wakes import LATE_MS, Wakes

DOCUMENT_BYTES_MAX = STATE_BYTES_MAX = 65_536
FAULT_CHARS_MAX = 300
PAUSE_MS, PAUSE_MS_MAX = 1_000, 60_000  # before a plug-in that failed is started again; twice as long each time in a row
SOUND_MS = 60_000  # who has run for so long has not failed in a row
WINDOW_NS = 500_000_000  # in which a plug-in's time is added up
WAKES_MAX = 1_000  # of a symbol before one event: what is more waits for the next one
BARE_MAX = 1_000  # documents of a new cache in one flush: writing all of them is no fault of the plug-in, and would look like one
RUNNING, PAUSED, OFF = "running", "paused", "off"


class Installed(NamedTuple):
    """A plug-in that can be run."""

    name: str
    make: type[Plugin]
    version: str  # of the distribution that brought it


@dataclass(slots=True)
class Watch:
    """Which plug-in is at work, and since when (monotonic ns, 0 = none): a thread looks at it while the loop cannot."""

    since_ns: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plug-in may take: `budget_ns` of each WINDOW_NS in a partition, and so many `failures` in a row; 0 = no limit."""

    budget_ns: int = 0
    failures: int = 5
    rows: int = 500


class TooSlow(Exception):
    """A plug-in took more time than it may."""


@dataclass(slots=True)
class Failure:
    """One end of a plug-in's instance, for the log. `pause_ms` until it is started again, 0 = it is not."""

    fault: str
    where: str
    trace: str
    pause_ms: int
    missed: int


class Tally(msgspec.Struct, array_like=True):
    """What a partition remembers of a plug-in beside its symbols. `events` = how many the partition had counted with it there."""

    missed: int = 0
    gaps: int = 0  # how often its state stopped and went on later
    failures: int = 0
    events: int = 0


class Host(Analyzer):
    """One plug-in in one partition. `reports` is the analyzer that writes what it reports.

    `clock` is monotonic, in ns; `starved` says for how many ns this thread had to wait for a processor since it began.
    """

    def __init__(
        self, plugin: Installed, quotes: QuoteAnalyzer, reports: Reports,
        limits: Limits, watch: Watch, clock: Callable[[], int], order: bytes | None = None, held: str = "",
        starved: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.plugin = plugin
        self.name = f"own:{plugin.name}"
        self.own_cell = f"plugin:{plugin.name}"
        self.outlet = self._out = Outlet(self.name)
        self.tally = Tally()
        self.told = Tally()  # as far as it is in the metrics
        self.order = order  # the newest of the operators' orders that it has followed, as it was written
        self.state = PAUSED
        self.fault = ""  # why it does not run, or why it did not the last time
        self.failed: list[Failure] = []  # what the log has not been told yet
        self._quotes, self._reports, self._limits, self._watch, self._clock = quotes, reports, limits, watch, clock
        self._starved = starved
        self._ranking = Ranking(plugin.make.boards, limits.rows, quotes)
        own = [name for name in (*HANDLERS, "on_wake") if getattr(plugin.make, name) is not getattr(Plugin, name)]
        self._own = frozenset(own)  # the methods that the plug-in has
        # What the partition calls for them: an article comes from the analyzer that knows whether it is a new one.
        wakes = ("on_source", "on_feed_time") if "on_wake" in own else ()
        self._heard = self._own.difference(("on_article", "on_wake")).union(wakes)
        self._wakes = Wakes()
        self._instance: Plugin | None = None
        self._bound: dict[str, Callable[..., None]] = {}
        self._states: dict[str, Any] = {}
        self._cells: dict[str, bytes] = {}  # symbol → its state as of the last flush: the checkpoint, and where a restart goes on
        self._since: dict[str, int] = {}  # symbol → its events since then; 0 = its cell is to be written all the same
        self._bare: dict[str, None] = {}  # symbols whose document is due although they had no event: some in each flush
        self._ts: dict[str, int] = {}  # symbol → time of its newest event (ms), of those since the last flush
        self._symbol = ""  # whose event is being handled
        self._wakeful = True  # it is one of the market's
        self._woken_ms = 0  # the time for which the plug-in is being woken, 0 = it is not
        self._window_ns = self._spent_ns = self._busy_ns = self._starved_ns = 0
        self._in_a_row = 0
        self._retry_ms = self._started_ms = self._now_ms = 0
        self._decode = msgspec.msgpack.Decoder(plugin.make.State).decode
        self._encode = msgspec.msgpack.Encoder().encode
        if held:
            self.hold(held)
        else:
            self._start()

    # ---- what the partition calls

    def hears(self, handler: str) -> bool:
        return handler in self._heard

    def on_trade(self, trade: AnyTrade, rule: int, volume: int, notional: int) -> None:
        self._hear("on_trade", trade, rule)

    def on_quote(self, quote: AnyQuote) -> None:
        self._hear("on_quote", quote)

    def on_second_bar(self, bar: AnyBar) -> None:
        self._hear("on_second_bar", bar)

    def on_minute_bar(self, bar: AnyBar) -> None:
        self._hear("on_minute_bar", bar)

    def on_value(self, value: IndexValue) -> None:
        self._hear("on_value", value)

    def on_bands(self, bands: LimitBands) -> None:
        self._hear("on_bands", bands)

    def on_book(self, book: Book) -> None:
        self._hear("on_book", book)

    def on_source(self, source: str, market: str) -> None:
        self._wakes.source = source

    def on_feed_time(self, source: str, feed_ms: int) -> None:
        self._wakes.source = source
        until_ms = feed_ms - LATE_MS
        for symbol in self._wakes.due(source, until_ms):
            self._wake_until(symbol, until_ms)

    def on_time(self, now_ms: int) -> None:
        self._now_ms = now_ms
        if self.state == PAUSED and (now_ms >= self._retry_ms or now_ms < self._retry_ms - PAUSE_MS_MAX):
            self._start()  # also after the wall clock was put back
        elif self.state == RUNNING and self._in_a_row and now_ms - self._started_ms > SOUND_MS:
            self._in_a_row = 0

    def collect(self, flush: Flush) -> None:
        if self._since or self._bare or self._out.announce:
            write = self._out.begin(flush)
            for symbol in flush.chosen(self._since.keys()):
                if symbol not in self._since:
                    continue  # a failure on the way has emptied it
                if not self._since[symbol] or self._write(flush, symbol, write):
                    self._write_cell(flush, symbol)
            if flush.only is None and self._instance is not None:
                for symbol in list(self._bare)[:BARE_MAX]:
                    if self._instance is not None and self._write(flush, symbol, write):
                        self._write_cell(flush, symbol)
        if flush.only is None:
            self._rank(flush)
            if flush.events != self.tally.events:
                self.tally.events = flush.events
                flush.checkpoint += (self.own_cell, msgspec.json.encode(self.tally))

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, body in cells:
            seq, state, *wake = msgspec.msgpack.decode(body, type=list[Any])
            self._states[symbol] = self._decode(state)
            self._wakes.restore(symbol, wake)
            self._cells[symbol] = state
            self._out.restore(symbol, seq)
            self._ranking.touch(symbol)

    def restore_own(self, body: bytes, events: int) -> None:
        self.tally = msgspec.json.decode(body, type=Tally)
        self.told = copy(self.tally)  # what earlier owners counted is theirs
        if events > self.tally.events:  # a worker without this plug-in had the partition meanwhile
            self.tally.missed += events - self.tally.events
            self.tally.gaps += 1

    def resume(self, symbol: str, seq: int) -> None:
        self._out.restore(symbol, seq)

    def rewrite(self) -> None:
        self._since = dict.fromkeys(self._cells, 0) | self._since
        self._bare = dict.fromkeys(self._cells)
        self._out.announce = True
        self.tally.events = -1
        self._ranking.rewrite()

    def forget(self, symbol: str) -> None:
        for known in (self._states, self._cells, self._since, self._bare, self._ts):
            known.pop(symbol, None)
        self._wakes.forget(symbol)
        self._ranking.touch(symbol)

    def restart(self, symbol: str) -> None:
        self._wakes.forget(symbol)
        if symbol in self._states or symbol in self._cells:
            state = self._states[symbol] = self.plugin.make.State()
            self._cells[symbol] = self._encode(state)
            self._since[symbol] = 0
            self._bare[symbol] = None

    # ---- what the worker asks and says

    @property
    def hears_news(self) -> bool:
        """Whether the plug-in wants articles."""
        return "on_article" in self._own

    def hold(self, why: str) -> None:
        """Take the plug-in out until `release`: the operator, or the watchdog, has said so."""
        if self._instance is not None:
            self._end()
        self.state, self.fault = OFF, why[:FAULT_CHARS_MAX]

    def release(self) -> None:
        """Let it begin anew, whatever had ended it."""
        if self.state != RUNNING:
            self.state, self._in_a_row = PAUSED, 0
            self._start()

    def take_busy_ns(self) -> int:
        """Return how long the plug-in was at work since the last call."""
        busy_ns, self._busy_ns = self._busy_ns, 0
        return busy_ns

    # ---- what the plug-in may ask

    def quote(self, symbol: str) -> QuoteView | None:
        return self._quotes.snapshot(symbol)

    def quotes(self) -> Iterator[tuple[str, QuoteView]]:
        for symbol in sorted(self._quotes.quotes):  # in an order that no restart changes
            quote = self._quotes.snapshot(symbol)
            if quote is not None:  # gone, for who goes on with it later
                yield symbol, quote

    def wake(self, at_ms: int) -> None:
        if not self._symbol or not self._wakeful:
            raise Unusable("a wake belongs to an event of the market: it can only be asked for in a handler of one")
        if "on_wake" not in self._own:
            raise Unusable("a plug-in without on_wake cannot be woken")
        if 0 < at_ms <= self._woken_ms:
            raise Unusable(f"woken at {self._woken_ms} it asks for {at_ms} again: it would never end")
        self._wakes.ask(self._symbol, int(at_ms))

    def report(self, ts: int, data: Any) -> None:
        if not self._symbol:
            raise Unusable("a report belongs to an event: it can only be made in a handler")
        self._reports.add(self._symbol, int(ts), _object(data, "a report"))

    # ---- calls into the plug-in: whatever happens there stays there

    def _hear(self, handler: str, event: Any, *more: int) -> None:
        if self._instance is None:
            self.tally.missed += 1
            return
        symbol, since = event.symbol, self._since
        if self._wakes.passed(symbol, event.ts) and self._wakeful:
            self._wake_until(symbol, event.ts)
            if self._instance is None:
                self.tally.missed += 1
                return
        since[symbol] = since.get(symbol, 0) + 1
        self._ts[symbol] = event.ts
        self._enter()
        try:
            state = self._states.get(symbol)
            if state is None:
                state = self._state_of(symbol)
            self._symbol = symbol
            self._bound[handler](state, event, *more)
            self._leave()
        except BaseException as error:
            self._fail(error, f"{handler} of {symbol} at {event.ts}")

    def hear_article(self, article: Article) -> None:
        """Take an article that is a new one for its symbol."""
        self._wakeful = False  # its time is not the market's, and its source has a clock of its own
        self._hear("on_article", article)
        self._wakeful = True

    def _wake_until(self, symbol: str, until_ms: int) -> None:
        for _ in range(WAKES_MAX):
            at_ms = self._wakes.passed(symbol, until_ms)
            if not at_ms or self._instance is None:
                return
            self._wake(symbol, at_ms)

    def _wake(self, symbol: str, at_ms: int) -> None:
        """Tell the plug-in that the time has come; it counts as an event."""
        self._wakes.take(symbol)
        self._woken_ms = at_ms
        self._since[symbol] = self._since.get(symbol, 0) + 1
        self._ts[symbol] = max(at_ms, self._ts.get(symbol, 0))
        self._enter()
        try:
            state = self._state_of(symbol) if self._states.get(symbol) is None else self._states[symbol]
            self._symbol = symbol
            self._bound["on_wake"](state, symbol, at_ms)
            self._leave()
        except BaseException as error:
            self._fail(error, f"on_wake of {symbol} at {at_ms}")
        self._woken_ms = 0

    def _write(self, flush: Flush, symbol: str, write: Callable[[str, int, bytes], None]) -> bool:
        """Write what the plug-in says of a symbol; return whether it did."""
        instance = self._instance
        assert instance is not None, "whoever does not run has heard nothing"
        self._enter()
        try:
            state = self._states.get(symbol)
            if state is None:
                state = self._state_of(symbol)
            found = instance.document(symbol, state)
            document = None if found is None else _object(found, "a document")
            cell = self._encode(state)
            if len(cell) > STATE_BYTES_MAX:
                raise Unusable(f"a state of {len(cell)} bytes; at most {STATE_BYTES_MAX}")
            self._leave()
        except BaseException as error:
            self._fail(error, f"document of {symbol}")
            return False
        self._cells[symbol] = cell
        self._wakes.keep(symbol)
        self._bare.pop(symbol, None)
        self._ranking.touch(symbol)
        if document is not None:
            write(symbol, self._ts.pop(symbol, self._now_ms), document)
        return True

    def _write_cell(self, flush: Flush, symbol: str) -> None:
        self._since.pop(symbol, None)
        body = msgspec.msgpack.encode((self._out.seq(symbol), self._cells[symbol], *self._wakes.cell(symbol)))
        flush.checkpoint += (f"{self.name}:{symbol}", body)

    def _rank(self, flush: Flush) -> None:
        ranking, instance = self._ranking, self._instance
        if not ranking.due(self._now_ms):
            return
        if instance is None:
            ranking.clear()
        else:
            self._enter()
            try:
                for symbol in ranking.take(RANKED_MAX):
                    state = self._states.get(symbol)
                    if state is None and symbol in self._cells:
                        state = self._state_of(symbol)
                    ranking.rank(symbol, instance, state)
                self._leave()
            except BaseException as error:
                self._fail(error, "rank")
                ranking.clear()
        ranking.write(flush)

    def _start(self) -> None:
        """Make a new instance; the states of the last flush are read when they are needed."""
        self._spent_ns = 0
        self._enter()
        try:
            instance = self.plugin.make()
            instance._desk = self
            self._bound = {name: getattr(instance, name) for name in self._own}
            self._leave()
        except BaseException as error:
            self._fail(error, "its __init__")
            return
        self._instance, self.state, self._started_ms = instance, RUNNING, self._now_ms
        for symbol in self._cells:
            self._ranking.touch(symbol)

    def _state_of(self, symbol: str) -> Any:
        cell = self._cells.get(symbol)
        state = self._states[symbol] = self.plugin.make.State() if cell is None else self._decode(cell)
        return state

    def _enter(self) -> None:
        watch, watch.name = self._watch, self.plugin.name
        watch.since_ns = now_ns = self._clock()
        if now_ns - self._window_ns > WINDOW_NS:
            self._window_ns, self._spent_ns, self._starved_ns = now_ns, 0, self._starved()

    def _leave(self) -> None:
        """Take note of the time that a call took.  Raises: TooSlow."""
        since_ns, self._watch.since_ns, self._symbol = self._watch.since_ns, 0, ""
        took_ns = self._clock() - since_ns
        self._spent_ns += took_ns
        self._busy_ns += took_ns
        if self._spent_ns > self._limits.budget_ns > 0:
            spent_ns = self._spent_ns - (self._starved() - self._starved_ns)
            if spent_ns <= self._limits.budget_ns:
                return  # a machine that has no processor for us, or a container that is throttled, is not the plug-in's fault
            spent_ms, most_ms = spent_ns / 1e6, self._limits.budget_ns // 1_000_000
            raise TooSlow(f"it took {spent_ms:.0f} ms of {WINDOW_NS // 1_000_000} ms; at most {most_ms}")

    def _fail(self, error: BaseException, doing: str) -> None:
        """Take the instance out, and say when it is tried again."""
        self._watch.since_ns, self._symbol = 0, ""
        if isinstance(error, KeyboardInterrupt):
            raise error
        missed = sum(self._since.values())
        self._end()
        self.tally.failures += 1
        self._in_a_row += 1
        self.fault = _said(error)
        pause_ms = min(PAUSE_MS_MAX, PAUSE_MS << min(self._in_a_row - 1, 30))
        if 0 < self._limits.failures <= self._in_a_row:
            self.state, pause_ms = OFF, 0
            self.fault = f"{self._in_a_row} failures in a row, the last: {self.fault}"[:FAULT_CHARS_MAX]
        else:
            self.state, self._retry_ms = PAUSED, self._now_ms + pause_ms
        trace = "" if isinstance(error, TooSlow) else "".join(traceback.format_exception(error, limit=-5))[-2_000:]
        self.failed = [*self.failed[-9:], Failure(_said(error), doing, trace, pause_ms, missed)]

    def _end(self) -> None:
        """Let go of the instance and of everything that is not in the checkpoint."""
        self.tally.missed += sum(self._since.values())
        self.tally.gaps += self._instance is not None
        self._since = {symbol: 0 for symbol, n in self._since.items() if not n and symbol in self._cells}
        self._states.clear()
        self._wakes.go_back()
        self._ts.clear()
        self._reports.drop()
        self._instance = None
        self._bound = {}


def _object(data: Any, what: str) -> bytes:
    """Return a document as JSON.  Raises: Unusable, what the encoder raises."""
    body = msgspec.json.encode(data)
    if body[:1] != b"{":
        raise Unusable(f"{what} must be a mapping or a struct, not {type(data).__name__}")
    if len(body) > DOCUMENT_BYTES_MAX:
        raise Unusable(f"{what} of {len(body)} bytes; at most {DOCUMENT_BYTES_MAX}")
    msgspec.json.decode(body, type=msgspec.Raw)  # a plug-in may have put something raw into it, and readers trust every byte
    return body


def _said(error: BaseException) -> str:
    """Return an exception in one line, with the place where it was raised."""
    name = "" if isinstance(error, TooSlow | Unusable) else f"{type(error).__name__}: "
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames and name else ""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception of the plug-in's own that cannot even be printed
        text = "(it does not say)"
    return f"{name}{text[: FAULT_CHARS_MAX - 80]}{at}"[:FAULT_CHARS_MAX]
