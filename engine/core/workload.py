"""Reads workload files, runs them through a book, and hashes the reports in the text that was agreed on.

Format: a 16-byte header, then 40-byte records, little-endian; see `HEADER` and `RECORD`. Raises WorkloadInvalid for whatever
is not exactly that, before the first message runs.
"""

from __future__ import annotations

import hashlib
import struct
from operator import itemgetter

from engine.core.book import Book, Report

MAGIC, VERSION = 0x4D454257_5F303031, 1  # "MEBW_001" read as one number
HEADER = struct.Struct("<QII")  # magic, version, count
RECORD = struct.Struct("<BB?xIQQq8x")  # type, side, ioc, quantity, sequence, order id, price in ticks; the rest is reserved
NEW, CANCEL, MODIFY = 0, 1, 2

BookMessage = tuple[int, int, bool, int, int, int, int]  # as RECORD


class WorkloadInvalid(ValueError):
    """The bytes are no workload: what is wrong, and where."""


def parse(content: bytes) -> list[BookMessage]:
    """Return the messages of a workload file's content (already unzipped). Raises: WorkloadInvalid. Cost: O(messages)."""
    if len(content) < HEADER.size:
        raise WorkloadInvalid(f"The workload has {len(content)} bytes, its header alone {HEADER.size}")
    magic, version, count = HEADER.unpack_from(content)
    if magic != MAGIC:
        raise WorkloadInvalid(f"This is no workload: magic {magic:#018x} instead of {MAGIC:#018x}")
    if version != VERSION:
        raise WorkloadInvalid(f"The workload is of version {version}, known is {VERSION}")
    if len(content) != HEADER.size + count * RECORD.size:
        whole = HEADER.size + count * RECORD.size
        raise WorkloadInvalid(f"The workload announces {count} messages, {whole} bytes, and has {len(content)}")
    messages: list[BookMessage] = list(RECORD.iter_unpack(content[HEADER.size :]))
    _check(messages)
    return messages


def _check(messages: list[BookMessage]) -> None:
    """Refuse what the book's contract excludes, with the number of the record."""
    for number, (kind, side, _, size, _, _, _) in enumerate(messages):
        if kind not in (NEW, CANCEL, MODIFY):
            raise WorkloadInvalid(f"Record {number} is of unknown type {kind}")
        if side > 1:
            raise WorkloadInvalid(f"Record {number} has side {side}")
        if kind != CANCEL and not size:
            raise WorkloadInvalid(f"Record {number} has quantity 0")


def run(messages: list[BookMessage], book: Book) -> None:
    """Give the book every message, one call each; the reports are then in `book.reports`.

    Raises: WorkloadInvalid when an order comes under the id of one that rests.
    """
    place, cancel, modify, orders = book.place, book.cancel, book.modify, book.orders
    for kind, side, ioc, size, sequence, order_id, price in messages:
        if kind == NEW:
            if order_id in orders:
                raise WorkloadInvalid(f"Message {sequence} enters order {order_id}, which is in the book already")
            place(sequence, side, order_id, price, size, ioc)
        elif kind == CANCEL:
            cancel(sequence, order_id)
        else:
            modify(sequence, order_id, price, size)


def digest(reports: list[Report]) -> str:
    """Return the SHA-256 of the reports, one a line, stable-sorted by (sequence, type), without a last newline."""
    ordered = sorted(reports, key=itemgetter(1, 0))
    return hashlib.sha256("\n".join(",".join(map(str, report)) for report in ordered).encode()).hexdigest()
