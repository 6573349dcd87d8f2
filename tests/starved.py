"""Says whether the machine starved a test: another build on its cores, a disk that stalls. Such a failure proves nothing.

A test that failed while it was starved is run again, twice at most, and the run's summary lists it; one that fails on a machine
with time to spare has failed.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

TICK_S = 0.02
STALL_S_MAX = 0.3  # this process slept so much longer than it asked for
PRESSURE_MAX = 0.25  # share of the time in which somebody waited for a core, or for the disk
RERUNS = 2


class Starvation:
    """Watches how long this process oversleeps, and what the kernel says of waiting for cores and disks (PSI, where it has it)."""

    def __init__(self) -> None:
        self._worst_s = 0.0
        self._began_s = time.monotonic()
        self._before = _waited_s()
        threading.Thread(target=self._watch, name="starvation", daemon=True).start()

    def begin(self) -> None:
        """Forget what was before this test."""
        self._worst_s, self._began_s, self._before = 0.0, time.monotonic(), _waited_s()

    def seen(self) -> bool:
        """Return whether this test was starved since it began."""
        seconds = max(time.monotonic() - self._began_s, TICK_S)
        shares = [(after - before) / seconds for after, before in zip(_waited_s(), self._before, strict=True)]
        crowded = not shares and os.getloadavg()[0] > (os.cpu_count() or 1)
        return self._worst_s > STALL_S_MAX or crowded or any(share > PRESSURE_MAX for share in shares)

    def _watch(self) -> None:
        while True:
            began_s = time.monotonic()
            time.sleep(TICK_S)
            self._worst_s = max(self._worst_s, time.monotonic() - began_s - TICK_S)


def _waited_s() -> list[float]:
    found = []
    for what in ("cpu", "io"):
        try:
            some = Path(f"/proc/pressure/{what}").read_text().split("\n", 1)[0]
            found.append(int(some.rpartition("total=")[2]) / 1e6)
        except (OSError, ValueError):
            return []
    return found
