"""Measures one stretch of running processes: its seconds, the processor time of every process and, when asked, where that time went.

Invariant: everything is read from outside the processes (/proc, their stacks), so that one and the same code measures any revision.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench import spy
from tests.stack import cpu_s

CLIENT = "client"  # the benchmark's own process: it makes load or looks on, and is no part of what is measured
SERVERS = ("rabbitmq", "redis", "mdc")  # no Python in them to look into


class Window:
    """`with Window(pids, folder) as window: …`; then `seconds`, `cpu_s` by process and `figures(events)`.

    `pids` names the processes; what they start belongs to them. `folder` takes the profiler's files.
    """

    def __init__(self, pids: Mapping[str, int], folder: Path) -> None:
        self.seconds = 0.0
        self.cpu_s: dict[str, float] = {}
        self.others_pct = 0.0  # of a core: what others took from us meanwhile; above some ten the figures are theirs, too
        self._pids = pids
        self._folder = folder
        self._spies: dict[str, spy.Spy] = {}

    def __enter__(self) -> Window:
        if spy.asked():
            pythons = {name: pid for name, pid in self._pids.items() if name not in SERVERS}
            self._spies = {name: spy.Spy(pid, self._folder / f"{name}.folded") for name, pid in pythons.items()}
        self._before, self._busy_s, self._began_s = self._cpu(), machine_busy_s(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began_s
        self.cpu_s = {name: used - self._before.get(name, 0.0) for name, used in self._cpu().items()}
        others_s = machine_busy_s() - self._busy_s - sum(self.cpu_s.values())
        self.others_pct = round(100 * max(0.0, others_s) / self.seconds, 1)
        for name, one in self._spies.items():
            print(json.dumps(spy.profile_line(name, one.end(), self.cpu_s[name] / self.seconds)), flush=True)

    def figures(self, events: int) -> Iterator[tuple[str, float]]:
        """Yield (figure, µs of processor time an event): of each kind of process, then of all but the benchmark itself."""
        kinds: dict[str, float] = defaultdict(float)
        for name, used in self.cpu_s.items():
            kinds[name.rstrip("0123456789")] += used
        for kind, used in kinds.items():
            yield f"cpu_us_per_event_{kind}", round(used * 1e6 / events, 2)
        whole = sum(used for kind, used in kinds.items() if kind != CLIENT)
        yield "cpu_us_per_event", round(whole * 1e6 / events, 2)

    def _cpu(self) -> dict[str, float]:
        return {name: cpu_s(pid) for name, pid in self._pids.items()} | {CLIENT: time.process_time()}


def machine_busy_s() -> float:
    """Return the processor seconds that this machine has spent on anything, and those that its host kept for itself."""
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
