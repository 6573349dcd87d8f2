"""Defines the contract of an analyzer: it takes decoded events and makes documents and checkpoint cells. Pure.

Invariant: `restore(cells)` of everything an analyzer has put into checkpoints brings back a state that continues as if
nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from typing import Any

from mdc import keys
from mdc.channels import kind_named
from mdc.writer import Flush
from mdp.enrich.facts import Seen
from mdp.events.vendor import AnyBar, AnyQuote, AnyTrade, Article, Book, IndexValue, LimitBands
from mdp.reference import Known

NONE: Set[str] = frozenset()
NO_DAYS: Set[int] = frozenset()


class Analyzer:
    """Base of all analyzers: what a subclass does not override costs nothing, the partition never calls it.

    The partition says which symbols there are: it bounds them, and has those forgotten that are not traded any more.
    """

    name = ""
    outlet: Outlet | None = None  # of those that write a channel for each symbol
    own_cell = ""  # a checkpoint cell that belongs to no symbol
    cells: tuple[str, ...] = ("",)  # a symbol's checkpoint cells: what follows `{name}:{symbol}`
    passed: set[str]  # symbols of which a trade was passed over, until the partition has counted it
    late_bars = 0  # trades that came after their bar was past correcting, since this analyzer was made
    earlier_day = 0  # trades of a day that is over
    repeated = 0  # copies of articles that were there already, or are older than all that are kept

    def __init__(self) -> None:
        self.passed = set()

    def hears(self, handler: str) -> bool:
        """Whether the partition has to call this handler."""
        return getattr(type(self), handler) is not getattr(Analyzer, handler)

    def on_source(self, source: str, market: str) -> None:
        """The events that come now are of this source; `market` names the one that its feed is of, empty = it may be any."""

    def on_feed_time(self, source: str, feed_ms: int) -> None:
        """All streams of a source have reached this time; told about once a second of it, whether events come or not."""

    def on_trade(self, trade: AnyTrade, rule: int, volume: int, notional: int) -> None:
        """A trade. `rule`: bits of events/conditions.py; `volume` in units, `notional` in units² (exact), 0 without VOLUME."""

    def on_quote(self, quote: AnyQuote) -> None:
        """A best bid and offer."""

    def on_second_bar(self, bar: AnyBar) -> None:
        """The vendor's aggregate of a second."""

    def on_minute_bar(self, bar: AnyBar) -> None:
        """The vendor's aggregate of a minute."""

    def on_value(self, value: IndexValue) -> None:
        """The value of an index."""

    def on_bands(self, bands: LimitBands) -> None:
        """Limit up/limit down bands."""

    def on_book(self, book: Book) -> None:
        """The best levels of a book."""

    def on_article(self, article: Article, source: str) -> None:
        """A copy of a news article: for one symbol, or for the list of all. The same article may come again."""

    @property
    def moved(self) -> bool:
        """Whether something changed that concerns more than the symbol of an event: then the next flush takes all symbols."""
        return False

    @property
    def urgent(self) -> Set[str]:
        """Symbols of which something has happened that should be told at once, whether somebody watches them or not."""
        return NONE

    def on_time(self, now_ms: int) -> None:
        """Wall-clock time passes; called before every flush."""

    def on_watched(self, boards: Set[str]) -> None:
        """These boards are watched from now on, others by nobody. Until told so, anybody may look at all of them."""

    def on_days(self, days: Mapping[str, int]) -> None:
        """These calendars stand at least here (name → newest event, ms): other partitions have seen it."""

    def on_facts(self, day_ms: int, known: Mapping[str, Known]) -> None:
        """The vendor's reference data of symbols for the trading day that begins at `day_ms`."""

    def on_seen(self, day_ms: int, seen: Mapping[str, Seen]) -> None:
        """What the vendor has seen of symbols on that trading day: we may have joined later."""

    @property
    def trading_days(self) -> Set[int]:
        """The trading days (starts, ms) of stocks that its symbols are in: facts are wanted for these."""
        return NO_DAYS

    def collect(self, flush: Flush) -> None:
        """Put what changed since the last call into `flush`: documents, history, checkpoint cells.

        When `flush.only` names symbols it is about these alone: everything of theirs, nothing that concerns others too.
        Of `flush.watched` the documents leave then; others may wait for the next flush of all (`Outlet.due`).
        """

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        """Take back the checkpoint: (symbol, cell) pairs of this analyzer, all cells of a symbol in one call.

        Raises: anything, for a cell that cannot be read; then nothing of the symbol has been taken.
        """

    def restore_own(self, body: bytes, events: int) -> None:
        """Take back `own_cell`, of a partition that has counted so many events."""

    def resume(self, symbol: str, seq: int) -> None:
        """Begin a symbol anew whose checkpoint could not be read: its channel goes on after `seq`."""

    def rewrite(self) -> None:
        """The cache is new and empty: count everything as changed so that the next flush writes it all."""

    def forget(self, symbol: str) -> None:
        """Forget a symbol that is not traded any more."""

    def restart(self, symbol: str) -> None:
        """Begin a symbol anew, as if nothing had come yet: its tape has. Sequence numbers go on."""

    def restart_source(self, source: str) -> None:
        """The tape of this source begins anew, also its time."""


class Outlet:
    """Writes the documents of one kind: gives each channel its key, its sequence numbers and its head of the document."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.floor = 0  # new channels count from here: no forgotten one had more
        self.sources: Mapping[str, str] | None = None  # whose the channels are; None = of whoever speaks of the symbol
        self.announce = False  # a new cache has forgotten which channels there are: the next flush says it again
        self.late: set[str] = set()  # symbols whose document is older than their checkpoint: the next whole flush writes it
        self._heads: dict[str, list[Any]] = {}  # symbol → [key, b'{"ch":…,"src":…,"epoch":…,"seq":', seq]
        self._epoch = ""
        self._sources: Mapping[str, str] = {}
        self._moved: set[str] = set()  # symbols of another source than their heads say
        self._pairs: list[Any] = []
        self._flush: Flush | None = None

    def note_moved(self, symbols: set[str]) -> None:
        """These symbols have another source now: the next documents name it, whenever they are written."""
        self._moved |= symbols

    def begin(self, flush: Flush) -> Callable[[str, int, bytes], None]:
        """Start a flush; return the function that writes `(symbol, ts ms, data JSON)`."""
        self._sources = flush.sources if self.sources is None else self.sources
        if flush.epoch != self._epoch:
            self._epoch = flush.epoch
            for symbol, head in self._heads.items():
                head[1] = self._head(symbol)
        for symbol in self._moved & self._heads.keys():
            self._heads[symbol][1] = self._head(symbol)
        self._moved.clear()
        self._flush = flush
        self._pairs = flush.channel_writer(self.kind)
        if self.announce:
            self.announce = False
            for symbol in self._heads:
                flush.add_channel(self.kind, symbol)
        return self.write

    def end(self) -> None:
        """Let go of the flush: it may be tens of megabytes, and whoever writes seldom would hold it until they write again."""
        self._flush, self._pairs = None, []

    def due(self, flush: Flush, changed: Sequence[str]) -> tuple[Collection[str], Set[str]]:
        """Return the symbols to write, which are those that changed and those that are late, and whose document waits.

        Between two whole flushes only the documents that somebody looks at leave; of the others the checkpoint is enough.
        """
        late = self.late
        if flush.only is None:
            found: Collection[str] = {*changed, *late} if late else changed
            late.clear()
            return found, NONE
        watched = flush.watched.get(self.kind, NONE)
        asked = watched & late
        waits = set(changed) - watched
        late -= asked
        late |= waits
        return ({*changed, *asked} if asked else changed), waits

    def write(self, symbol: str, ts: int, data: bytes) -> None:
        head = self._heads.get(symbol)
        if head is None:
            head = self._new(symbol)
        head[2] += 1
        self._pairs += (head[0], b'%b%d,"ts":%d,"data":%b}' % (head[1], head[2], ts, data))

    def seq(self, symbol: str) -> int:
        """Return the last sequence number of a channel, 0 before its first document."""
        head = self._heads.get(symbol)
        return int(head[2]) if head is not None else 0

    def restore(self, symbol: str, seq: int) -> None:
        """Continue a channel after `seq`."""
        self._heads[symbol] = [keys.document(f"{self.kind}:{symbol}"), self._head(symbol), seq]

    def stored(self, symbol: str) -> list[str]:
        """Return the cache's keys of a channel, [] before its first document."""
        head = self._heads.get(symbol)
        return [] if head is None else [head[0], *self._history(symbol)]

    def forget(self, symbol: str, flush: Flush) -> int:
        """Take a channel out of the cache; return its last sequence number, 0 when there was none."""
        self.late.discard(symbol)
        flush.remove(self.stored(symbol))
        head = self._heads.pop(symbol, None)
        if head is None:
            return 0
        flush.remove_channel(self.kind, symbol)
        return int(head[2])

    def clear(self, symbol: str, flush: Flush) -> None:
        """Take what came before out of the cache. The channel goes on counting."""
        flush.remove(self.stored(symbol))

    def _new(self, symbol: str) -> list[Any]:
        assert self._flush is not None, "write() belongs into a flush"
        self.restore(symbol, self.floor)
        self._flush.add_channel(self.kind, symbol)
        return self._heads[symbol]

    def _history(self, symbol: str) -> list[str]:
        kind = kind_named(self.kind)
        return [keys.history(f"{self.kind}:{symbol}")] if kind is not None and kind.keep and kind.mode != "event" else []

    def _head(self, symbol: str) -> bytes:
        source = self._sources.get(symbol)
        said = f'"src":"{source}",' if source else ""
        return f'{{"ch":"{self.kind}:{symbol}",{said}"epoch":"{self._epoch}","seq":'.encode()
