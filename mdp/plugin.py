"""Is what a plug-in is written against: one class, its handlers, and what it may ask. Nothing else of `mdp` is promised to stay.

```python
class Streak(msgspec.Struct):
    last: float = 0.0
    ups: int = 0

class Streaks(Plugin):
    State = Streak

    def on_trade(self, state, trade, effect):
        if effect & LAST:
            state.ups = state.ups + 1 if trade.price > state.last else 0
            state.last = trade.price

    def document(self, symbol, state):
        return {"ups": state.ups, "last": state.last}       # own:streaks:SYMBOL
```

`pyproject.toml` names it, and the name is that of its channels:

```toml
[project.entry-points."tapeline.analyzers"]
streaks = "file:Streaks"
```

Everything that a plug-in has to remember is in `State`, one for each symbol: it is the checkpoint. What else it keeps in `self`
begins anew whenever a partition changes hands or the plug-in is started again. There is one instance for each partition; it sees
the symbols of that partition only, in one thread, and must neither wait nor do input or output. Events are read, never changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

import msgspec

from mdp.analyzers.quote import QuoteData as QuoteView
from mdp.events.conditions import CANCEL, EXTENDED, HIGH_LOW, LAST, VOLUME
from mdp.events.vendor import AnyBar, AnyQuote, AnyTrade, Article, Book, IndexValue, LimitBands

API = 1  # grows when a plug-in that was written for the one before would not run any more
GROUP = "tapeline.analyzers"  # of the entry points
HANDLERS = ("on_trade", "on_quote", "on_second_bar", "on_minute_bar", "on_value", "on_bands", "on_book", "on_article")

__all__ = [
    "API", "CANCEL", "EXTENDED", "GROUP", "HANDLERS", "HIGH_LOW", "LAST", "VOLUME", "AnyBar", "AnyQuote", "AnyTrade",
    "Article", "Book", "IndexValue", "LimitBands", "Plugin", "QuoteView",
]  # fmt: skip


class Desk(Protocol):
    """What Tapeline does for a plug-in."""

    def quote(self, symbol: str) -> QuoteView | None: ...

    def quotes(self) -> Iterator[tuple[str, QuoteView]]: ...

    def wake(self, at_ms: int) -> None: ...

    def report(self, ts: int, data: Any) -> None: ...


class Plugin:
    """Base of all plug-ins. A handler that is not overridden is never called; `__init__` takes no arguments.

    An exception in any of these methods, or more time than the operator allows, ends the instance. After a pause a new one goes
    on with the states of the last flush; the events in between are counted as missed.
    """

    api: ClassVar[int] = API
    State: ClassVar[type[msgspec.Struct]]  # all fields with defaults
    boards: ClassVar[tuple[str, ...]] = ()  # names of boards that `rank` ranks: board:NAME
    _desk: Desk | None = None

    def on_trade(self, state: Any, trade: AnyTrade, effect: int) -> None:
        """A trade. `effect` = what it may change by its condition codes: bits LAST HIGH_LOW VOLUME, EXTENDED CANCEL."""

    def on_quote(self, state: Any, quote: AnyQuote) -> None:
        """A best bid and offer; in crypto of one venue."""

    def on_second_bar(self, state: Any, bar: AnyBar) -> None:
        """The vendor's aggregate of a second."""

    def on_minute_bar(self, state: Any, bar: AnyBar) -> None:
        """The vendor's aggregate of a minute."""

    def on_value(self, state: Any, value: IndexValue) -> None:
        """The value of an index."""

    def on_bands(self, state: Any, bands: LimitBands) -> None:
        """Limit up/limit down bands."""

    def on_book(self, state: Any, book: Book) -> None:
        """The best levels of a book."""

    def on_article(self, state: Any, article: Article) -> None:
        """A news article that names `article.symbol`, once; late ones may be hours old."""

    def on_wake(self, state: Any, symbol: str, at_ms: int) -> None:
        """The market's time has come to what `wake` asked for, whether anything was traded or not."""

    def document(self, symbol: str, state: Any) -> Mapping[str, Any] | msgspec.Struct | None:
        """Return what `own:NAME:SYMBOL` says now, None for nothing. Called in flushes, for symbols that had events."""
        return None

    def rank(self, board: str, symbol: str, state: Any) -> float | None:
        """Return what a symbol is ranked by on one of `boards`, higher is better, None = it is not on it. Once a second."""
        return None

    def columns(self, board: str, symbol: str, state: Any) -> Mapping[str, Any]:
        """Return columns of a board's row beside those that every board has."""
        return {}

    def report(self, ts: int, data: Mapping[str, Any] | msgspec.Struct) -> None:
        """Put an entry on `ownlog:NAME:SYMBOL`, at `ts` ms, none conflated. Only in a handler: the symbol is its event's."""
        assert self._desk is not None, "a plug-in reports when it is asked, not while it is made"
        self._desk.report(ts, data)

    def quote(self, symbol: str) -> QuoteView | None:
        """Return a copy of a symbol's quote with the event in hand already in it; None for one that this partition does not know.

        Cost: O(1), a microsecond.
        """
        assert self._desk is not None, "a plug-in asks for quotes when it is asked, not while it is made"
        return self._desk.quote(symbol)

    def quotes(self) -> Iterator[tuple[str, QuoteView]]:
        """Yield (symbol, copy of its quote) of all symbols of this partition, by name.

        They are some of the market's, chosen by a hash. Cost: a microsecond each, which counts as the plug-in's time.
        """
        assert self._desk is not None, "a plug-in asks for quotes when it is asked, not while it is made"
        return self._desk.quotes()

    def wake(self, at_ms: int) -> None:
        """Have `on_wake` called for the symbol in hand at that time of the market; 0 = not any more.

        One time a symbol: a later call replaces it. Only in a handler of a market's event, or in `on_wake`.
        """
        assert self._desk is not None, "a plug-in is woken when it has asked, not while it is made"
        self._desk.wake(at_ms)
