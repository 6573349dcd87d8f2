"""scp/mail.py and scp/announce.py: letters that arrive at a server, and sessions that are told to the cache."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mdc.connect import forget_in_process, open_cache
from mdc.revoked import Revoked
from scp.announce import Announcer
from scp.command_line import make_link, verify_audit
from scp.control import Control, internal, open_store
from scp.mail import Mail
from scp.problems import PHRASES, Problem, too_many
from scp.security import sessions
from scp.security.people import create
from scp.settings import ScpSettings
from service.errors import OperatorError
from tests.waiting import until


class Letters(socketserver.StreamRequestHandler):
    """A mail server that takes every letter for example.com."""

    def handle(self) -> None:
        self._say("220 ready")
        while line := self.rfile.readline().decode().strip():
            word = line.upper()[:4]
            if word == "DATA":
                self._say("354 go on")
                text = b""
                while not text.endswith(b"\r\n.\r\n"):
                    text += self.rfile.readline()
                self.server.letters.append(text.decode())  # type: ignore[attr-defined]
                self._say("250 taken")
            elif word == "RCPT" and "example.com" not in line:
                self._say("550 nobody here")
            elif word == "QUIT":
                return self._say("221 bye")
            else:
                self._say("250 well")
        return None

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture
def post() -> Iterator[Any]:
    """A mail server on loopback; `.letters` is what it took."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Letters) as server:
        server.letters = []  # type: ignore[attr-defined]
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_letter_arrives(post: Any) -> None:
    """With sender, subject and text."""
    mail = Mail(f"smtp://127.0.0.1:{post.server_address[1]}", "desk@example.com")
    assert mail.send("ann@example.com", "a new password", "https://desk.example.com/welcome#secret\n")
    assert "From: desk@example.com" in post.letters[0]
    assert "welcome#secret" in post.letters[0]


@pytest.mark.parametrize("where", ["", "smtp://127.0.0.1:1", "smtp://me:hunter2@127.0.0.1:{port}", "refused"])
def test_what_cannot_be_sent_is_said_in_the_log(post: Any, where: str, caplog: pytest.LogCaptureFixture) -> None:
    """No server, nobody there, a password over an open line, a receiver that is refused: False, never an error."""
    url = f"smtp://127.0.0.1:{post.server_address[1]}" if where == "refused" else where.format(port=post.server_address[1])
    assert not Mail(url, "desk@example.com").send("ann@elsewhere.org", "x", "y")
    assert post.letters == []


async def test_ended_sessions_are_told_and_told_again(tmp_path: Path) -> None:
    """Also to a cache that was emptied meanwhile, and after this process was another one."""
    cache = "memory://announce"
    settings = ScpSettings(run_dir=tmp_path, mdc_url=cache)
    control = Control(settings, open_store(settings))
    asked = internal("test")
    with control.store.transaction() as db:
        user = create(db, "ann", "viewer", "", asked.now_ms)
        sessions.begin(db, user, asked, control.lives, control.draw)
        (session,) = sessions.living(db, user, asked.now_ms, control.lives)
        sessions.end_all(db, user, asked.now_ms)
    announcer = Announcer(control, cache, 120)
    task = asyncio.create_task(announcer.run())
    try:
        for _ in range(2):

            async def told() -> bool:
                return session["id"] in await Revoked(open_cache(cache)).read()

            await until(told, 10)
            await open_cache(cache).flushall()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        forget_in_process(cache)


def test_the_command_line_makes_links_and_checks_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For the first administrator, then by name only."""
    settings = ScpSettings(run_dir=tmp_path, public_url="https://desk.example.com")
    assert make_link(settings, "") == 0
    link = capsys.readouterr().out.strip()
    assert link.startswith("https://desk.example.com/welcome#")
    control = Control(settings, open_store(settings))
    control.sign_in.by_link(link.partition("#")[2], "ann", "green tractors at dawn", internal("test"))
    with pytest.raises(OperatorError, match="Name somebody"):
        make_link(settings, "")
    with pytest.raises(OperatorError, match="nobody called 'bob'"):
        make_link(settings, "bob")
    assert make_link(settings, "Ann") == 0
    assert verify_audit(settings, None) == 0
    assert "whole: 3 entries" in capsys.readouterr().out
    with pytest.raises(OperatorError, match="cannot be read"):
        verify_audit(settings, str(tmp_path / "none"))


def test_a_problem_says_when_to_come_back() -> None:
    """In words and in the header."""
    problem = too_many(61)
    assert (problem.status, problem.detail, problem.more) == (429, "Too many tries. Again in 2 minutes", (("Retry-After", "61"),))
    assert b'"code": "x"' in Problem(404, "x", "y").body("id")
    assert PHRASES[404] == "Not Found"
