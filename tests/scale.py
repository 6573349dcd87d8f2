"""Says how often a test repeats what takes long: less in the usual run, everything with `make faults`."""

from __future__ import annotations

import os


def many(full: int) -> int:
    """Return `full` when TEST_FAULTS is set, else two fifths of it."""
    return full if os.environ.get("TEST_FAULTS") else -(-full * 2 // 5)
