"""Defines the lines between a worker and the process that asks the vendor: an errand, calls, facts and the end of a sheet.

Facts travel as they are stored, so that the worker's event loop copies bytes and decodes nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from mdp.enrich.gathering import Gathering, Sheet
from mdp.enrich.questions import Order
from service.partition import partition_of

SYMBOLS_A_CHUNK = 100  # what the event loop takes in one go
LINE_BYTES_MAX = 1 << 20
Outcome = Literal["answered", "failed", "limited", "bad_answer", "refused"]


class Errand(Struct, frozen=True):
    """What the process is for. The key goes through a pipe: it stands in no list of processes."""

    order: Order
    url: str
    key: str
    rate: float


class Call(Struct, tag="call", frozen=True):
    """A question was asked; `why` is empty when it was answered well."""

    question: str
    outcome: Outcome
    why: str = ""
    bad_rows: int = 0


class Chunk(Struct, tag="chunk", frozen=True):
    """Some symbols of a partition, as they are stored."""

    sheet: Sheet
    partition: int
    facts: Raw


class Done(Struct, tag="done", frozen=True):
    """A sheet is whole, as far as it is known; `last` = nothing more comes of it for this day."""

    sheet: Sheet
    symbols: int
    last: bool


Line = Call | Chunk | Done
_line = msgspec.json.Decoder(Line)
_errand = msgspec.json.Decoder(Errand)
encode = msgspec.json.Encoder().encode


def read_line(line: bytes) -> Line:
    """Raises: msgspec.DecodeError."""
    found: Line = _line.decode(line)
    return found


def read_errand(line: bytes) -> Errand:
    """Raises: msgspec.DecodeError."""
    return _errand.decode(line)


def sheet_lines(gathering: Gathering, which: Sheet, last: bool) -> Iterator[bytes]:
    """Yield the lines of a sheet: every partition's symbols in chunks, then that it is whole."""
    by_partition: dict[int, dict[str, object]] = {}
    symbols = 0
    for symbol, facts in gathering.sheet(which):
        by_partition.setdefault(partition_of(symbol, gathering.order.partitions), {})[symbol] = facts
        symbols += 1
    for partition, found in sorted(by_partition.items()):
        rows = iter(found.items())
        while some := dict(islice(rows, SYMBOLS_A_CHUNK)):
            yield encode(Chunk(which, partition, Raw(encode(some))))
    yield encode(Done(which, symbols, last))
