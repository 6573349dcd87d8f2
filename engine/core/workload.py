"""The bytes of a workload file in, its messages out; reports of the book in, the hash of their agreed text out.

Format: a 16-byte header, then 40-byte records, little-endian; see `HEADER` and `RECORD`. Raises OperatorError for whatever
is not exactly that, before the first message runs.
"""

from __future__ import annotations

import hashlib
import struct
from operator import itemgetter

from engine.core.book import Book, Report
from service.errors import OperatorError

MAGIC, VERSION = 0x4D454257_5F303031, 1  # "MEBW_001" read as one number
HEADER = struct.Struct("<QII")  # magic, version, count
RECORD = struct.Struct("<BB?xIQQq8x")  # type, side, ioc, quantity, sequence, order id, price in ticks; the rest is reserved
NEW, CANCEL, MODIFY = 0, 1, 2
FIX = "Give a file of the format in engine/README.md, plain or gzip"

BookMessage = tuple[int, int, bool, int, int, int, int]  # as RECORD


def parse(content: bytes) -> list[BookMessage]:
    """Return the messages of a workload file's content (already unzipped). Raises: OperatorError. Cost: O(messages)."""
    if len(content) < HEADER.size:
        raise OperatorError(f"The workload has {len(content)} bytes, its header alone {HEADER.size}", FIX)
    magic, version, count = HEADER.unpack_from(content)
    if magic != MAGIC:
        raise OperatorError(f"This is no workload: magic {magic:#018x} instead of {MAGIC:#018x}", FIX)
    if version != VERSION:
        raise OperatorError(f"The workload is of version {version}, known is {VERSION}", FIX)
    if len(content) != HEADER.size + count * RECORD.size:
        whole = HEADER.size + count * RECORD.size
        raise OperatorError(f"The workload announces {count} messages, {whole} bytes, and has {len(content)}", FIX)
    messages: list[BookMessage] = list(RECORD.iter_unpack(content[HEADER.size :]))
    _check(messages)
    return messages


def _check(messages: list[BookMessage]) -> None:
    """Refuse what the book's contract excludes, with the number of the record."""
    for number, (kind, side, _, size, _, _, _) in enumerate(messages):
        if kind not in (NEW, CANCEL, MODIFY):
            raise OperatorError(f"Record {number} is of unknown type {kind}", FIX)
        if side > 1:
            raise OperatorError(f"Record {number} has side {side}", FIX)
        if kind != CANCEL and not size:
            raise OperatorError(f"Record {number} has quantity 0", FIX)


def run(messages: list[BookMessage], book: Book) -> None:
    """Give the book every message, one call each; the reports are then in `book.reports`.

    Raises: OperatorError when an order comes under the id of one that rests.
    """
    place, cancel, modify, orders = book.place, book.cancel, book.modify, book.orders
    for kind, side, ioc, size, sequence, order_id, price in messages:
        if kind == NEW:
            if order_id in orders:
                raise OperatorError(f"Message {sequence} enters order {order_id}, which is in the book already", FIX)
            place(sequence, side, order_id, price, size, ioc)
        elif kind == CANCEL:
            cancel(sequence, order_id)
        else:
            modify(sequence, order_id, price, size)


def digest(reports: list[Report]) -> str:
    """Return the SHA-256 of the reports, one a line, stable-sorted by (sequence, type), without a last newline."""
    ordered = sorted(reports, key=itemgetter(1, 0))
    return hashlib.sha256("\n".join(",".join(map(str, report)) for report in ordered).encode()).hexdigest()
