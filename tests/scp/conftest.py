"""Starts a real `python -m scp` on free ports, with the environment variables that a test gives."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until_sync

ROOT = Path(__file__).resolve().parents[2]


class ScpProcess:
    """A running control plane: its log events, its ports, its end."""

    def __init__(self, run_dir: Path, **variables: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SCP_", "WDS_", "ADMIN_", "PY4WEB"))}
        given = {"RUN_DIR": str(run_dir), "SCP_PORT": "0", "SCP_ADMIN_PORT": "0", "LOG_FORMAT": "json"} | variables
        self.run_dir = run_dir
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scp"], cwd=ROOT, env=clean | given, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def event(self, name: str) -> dict[str, Any] | None:
        """Return the first log line of this event, parsed."""
        found = (json.loads(line) for line in list(self.lines) if f'"{name}"' in line)
        return next((event for event in found if event.get("event") == name), None)

    @property
    def port(self) -> int:
        """Return the port of the page, once it is open."""
        return int(until_sync(lambda: self.event("page_ready"), 15, "page_ready")["url"].rsplit(":", 1)[1].strip("/"))

    @property
    def admin_port(self) -> int:
        """Return the admin port, once it is open."""
        return int(until_sync(lambda: self.event("admin_listening"), 15, "admin_listening")["port"])

    def ask(self, path: str, method: str = "GET", port: int | None = None, **headers: str) -> http.client.HTTPResponse:
        """Send one request; header names are written with underscores. The answer's body is in `.text`."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=10)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]
        connection.close()
        return answer

    def end(self, wait_s: float = 15) -> int:
        """Send SIGTERM and return the exit code; whoever ignores it is killed and fails the test."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(wait_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


@pytest.fixture(scope="session")
def scp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScpProcess]:
    """One control plane for all tests that only ask it."""
    started = ScpProcess(tmp_path_factory.mktemp("scp"), WDS_PORT="1")
    yield started
    started.end()


@pytest.fixture
def start_scp(tmp_path: Path) -> Iterator[Callable[..., ScpProcess]]:
    """Start control planes with given variables; all end with the test."""
    started: list[ScpProcess] = []

    def start(**variables: str) -> ScpProcess:
        started.append(ScpProcess(tmp_path / "run", **variables))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end()
