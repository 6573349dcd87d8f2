"""Workload files give the stated hashes, or one clear line."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from engine.__main__ import measure, read
from engine.core.book import Book
from engine.core.workload import (
    CANCEL,
    HEADER,
    MAGIC,
    MODIFY,
    NEW,
    RECORD,
    VERSION,
    BookMessage,
    WorkloadInvalid,
    digest,
    parse,
    run,
)
from tests.engine.core.plain_book import PlainBook
from tests.tapes import CHECKOUT, tape

HASHES = {
    "normal-seed7": "28d08194b7e6d44d5de3d6dfb7eb08ec8847ece6ab7475d38ced25a05abffa1b",
    "flash-crash-seed7": "f19fb9be0569f0098a28d48888831ae3beed9220e8b34d56a08256ca22d7ac3c",
}


def written(*messages: tuple[int, ...], magic: int = MAGIC, version: int = VERSION, count: int | None = None) -> bytes:
    """Return a workload file of (type, side, ioc, quantity, order id, price) messages."""
    body = b"".join(RECORD.pack(k, side, ioc, size, n, i, price) for n, (k, side, ioc, size, i, price) in enumerate(messages))
    return HEADER.pack(magic, version, len(messages) if count is None else count) + body


@pytest.mark.parametrize("name", HASHES)
def test_the_recorded_workloads_give_exactly_the_stated_hashes(name: str) -> None:
    """Every report of 99,827 messages, in order."""
    found = measure(parse(read(tape(f"matching/{name}.bin.gz"))), runs=1)
    assert (found["sha256"], found["messages"]) == (HASHES[name], 99_827)


def test_the_lines_of_every_report_are_as_agreed() -> None:
    """One report of each type, spelled out; trades come before the modify that made them."""
    messages = parse(
        written((NEW, 0, 0, 10, 1, 100), (NEW, 1, 0, 10, 2, 105), (MODIFY, 1, 0, 4, 2, 99), (CANCEL, 0, 0, 0, 1, 0),
                (CANCEL, 0, 0, 0, 1, 0), (MODIFY, 0, 0, 1, 1, 5), (NEW, 0, 1, 3, 7, -2))
    )  # fmt: skip
    book = Book()
    run(messages, book)
    text = "0,0,0,1,100,10\n0,1,1,2,105,10\n1,2,100,4,1,2\n3,2,1,2,99,4\n2,3,0,1,100\n4,4,1\n5,5,1\n0,6,0,7,-2,3\n2,6,0,7,-2"
    assert digest(book.reports) == hashlib.sha256(text.encode()).hexdigest()


def test_long_random_workloads_hash_alike_in_both_books() -> None:
    """4,000 messages around one price, through the whole file format."""
    dice = random.Random(7)
    messages, live = [], []
    for order_id in range(2_000):
        live.append(order_id)
        size, price = dice.randint(1, 50), 1_000 + round(dice.gauss(0, 8))
        messages.append((NEW, dice.randint(0, 1), int(dice.random() < 0.15), size, order_id, price))
        kind = dice.choice((CANCEL, MODIFY))
        messages.append((kind, 0, 0, dice.randint(1, 50), dice.choice(live[-200:]), price + dice.randint(-2, 2)))
    fast, plain = Book(), PlainBook()
    parsed: list[BookMessage] = parse(written(*messages))
    run(parsed, fast)
    for kind, side, ioc, size, sequence, order_id, price in parsed:
        if kind == NEW:
            plain.place(sequence, side, order_id, price, size, ioc)
        elif kind == CANCEL:
            plain.cancel(sequence, order_id)
        else:
            plain.modify(sequence, order_id, price, size)
    assert len(fast.reports) > 4_000
    assert digest(fast.reports) == digest(plain.reports)


GOOD = (NEW, 0, 0, 10, 1, 100)
BROKEN = {
    "bad magic": (written(GOOD, magic=MAGIC + 1), "no workload"),
    "bad version": (written(GOOD, version=2), "version 2"),
    "too short for a header": (b"MEBW", "header"),
    "cut in a record": (written(GOOD, GOOD)[:-1], "announces 2"),
    "fewer records than announced": (written(GOOD, count=9), "announces 9"),
    "more records than announced": (written(GOOD, GOOD, count=1), "announces 1"),
    "unknown type": (written(GOOD, (3, 0, 0, 1, 2, 3)), "Record 1 is of unknown type 3"),
    "unknown side": (written((NEW, 2, 0, 1, 2, 3)), "Record 0 has side 2"),
    "no quantity": (written((NEW, 0, 0, 0, 2, 3)), "quantity 0"),
    "empty": (b"", "0 bytes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_before_it_runs(name: str) -> None:
    """The error names what is wrong."""
    content, message = BROKEN[name]
    with pytest.raises(WorkloadInvalid, match=message):
        parse(content)


def test_an_id_that_rests_cannot_be_entered_again() -> None:
    """The format has no report for it."""
    with pytest.raises(WorkloadInvalid, match="Message 1 enters order 1"):
        run(parse(written(GOOD, GOOD)), Book())


def command(path: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "engine", "workload", str(path)]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_the_command_prints_one_json_line(tmp_path: Path) -> None:
    """For a plain file as for a zipped one, and for one without messages."""
    for content, messages in ((written(GOOD), 1), (gzip.compress(written(GOOD)), 1), (written(), 0)):
        path = tmp_path / "some.bin"
        path.write_bytes(content)
        done = command(path)
        assert (done.returncode, done.stderr) == (0, "")
        (line,) = done.stdout.splitlines()
        assert json.loads(line).keys() == {"sha256", "messages", "messages_per_s"}
        assert json.loads(line)["messages"] == messages


@pytest.mark.parametrize(
    "content",
    [None, b"nonsense that is long enough", gzip.compress(written(GOOD))[:-9], struct.pack("<H", 0x8B1F)],
    ids=["missing", "nonsense", "cut", "two bytes"],
)
def test_the_command_refuses_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    """Absent, no workload, a torn archive: exit code 2, one line, no traceback."""
    path = tmp_path / "broken.bin.gz"
    if content is not None:
        path.write_bytes(content)
    done = command(path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("tapeline engine: error: ")
