"""Runs a whole Tapeline for a test, `python -m deploy.local` on free ports, and watches its lines, pids and end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from deploy import rundir
from tests.signing import first_admin
from tests.stack import PYTHON, ROOT, TREE
from tests.waiting import until_sync

__all__ = ["ROOT", "LocalRun", "alive"]
FREE_PORTS = (
    "SCP_PORT", "WDS_PORT", "MDL_ADMIN_PORT", "MDP_ADMIN_PORT", "WDS_ADMIN_PORT", "SCP_ADMIN_PORT", "MDC_EMBEDDED_PORT",
    "ENGINE_PORT", "ENGINE_ADMIN_PORT", "BOTS_ADMIN_PORT",
)  # fmt: skip
OURS = (
    "MDL_", "MDP_", "MDQ_", "MDC_", "WDS_", "SCP_", "ENGINE_", "BOTS_",
    "FEED", "TAPE", "SPEED", "LOOP", "SYMBOLS", "RATE", "SEED", "API_KEY",
)  # fmt: skip
START_S_MAX = 60  # with a cold disk and everything else running


class LocalRun:
    """One `make run`. Use as a context manager: what still runs at the end is killed."""

    def __init__(self, run_dir: Path, **variables: str) -> None:
        self.dir = run_dir
        self.lines: list[str] = []
        self._cookies: list[dict[str, Any]] = []
        env = self.clean_environment() | dict.fromkeys(FREE_PORTS, "0") | {"RUN_DIR": str(run_dir)} | variables
        self.process = subprocess.Popen(
            [PYTHON, "-m", "deploy.local"], cwd=TREE, env=env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @staticmethod
    def clean_environment() -> dict[str, str]:
        """Return this process's environment without any variable that Tapeline reads."""
        return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}

    def __enter__(self) -> LocalRun:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            pids = self.pids()
            self.process.kill()
            for pid in pids.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(10)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def facts(self) -> dict[str, Any]:
        """Return what RUN_DIR/local.json says now."""
        return rundir.read(self.dir)

    def pids(self) -> dict[str, int]:
        """Return the pids of the children that run now."""
        return {name: child["pid"] for name, child in self.facts.get("children", {}).items() if child["pid"]}

    def port(self, variable: str) -> int:
        return int(self.facts["ports"][variable])

    def cookies(self) -> list[dict[str, Any]]:
        """Return the cookies of the run's administrator, for a browser; the first call makes that administrator."""
        if not self._cookies:
            self._cookies.append(first_admin(self.port("SCP_PORT"), self.dir))
        return list(self._cookies)

    def says(self, text: str, seconds: float = START_S_MAX) -> str:
        """Wait for a line that contains `text` and return it; fail when the run ends before."""

        def found() -> str | None:
            line = next((line for line in self.lines if text in line), None)
            if line is None and self.process.poll() is not None:
                self._reader.join(5)
                if not any(text in line for line in self.lines):
                    raise AssertionError(f"ended with {self.process.returncode} without {text!r}:\n{self.output}")
            return line

        try:
            return str(until_sync(found, seconds, text))
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.output}") from None

    def ends(self, seconds: float = START_S_MAX) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


def alive(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
