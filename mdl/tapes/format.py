"""Reads and writes the lines of a recorded tape; the only place that knows the recording's format.

A tape is NDJSON, plain, gz or zst. A line is a frame as the vendor sent it (a JSON array, or one event), or a recorder's
line, which adds when it arrived: `{"received_ns":1700000000000000000,"frame":[…]}`. A frame that was no JSON is kept as
`"text"`, one that was no UTF-8 as `"base64"`, so that a recording gives back exactly what came in.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

from msgspec import Raw, Struct
from msgspec.json import Decoder, encode

from mdl.router import UNREADABLE


class BadLine(ValueError):
    """A line that is no frame; the replay counts it and goes on."""


class TapeLine(NamedTuple):
    """One frame of a tape; `at_ns` is when it arrived, or the first event's time, or None when neither is known."""

    data: bytes
    at_ns: int | None


class _Recorded(Struct):
    received_ns: int
    frame: Raw = Raw()
    text: str | None = None
    base64: str | None = None


class _Times(Struct):
    """Times an event may carry; `r` is when the vendor received it, which orders a crypto tape better than `t`."""

    r: int | float | None = None
    t: int | float | None = None
    e: int | float | None = None
    s: int | float | None = None


_recorded = Decoder(_Recorded).decode
_items = Decoder(list[Raw]).decode
_times = Decoder(_Times).decode
_any = Decoder(Raw).decode
RECORDED = b'{"received_ns":'


def read_line(line: bytes) -> TapeLine:
    """Return the frame of one line.  Raises: BadLine."""
    line = line.strip()
    try:
        if line.startswith(RECORDED):
            return _read_recorded(line)
        if line.startswith(b"["):
            return TapeLine(line, _event_ns(line))
        if line.startswith(b"{"):
            _any(line)
            return TapeLine(b"[%b]" % line, _event_ns(b"[%b]" % line))
    except (*UNREADABLE, ValueError) as error:
        raise BadLine(str(error)) from None
    raise BadLine("neither a JSON array nor an object")


def write_line(data: bytes | str, received_ns: int) -> bytes:
    """Return the recorder's line of a frame, with its newline."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return b"%b%d,%b}\n" % (RECORDED, received_ns, _field(raw))


def _field(raw: bytes) -> bytes:
    if b"\n" not in raw and _is_json(raw):
        return b'"frame":' + raw
    try:
        return b'"text":' + encode(raw.decode())
    except UnicodeDecodeError:
        return b'"base64":"' + base64.b64encode(raw) + b'"'


def _is_json(raw: bytes) -> bool:
    try:
        raw.decode()
        return bytes(_any(raw)) == raw
    except UNREADABLE:
        return False


def _read_recorded(line: bytes) -> TapeLine:
    kept = _recorded(line)
    if kept.text is not None:
        return TapeLine(kept.text.encode(), kept.received_ns)
    if kept.base64 is not None:
        return TapeLine(base64.b64decode(kept.base64, validate=True), kept.received_ns)
    return TapeLine(bytes(kept.frame), kept.received_ns)


def _event_ns(frame: bytes) -> int | None:
    """Return the first event's time in ns; a frame whose first element has none has no time of its own."""
    items = _items(frame)
    if not items:
        return None
    try:
        found = _times(items[0])
    except UNREADABLE:
        return None
    for value in (found.r, found.t, found.e, found.s):
        if value is not None and value > 0:
            return _as_ns(value)
    return None


def _as_ns(value: int | float) -> int:
    """Vendors write ms, and ns here and there; the magnitude tells (1e14 ms would be the year 5138)."""
    if value > 1e17:
        return int(value)
    scale = 1_000 if value > 1e14 else 1_000_000
    return value * scale if isinstance(value, int) else int(value * scale)
