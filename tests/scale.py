"""Says how often a test repeats what takes long: less in the usual run, everything with `make faults`."""

from __future__ import annotations

import os


def everything() -> bool:
    """Whether TEST_FAULTS asks for all that is promised."""
    return bool(os.environ.get("TEST_FAULTS"))


def many(full: int, usual: int = 0) -> int:
    """Return `full` when everything is asked for, else `usual`: two fifths of it unless it is said."""
    return full if everything() else usual or -(-full * 2 // 5)
