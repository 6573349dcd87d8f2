"""A workload file in, one JSON line out.

python -m engine workload FILE.bin[.gz]     {"sha256": …, "messages": …, "messages_per_s": …}

The rate is the median of five runs through a fresh book each, one call a message, reports built; reading and parsing the
file, sorting and hashing the reports are not in it.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import zlib
from pathlib import Path
from statistics import median
from time import perf_counter

from engine.book import Book
from engine.workload import FIX, Message, digest, parse, run
from service.errors import OperatorError
from service.run import GC_THRESHOLD, fail

RUNS = 5
GZIP_MAGIC = b"\x1f\x8b"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m engine", description="Tapeline engine")
    commands = parser.add_subparsers(dest="command", required=True)
    workload = commands.add_parser("workload", help="run a workload file through the book; print one JSON line")
    workload.add_argument("file", type=Path, metavar="FILE.bin[.gz]")
    arguments = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLD)  # as every process of ours
    try:
        print(json.dumps(measure(parse(read(arguments.file)))))
    except OperatorError as error:
        fail("engine", error)


def read(path: Path) -> bytes:
    """Return a file's content, unzipped when it is gzip, whatever its name. Raises: OperatorError."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except (OSError, EOFError, zlib.error) as error:
        raise OperatorError(f"Cannot read {path}: {error}", FIX) from None


def measure(messages: list[Message], runs: int = RUNS) -> dict[str, str | int]:
    """Return the hash, the number of messages and the median rate of some runs. Raises: OperatorError."""
    elapsed_s = []
    for _ in range(runs):
        book = Book()
        began_s = perf_counter()
        run(messages, book)
        elapsed_s.append(perf_counter() - began_s)
    rate = round(len(messages) / max(median(elapsed_s), 1e-9))
    return {"sha256": digest(book.reports), "messages": len(messages), "messages_per_s": rate}


if __name__ == "__main__":
    main()
