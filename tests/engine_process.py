"""Runs the real engine as a process of its own, `python -m engine serve`, restarted as often as a test needs."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers import free_port
from tests.stack import ROOT, _die_with_parent
from tests.waiting import until_sync

TOKEN = "the operator of the tests"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


class EngineProcess:
    """One folder and two ports; `settings` are environment variables, `OPERATOR` the headers of who may do everything."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.settings = {
            "ENGINE_DIR": str(folder / "engine"), "ENGINE_PORT": str(self.port), "ENGINE_ADMIN_PORT": str(self.admin_port),
            "RUN_DIR": str(folder), "ENGINE_API_TOKEN": TOKEN, "ENGINE_ORDERS_TRUST": "broker", "PATH": "/usr/bin:/bin", **settings,
        }  # fmt: skip

    @property
    def log(self) -> str:
        return (self.folder / "engine.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it; it may not answer yet."""
        with (self.folder / "engine.log").open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "engine", "serve"], cwd=ROOT, env=self.settings, stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def ready(self) -> None:
        """Wait until it takes commands."""
        until_sync(lambda: self.readiness().get("ready"), 30, "the engine takes commands")

    def readiness(self) -> dict[str, Any]:
        """Return what its admin port says, empty when it says nothing."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=5) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as refusal:
            return dict(json.load(refusal))
        except OSError:
            assert self.process is None or self.process.poll() is None, self.log[-2_000:]
            return {}

    def end(self, sig: int) -> int:
        """Send a signal; return the exit code."""
        assert self.process is not None
        self.process.send_signal(sig)
        return self.process.wait(20)
