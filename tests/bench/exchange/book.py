"""Measures how many messages of recorded order flow the bare book takes a second: one call each, reports built, one core.

The rate is the median of five runs. Not in it: reading and parsing the file, sorting and hashing the reports, the journal,
everything asynchronous. `--tiny` runs 2,000 messages made here, so that the benchmark does not rot where no recording is.
"""

from __future__ import annotations

import gc
import json
import random
import sys

import pytest

from engine.__main__ import measure, read
from engine.core.workload import CANCEL, NEW, BookMessage, parse
from service.run import GC_THRESHOLD
from tests.tapes import tape

WORKLOADS = ("normal-seed7", "flash-crash-seed7")
EXCLUDES = "reading, parsing, sorting and hashing"


def main(tiny: bool) -> int:
    """Print a line a workload; return the exit code."""
    try:
        workloads = {"tiny": made()} if tiny else {name: parse(read(tape(f"matching/{name}.bin.gz"))) for name in WORKLOADS}
    except (pytest.skip.Exception, pytest.fail.Exception) as absent:
        print(f"tapeline bench: error: {absent}", file=sys.stderr)
        return 2
    for name, messages in workloads.items():
        found = measure(messages)
        line = {"bench": "book", "figure": "messages_per_s", "value": found["messages_per_s"], "unit": "messages/s"}
        workload = f"{name} {found['messages']} messages, one at a time, reports built"
        print(json.dumps({**line, "workload": workload, "sha256": found["sha256"], "excludes": EXCLUDES}), flush=True)
    return 0


def made() -> list[BookMessage]:
    """Return 1,000 orders around one price, each with the cancel of an earlier one."""
    dice, messages = random.Random(7), []
    for order_id in range(1_000):
        price, size = 1_000 + round(dice.gauss(0, 8)), dice.randint(1, 50)
        messages.append((NEW, dice.randint(0, 1), dice.random() < 0.15, size, 2 * order_id, order_id, price))
        messages.append((CANCEL, 0, False, 0, 2 * order_id + 1, dice.randint(0, order_id), 0))
    return messages


if __name__ == "__main__":
    gc.set_threshold(*GC_THRESHOLD)  # as every process of ours
    sys.exit(main("--tiny" in sys.argv[1:]))
