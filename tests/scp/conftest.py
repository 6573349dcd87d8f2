"""Starts a real `python -m scp` on free ports, with the environment variables that a test gives."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.signing import PASSWORD, first_admin
from tests.waiting import until_sync

ROOT = Path(__file__).resolve().parents[2]


class Reply(NamedTuple):
    """An answer: its status, document (or text), the session's secret that it set, and the rest."""

    status: int
    body: Any
    secret: str | None
    raw: http.client.HTTPResponse


class Person:
    """Somebody with a session."""

    def __init__(self, scp: ScpProcess, secret: str, name: str = "", user_id: int = 0) -> None:
        self.scp = scp
        self.secret = secret
        self.name = name
        self.id = user_id

    def get(self, path: str, **more: str) -> Reply:
        """Read."""
        return self.scp.api("GET", path, cookie=self.secret, **more)

    @property
    def csrf(self) -> str:
        """Return the word that changes need."""
        return str(self.get("/api/v1/me").body["csrf"])

    def change(self, method: str, path: str, body: Any = None, **more: str) -> Reply:
        """Change something as the page does."""
        return self.scp.api(method, path, body, cookie=self.secret, **(more if "csrf" in more else {"csrf": self.csrf} | more))


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

    @cached_property
    def admin(self) -> dict[str, Any]:
        """Return the cookie of the first administrator, who is made now."""
        return first_admin(self.port, self.run_dir)

    @property
    def cookie(self) -> str:
        """Return the administrator's cookie as a request's header."""
        return f"{self.admin['name']}={self.admin['value']}"

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

    def api(
        self, method: str, path: str, body: Any = None, cookie: str = "", token: str = "", csrf: str = "", **headers: str
    ) -> Reply:
        """Ask the API as a page does; `cookie` is a session's secret. Header names are written with underscores."""
        given = {"Content_Type": "application/json"} if method not in ("GET", "HEAD") else {}
        given |= {"Cookie": f"tapeline-{self.port}={cookie}"} if cookie else {}
        given |= {"Authorization": f"Bearer {token}"} if token else {}
        given |= {"X_CSRF_Token": csrf} if csrf else {}
        sent = {name.replace("_", "-"): value for name, value in (given | headers).items() if value}
        raw = body if isinstance(body, (bytes, str)) or body is None else json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, raw, sent)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        found = re.search(r"tapeline-\d+=([^;]*)", answer.getheader("Set-Cookie") or "")
        kind = answer.getheader("Content-Type") or ""
        return Reply(
            answer.status, json.loads(text) if "json" in kind and "ndjson" not in kind else text, found and found[1], answer
        )

    def person(self, role: str, name: str = "", password: str = PASSWORD) -> Person:
        """Invite somebody, let them set their password, and return them signed in."""
        name = name or f"{role}-{secrets.token_hex(3)}"
        boss = Person(self, self.admin["value"])
        invited = boss.change("POST", "/api/v1/users", {"username": name, "role": role})
        assert invited.status == 201, invited.body
        link = invited.body["link"].partition("#")[2]
        entered = self.api("POST", "/api/v1/links/use", {"link": link, "password": password})
        assert entered.status == 200, entered.body
        return Person(self, str(entered.secret), name, invited.body["user"]["id"])

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
