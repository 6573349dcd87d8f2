"""Knows when which symbol of a plug-in wants to be woken, by the time of its market. Pure.

A wake is due before the symbol's first event at or after its time; or, when nothing happens, once all streams of its source are
so far past it that no late trade can come before it. So a replay of any speed wakes in the same place among a symbol's trades.
"""

from __future__ import annotations

from typing import Any

LATE_MS = 3_000  # how much later the feed's time wakes than an event does


class Wakes:
    """One time a symbol. What was asked for since the last flush is taken back with the state that has asked (`go_back`)."""

    def __init__(self) -> None:
        self.source = ""  # of the events that come now
        self._at: dict[str, tuple[str, int]] = {}  # symbol → (source, ms)
        self._kept: dict[str, tuple[str, int]] = {}  # as of the last flush
        self._moved: set[str] = set()  # those that differ since

    def ask(self, symbol: str, at_ms: int) -> None:
        """Wake a symbol at a time instead of any other; 0 = not at all."""
        self._moved.add(symbol)
        if at_ms > 0:
            self._at[symbol] = self.source, at_ms
        else:
            self._at.pop(symbol, None)

    def take(self, symbol: str) -> None:
        """Its time has come."""
        self._moved.add(symbol)
        self._at.pop(symbol, None)

    def passed(self, symbol: str, ts: int) -> int:
        """Return the time that an event at `ts` has reached, 0 = none."""
        if not self._at:
            return 0
        _, at_ms = self._at.get(symbol, ("", 0))
        return at_ms if 0 < at_ms <= ts else 0

    def due(self, source: str, until_ms: int) -> list[str]:
        """Return the symbols of a source that are to be woken up to a time, by theirs and then by name."""
        found = ((at_ms, symbol) for symbol, (of, at_ms) in self._at.items() if of == source and at_ms <= until_ms)
        return [symbol for _, symbol in sorted(found)]

    def keep(self, symbol: str) -> None:
        """A symbol's state is being flushed: this is where a restart goes on."""
        self._moved.discard(symbol)
        if symbol in self._at:
            self._kept[symbol] = self._at[symbol]
        else:
            self._kept.pop(symbol, None)

    def go_back(self) -> None:
        """Forget what was asked for, and what was taken, since the last flush."""
        for symbol in self._moved:
            if symbol in self._kept:
                self._at[symbol] = self._kept[symbol]
            else:
                self._at.pop(symbol, None)
        self._moved.clear()

    def forget(self, symbol: str) -> None:
        for known in (self._at, self._kept):
            known.pop(symbol, None)
        self._moved.discard(symbol)

    def cell(self, symbol: str) -> tuple[str, int] | tuple[()]:
        """Return what the symbol's checkpoint says of it."""
        return self._kept.get(symbol, ())

    def restore(self, symbol: str, cell: list[Any]) -> None:
        """Take back what `cell` returned.  Raises: ValueError."""
        if cell:
            source, at_ms = str(cell[0]), int(cell[1])
            self._at[symbol] = self._kept[symbol] = source, at_ms
