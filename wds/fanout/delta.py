"""Computes what changed between two states: fields of a document, rows of a board. Values are compared as encoded bytes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

Fields = Mapping[str, Raw]
NULL = Raw(b"null")

_fields = msgspec.json.Decoder(dict[str, Raw])
_encoder = msgspec.json.Encoder()


class Board(Struct):
    """A board's full state: the rows and their order."""

    order: list[str] = []
    rows: dict[str, Raw] = {}


class RowDiff(Struct):
    """What turns one board into the next; `order` None = unchanged."""

    set: dict[str, Raw]
    gone: list[str]
    order: list[str] | None

    @property
    def empty(self) -> bool:
        return not self.set and not self.gone and self.order is None


_board = msgspec.json.Decoder(Board)


def parse_fields(data: bytes | Raw) -> dict[str, Raw]:
    """Return the top-level fields of a JSON object, values still encoded."""
    return _fields.decode(data)


def parse_board(data: bytes | Raw) -> Board:
    """Return the board in a document's data."""
    return _board.decode(data)


def changed(old: Fields, new: Fields) -> dict[str, Raw]:
    """Return the fields of `new` that differ from `old`; a field that vanished comes as null.  Cost: O(fields)."""
    get = old.get
    out = {name: value for name, value in new.items() if get(name) != value}
    if len(old) + len(out) > len(new):  # only then can a name of `old` be missing
        out.update({name: NULL for name in old if name not in new and old[name] != NULL})
    return out


def row_diff(old: Board, new: Board) -> RowDiff:
    """Return what turns `old` into `new`.  Cost: O(rows)."""
    get = old.rows.get
    fresh = {sym: row for sym, row in new.rows.items() if get(sym) != row}
    gone = [sym for sym in old.rows if sym not in new.rows]
    return RowDiff(fresh, gone, None if old.order == new.order else new.order)


def pick(state: Fields, wanted: frozenset[str]) -> dict[str, Raw]:
    """Return only the wanted fields, in the state's order."""
    return {name: value for name, value in state.items() if name in wanted}


def pick_rows(board: Board, wanted: frozenset[str]) -> Board:
    """Return the board with only the wanted columns in each row."""
    return Board(board.order, {sym: Raw(_encoder.encode(pick(parse_fields(row), wanted))) for sym, row in board.rows.items()})


def pick_encoded(data: Raw | bytes, wanted: frozenset[str]) -> Raw:
    """Return a JSON object with only the wanted fields, encoded."""
    return Raw(_encoder.encode(pick(parse_fields(data), wanted)))


def with_field(data: bytes, name: str, value: bytes) -> bytes:
    """Return the JSON object `data` with one more field at its end; both already encoded."""
    body = data.rstrip()[:-1].rstrip()
    comma = b"" if body.endswith(b"{") else b","
    return b"".join((body, comma, b'"', name.encode(), b'":', value, b"}"))


def truncate_board(data: bytes, limit: int) -> bytes:
    """Return the board's first `limit` rows."""
    board = parse_board(data)
    order = board.order[:limit]
    return _encoder.encode(Board(order, {sym: board.rows[sym] for sym in order if sym in board.rows}))


def truncate_list(data: bytes, limit: int) -> bytes:
    """Return the newest `limit` items of a JSON array (oldest first)."""
    items = msgspec.json.decode(data, type=list[Raw])
    return _encoder.encode(items[-limit:])
