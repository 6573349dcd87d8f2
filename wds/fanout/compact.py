"""Packs changes into the compact form: a number stands for the channel, a position for the field, and values stay as they are.

An item is `[n, seq, step, ts, mask, value, …]`: channel number, `seq`, `seq - prev`, milliseconds since the base that the reply
to auth named, then a bit for each field that changed and their values in that order. Bit 0 says that the field `ts` is the
frame's own time, bit i + 1 is the kind's i-th field. A board's are `[n, seq, step, ts, {sym: [mask, value, …]}, del, order]`.
Invariant: what has no place in the catalogue is not packed: that one frame goes out as an object, which every client reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from mdc.channels import KINDS, KINDS_REMEMBERED, Kind
from wds.fanout.delta import parse_fields
from wds.fanout.pieces import Wrap
from wds.protocol import CompactKind, encode

FIELDS_MAX = 52  # bits that a number of JSON holds exactly
MODES = {"merge": "upd", "rows": "rows", "event": "event"}


class Form(NamedTuple):
    """How a client's frames are written; clients of one form share their bytes. `base_ms` is what `ts` counts from."""

    wrap: Wrap
    compact: bool = False
    base_ms: int = 0


class Packer:
    """Packs the frames of one kind of channel."""

    __slots__ = ("_base_ms", "_bits")

    def __init__(self, fields: Sequence[str], base_ms: int) -> None:
        self._bits = tuple((name, 2 << at) for at, name in enumerate(fields[:FIELDS_MAX]))
        self._base_ms = base_ms

    def change(self, n: int, prev: int, seq: int, ts: int, data: Mapping[str, Raw]) -> bytes | None:
        """Return the item of an update or an event; None when a field has no place.  Cost: O(fields of the kind)."""
        values = self._values(data, b"%d" % ts)
        return None if values is None else b"[%d,%d,%d,%d,%b]" % (n, seq, seq - prev, ts - self._base_ms, values)

    def event(self, n: int, seq: int, ts: int, data: Raw) -> bytes | None:
        """Return the item of an event; None when it is not an object, or a field has no place."""
        try:
            return self.change(n, seq - 1, seq, ts, parse_fields(data))
        except msgspec.DecodeError:
            return None

    def rows(
        self, n: int, prev: int, seq: int, ts: int, rows: Mapping[str, Raw], gone: Iterable[str], order: Sequence[str] | None
    ) -> bytes | None:
        """Return the item of changed rows; None when one of them has a column without a place."""
        packed: dict[str, Raw] = {}
        for sym, row in rows.items():
            try:
                values = self._values(parse_fields(row), b"")
            except msgspec.DecodeError:
                return None
            if values is None:
                return None
            packed[sym] = Raw(b"[%b]" % values)
        more: list[Any] = [list(gone) or 0, order]
        while more and not more[-1] and more[-1] != []:
            more.pop()
        return encode([n, seq, seq - prev, ts - self._base_ms, packed, *more])

    def _values(self, data: Mapping[str, Raw], ts: bytes) -> bytes | None:
        if not self._bits:
            return None  # of a plug-in: no client knows its kind, not even to read a change of nothing
        mask, parts, own = 0, [], 0
        for name, bit in self._bits:
            if name in data:
                value = bytes(data[name])
                if name == "ts" and value == ts:
                    own = 1
                    continue
                mask |= bit
                parts.append(value)
        if len(parts) + own != len(data):
            return None
        return b",".join([b"%d" % (mask | own), *parts])


@lru_cache(KINDS_REMEMBERED)
def packer(kind: Kind, base_ms: int) -> Packer:
    """Return the packer of a kind."""
    return Packer(kind.fields, base_ms)


@cache
def told_kinds() -> dict[str, CompactKind]:
    """Return what a client must know to read the form: each kind's frames and the order of its fields."""
    return {kind.name: CompactKind(MODES[kind.mode], list(kind.fields[:FIELDS_MAX])) for kind in KINDS.values()}
