"""Says which functions of a running Python process take its time: starts the sampling profiler py-spy beside it.

Invariant: the process itself is not changed and need not know; what is sampled costs it about a hundredth.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.folded import Share, shares

ASKED = "BENCH_PROFILE"
SAMPLES_S = 100
OWN_PCT_MIN, TOTAL_PCT_MIN = 0.5, 2.0  # smaller shares are left out
END_S_MAX = 30


class Spy:
    """A profiler beside the process `pid`, from now to `end()`; `out` is its own file of stacks."""

    def __init__(self, pid: int, out: Path) -> None:
        self._out = out
        argv = [program(), "record", "--pid", str(pid), "--output", str(out), "--format", "raw", "--function"]
        argv += ["--rate", str(SAMPLES_S), "--nonblocking"]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self) -> list[Share]:
        """Stop sampling; return the functions, the largest own share first."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(END_S_MAX)
        return shares(self._out.read_text().splitlines()) if self._out.exists() else []


def asked() -> bool:
    """Return whether this run shall say where the time goes."""
    return bool(os.environ.get(ASKED))


def program() -> str:
    """Return the profiler's path.  Raises: SystemExit with what to do when it is not installed."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("py-spy", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        raise SystemExit("tapeline bench: error: py-spy is not installed. `make bench PROFILE=1` installs it; so does pip.")
    return found


def profile_line(process: str, found: list[Share], cores: float | None = None) -> dict[str, Any]:
    """Return the result line of one process: what it took of a core, and its functions."""
    named = [one for one in found if one.own_pct >= OWN_PCT_MIN or one.total_pct >= TOTAL_PCT_MIN]
    rows = [{"function": one.function, "own_pct": one.own_pct, "total_pct": one.total_pct} for one in named]
    share = None if cores is None else round(100 * cores, 1)
    return {"figure": f"profile_{process}", "value": share, "unit": "% of a core", "functions": rows}
