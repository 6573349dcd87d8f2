"""Takes mends out again, so that the simulator can show that it finds the faults they mend."""

from __future__ import annotations

from collections.abc import Callable

MENDS: dict[str, Callable[[], None]] = {}


def take_out(name: str) -> None:
    """Undo the mend `name` in this process; nothing for the empty name.  Raises: KeyError for an unknown one."""
    if name:
        MENDS[name]()
