"""Remembers which symbols a partition holds, whose they are, and which of them are not traded any more.

The rule: a symbol of which nothing came for more than 8 days of its source's own clock is forgotten: no market is closed for
so long, and an expired option or future is silent from its last day on. Above 100,000 symbols the longest silent go first.
A source that is silent itself loses nothing: its clock stands still. Only believed events move it, so that a host whose clock
jumps ahead empties nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from mdp.events.vendor import SYMBOL, BadEvent
from service.partition import partition_of

MINUTE_MS = 60_000
DAY_MINUTES = 1_440
SILENT_DAYS = 8
SYMBOLS_MAX = 100_000  # of a partition
SURPLUS_MAX = 1_000  # more than that at once are refused until the longest silent have gone
LEAVING_MAX = 500  # in one flush: 20 ms of Redis at most, and 10,000 a second


@dataclass(frozen=True, slots=True)
class Mark:
    """When a symbol was heard last, and of whom: by the minute in memory, by the day in the checkpoint."""

    source: str
    minute: int

    @property
    def day(self) -> int:
        return self.minute // DAY_MINUTES


class Listing:
    """The symbols of partition `number` of `partitions` (0 = of any). `marks` = symbol → when it was heard, longest ago first."""

    def __init__(self, number: int = 0, partitions: int = 0) -> None:
        self._number, self._partitions = number, partitions
        self.marks: dict[str, Mark] = {}
        self.sources: dict[str, str] = {}  # symbol → who spoke of it last
        self._moved: set[str] = set()  # symbols with another source than before
        self._newest: dict[str, Mark] = {}  # by source
        self._fresh: set[str] = set()  # heard on another day than their checkpoint says
        self._leaving: list[str] = []
        self._review = False  # a source's day is over: look who has been silent for too long

    def mark(self, source: str, feed_ms: int) -> Mark:
        """Return the mark of events that come at `feed_ms` of the source's clock; the same object within a minute."""
        newest = self._newest.get(source)
        minute = feed_ms // MINUTE_MS
        return newest if newest is not None and minute <= newest.minute else Mark(source, minute)

    def note(self, symbol: str, mark: Mark) -> None:
        """Something came of a symbol.  Raises: BadEvent for a new one that is no symbol, not ours, or has no room."""
        before = self.marks.pop(symbol, None)
        if before is None:
            self._admit(symbol)
        self.marks[symbol] = mark
        if before is None or before.source != mark.source:
            self.sources[symbol] = mark.source
            self._moved.add(symbol)
            self._fresh.add(symbol)
        elif before.day != mark.day:
            self._fresh.add(symbol)
        newest = self._newest.get(mark.source)
        if newest is None or newest.minute < mark.minute:
            self._newest[mark.source] = mark
            self._review = self._review or newest is None or newest.day != mark.day

    def _admit(self, symbol: str) -> None:
        if not SYMBOL.fullmatch(symbol):
            raise BadEvent(f"no symbol has the name {symbol!r}: letters, digits and ._:/^+- only, a letter or digit first")
        self.check_place(symbol)
        if len(self.marks) >= SYMBOLS_MAX + SURPLUS_MAX:
            raise BadEvent(f"more than {SYMBOLS_MAX} symbols in one partition", "no_room")

    def note_article(self, symbol: str, mark: Mark) -> None:
        """An article names a symbol. Who trades it stays its source; one that nobody trades is listed by what is written of it.

        Raises: BadEvent as `note`.
        """
        known = self.marks.get(symbol)
        if known is None or (known.source == mark.source and known is not mark):
            self.note(symbol, mark)

    def check_place(self, name: str) -> None:
        """Raise BadEvent when what has this name is not of this partition: its state is another worker's."""
        if self._partitions and partition_of(name, self._partitions) != self._number:
            why = f"{name} is not of partition {self._number} of {self._partitions}: its listener has another MDQ_PARTITIONS"
            raise BadEvent(why, "misplaced")

    def leave(self) -> list[str]:
        """Take out the symbols that are to be forgotten now, at most LEAVING_MAX, and return them."""
        if self._review:
            self._review = False
            self._leaving = [symbol for symbol, mark in self.marks.items() if self._silent(mark)]
        found = [symbol for symbol in self._leaving[:LEAVING_MAX] if symbol in self.marks and self._silent(self.marks[symbol])]
        del self._leaving[:LEAVING_MAX]
        for symbol in found:
            self._remove(symbol)
        surplus = min(len(self.marks) - SYMBOLS_MAX, LEAVING_MAX - len(found))
        for symbol in list(islice(self.marks, max(0, surplus))):
            self._remove(symbol)
            found.append(symbol)
        return found

    def of_source(self, source: str) -> list[str]:
        """Return the symbols that a source sent last."""
        return [symbol for symbol, mark in self.marks.items() if mark.source == source]

    def restart(self, source: str) -> None:
        """The source's clock begins anew."""
        self._newest.pop(source, None)

    def cells(self) -> Iterator[tuple[str, bytes]]:
        """Yield (symbol, checkpoint cell) of those heard for the first time on a day."""
        for symbol in self._fresh:
            mark = self.marks[symbol]
            yield symbol, f"{mark.day} {mark.source}".encode()
        self._fresh.clear()

    def restore(self, symbol: str, cell: bytes) -> None:
        """Take a cell back.  Raises: ValueError, UnicodeDecodeError.  Call `sort` after the last one."""
        day, _, source = cell.decode().partition(" ")
        mark = Mark(source, int(day) * DAY_MINUTES)
        self.marks[symbol], self.sources[symbol] = mark, source
        newest = self._newest.get(source)
        if newest is None or newest.minute < mark.minute:
            self._newest[source] = mark
        self._review = True

    def sort(self) -> None:
        """Put the longest silent first."""
        self.marks = dict(sorted(self.marks.items(), key=lambda item: item[1].minute))

    def take_moved(self) -> set[str]:
        """Return the symbols whose source changed since the last call."""
        moved, self._moved = self._moved, set()
        return moved

    def rewrite(self) -> None:
        """Have all cells written again."""
        self._fresh.update(self.marks)

    def _silent(self, mark: Mark) -> bool:
        newest = self._newest.get(mark.source)
        return newest is not None and newest.day - mark.day > SILENT_DAYS

    def _remove(self, symbol: str) -> None:
        del self.marks[symbol], self.sources[symbol]
        self._fresh.discard(symbol)
        self._moved.discard(symbol)
