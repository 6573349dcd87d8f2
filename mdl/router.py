"""Sorts the events of frames by (stream, partition); an event's bytes are passed on untouched, in the order of arrival.

Measured on one core: 2.7 M events/s for frames of 100. Two decodes of the same frame are cheaper than one decode and a
re-encode: `list[Raw]` finds where each event begins and ends, `list[Head]` reads only what routing needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from msgspec import DecodeError, Raw, Struct, ValidationError
from msgspec.json import Decoder

from mdq.topology import PARTITIONED, STREAM_OF_EVENT
from service.partition import Partitioner

SYMBOLS_MAX = 400_000  # remembered routes; past it the table starts again
SALVAGE_BYTES_MAX = 1 << 20  # a larger broken frame is dropped whole: splitting it by hand would hold the loop
SAMPLE_BYTES_MAX = 200

UNREADABLE = (DecodeError, UnicodeError, RecursionError)  # all that decoding arbitrary input raises
Event = Raw | bytes
Key = tuple[str, int]
OnBad = Callable[[str, bytes], None]


class Head(Struct):
    """What routing needs of an event. `T` is the symbol of LULD and V, `p` that of C (and the price elsewhere: not read)."""

    ev: str
    sym: str = ""
    pair: str = ""
    T: str = ""
    p: Raw = Raw()


class VendorStatus(Struct):
    """A message of the vendor about the connection; it travels inside frames but is not data."""

    status: str = ""
    message: str = ""


_raws = Decoder(list[Raw]).decode
_heads = Decoder(list[Head]).decode
_head = Decoder(Head).decode
_status = Decoder(VendorStatus).decode
_text = Decoder(str).decode
_MARKS = re.compile(rb'["{}\[\],]')
_STRING_END = re.compile(rb'(?:[^"\\]|\\.)*"', re.DOTALL)


class Router:
    """Collect events of any number of frames until `take()`; `on_bad(why, sample)` hears of what could not be routed."""

    def __init__(self, partitions: int, on_bad: OnBad | None = None) -> None:
        self.events = 0
        self.malformed = 0
        self.statuses: list[VendorStatus] = []
        self._partitioner = Partitioner(partitions)
        self._on_bad = on_bad
        self._held: dict[Key, list[Event]] = {}
        # event type → symbol → the list it goes to. The lists live as long as the router, so that one dict lookup and
        # one append route an event.
        self._routes: dict[str, dict[str, list[Event]]] = {}
        self._remembered = 0

    def route(self, data: bytes | str) -> int:
        """Sort one frame's events into their lists; return how many there were (bad ones and statuses not counted)."""
        try:
            raws, heads = _raws(data), _heads(data)
        except UNREADABLE:
            return self._route_slowly(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
        routes, before = self._routes, self.events
        self.events += len(raws)
        for raw, head in zip(raws, heads, strict=True):
            try:
                routes[head.ev][head.sym or head.pair or head.T].append(raw)
            except KeyError:
                self._route_new(raw, head)
        return self.events - before

    def take(self) -> list[tuple[str, int, list[Event]]]:
        """Return what was collected as (stream, partition, events) and start empty again."""
        taken = []
        for (stream, partition), held in self._held.items():
            if held:
                taken.append((stream, partition, held.copy()))
                held.clear()
        return taken

    def _route_new(self, raw: Event, head: Head) -> None:
        if head.ev == "status":
            self.events -= 1
            self._take_status(raw)
            return
        symbol = symbol_of(head)
        held = self._held.setdefault(self._key(head.ev, symbol), [])
        held.append(raw)
        if head.ev != "C":  # its symbol is not where the fast path looks
            self._remember(head.ev, symbol, held)

    def _remember(self, ev: str, symbol: str, held: list[Event]) -> None:
        self._remembered += 1
        if self._remembered > SYMBOLS_MAX:
            self._routes.clear()
            self._remembered = 1
        self._routes.setdefault(ev, {})[symbol] = held

    def _key(self, ev: str, symbol: str) -> Key:
        stream = STREAM_OF_EVENT.get(ev, "unknown")
        return (stream, self._partitioner.of(symbol) if stream in PARTITIONED else 0)

    def _take_status(self, raw: Event) -> None:
        try:
            self.statuses.append(_status(raw))
        except ValidationError as error:
            self._bad(f"status message: {error}", bytes(raw))

    def _route_slowly(self, data: bytes) -> int:
        """Route a frame that is not a clean list of events: element by element, so that the good ones are kept."""
        before = self.events
        for element in _elements(data):
            try:
                head = _head(element)
            except UNREADABLE as error:
                self._bad(str(error), bytes(element))
                continue
            self.events += 1
            self._route_new(element, head)
        if not data.strip():
            self._bad("empty frame", b"")
        return self.events - before

    def _bad(self, why: str, element: bytes) -> None:
        self.malformed += 1
        if self._on_bad is not None:
            self._on_bad(why, element[:SAMPLE_BYTES_MAX])


def symbol_of(head: Head) -> str:
    """Return the symbol that decides the partition: `sym`, `pair` or `T`, whichever the event has; of C it is `p`."""
    if head.ev == "C":
        return _string_or_empty(head.p) or head.pair
    return head.sym or head.pair or head.T


def _string_or_empty(raw: Raw) -> str:
    try:
        return _text(raw)
    except UNREADABLE:
        return ""


def _elements(data: bytes) -> list[Any]:
    """Return the elements of a frame: of a list its items, of a single object that object, of a broken list what can be cut."""
    try:
        return _raws(data)
    except UNREADABLE:
        stripped = data.strip()
    if not stripped.startswith(b"[") or len(stripped) > SALVAGE_BYTES_MAX:
        return [stripped] if stripped else []
    return [piece for piece in _cut(stripped) if piece]


def _cut(data: bytes) -> list[bytes]:
    """Split the text after `[` at the commas of the first level; strings and nesting are respected, nothing else is."""
    pieces, depth, start, at = [], 0, 1, 1
    while found := _MARKS.search(data, at):
        mark, at = found.group(), found.end()
        if mark == b'"':
            end = _STRING_END.match(data, at)
            at = end.end() if end else len(data)
        elif mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
        if depth < 0 or (depth == 0 and mark == b","):
            pieces.append(data[start : at - 1].strip())
            start, depth = at, 0
    return [*pieces, data[start:].strip()]
