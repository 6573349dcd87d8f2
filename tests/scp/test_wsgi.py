"""scp/wsgi.py and the py4web app: the real server's pages, as a browser gets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scp.desk import DOCS, DOOR, PAGE
from scp.settings import APPS
from tests.scp.conftest import ScpProcess
from wds.access.tokens import KeyRing


def test_the_page_comes_with_the_policy(scp: ScpProcess) -> None:
    """Built or not, the answer carries every security header."""
    answer = scp.ask("/", Cookie=scp.cookie)
    assert answer.status == (200 if PAGE.is_file() else 503)
    assert "ws://127.0.0.1:1;" in str(answer.getheader("Content-Security-Policy"))
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert answer.getheader("Referrer-Policy") == "no-referrer"
    assert answer.getheader("Set-Cookie") is None


def test_a_session_opens_the_stream(scp: ScpProcess) -> None:
    """The token is one that WDS accepts, and nothing stores it."""
    answer = scp.ask("/api/session", Cookie=scp.cookie)
    assert answer.getheader("Cache-Control") == "no-store"
    session = json.loads(answer.text)  # type: ignore[attr-defined]
    ring = KeyRing()
    for port in (scp.port, scp.admin_port):  # shown to everybody, and to data services inside a cluster
        assert ring.install(scp.ask("/jwks.json", port=port).text.encode()) == 1  # type: ignore[attr-defined]
    claims = ring.verify(session["token"], 0)
    assert claims.allows("quote:AAPL")
    assert claims.sub == "ann"
    assert session["wds_url"] == "ws://127.0.0.1:1/v1/stream"
    assert session["expires_s"] == 120


def test_foreign_hosts_and_sites_are_refused(scp: ScpProcess) -> None:
    """On the wire, not only in the unit tests."""
    assert scp.ask("/api/session", Host="evil.com").status == 421
    assert scp.ask("/api/session", Origin="http://evil.com").status == 403
    assert scp.ask("/", method="POST").status == 405


def test_who_is_not_signed_in_gets_the_door_and_nothing_behind_it(scp: ScpProcess) -> None:
    """Neither the page nor its files, nor a token."""
    page = scp.ask("/")
    assert (page.status, page.getheader("Location")) == (303, "/sign-in")
    assert scp.ask("/sign-in").status == (200 if DOOR.is_file() else 503)
    for path in ("/static/app/index.html", "/api/session", "/api/v1/me", "/api/v1/users"):
        assert scp.ask(path).status == 401, path


@pytest.mark.parametrize(
    "path",
    [
        "/_dashboard",
        "/_dashboard/index",
        "/nothing",
        "/static/app/../../__init__.py",
        "/static/%2e%2e/__init__.py",
        "/static/app/door/../index.html",
        "/static/app/door/%2e%2e/index.html",
        "/static/app/door/..%2findex.html",
        "/static/app/.env",
        "//",
        "/static/app/a%00b",
    ],
)
def test_there_is_nothing_else(scp: ScpProcess, path: str) -> None:
    """No dashboard, no source files."""
    assert scp.ask(path).status in (403, 404)


def test_nothing_is_written_into_the_source_tree(scp: ScpProcess) -> None:
    """py4web's secret lies in RUN_DIR."""
    assert (scp.run_dir / "scp" / "session.secret").is_file()
    assert {path.name for path in Path(APPS).iterdir()} - {"__pycache__"} == {"__init__.py", "_default"}


def test_the_api_is_shown_to_who_is_signed_in(scp: ScpProcess) -> None:
    """Swagger UI writes markup by itself, so its page alone may; its scripts are ours all the same."""
    assert scp.ask("/docs").getheader("Location") == "/sign-in"
    answer = scp.ask("/docs", Cookie=scp.cookie)
    assert answer.status == (200 if DOCS.is_file() else 503)
    allowed, elsewhere = (str(scp.ask(path, Cookie=scp.cookie).getheader("Content-Security-Policy")) for path in ("/docs", "/"))
    assert "script-src 'self';" in allowed
    assert "trusted-types" not in allowed
    assert "require-trusted-types-for 'script'" in elsewhere
    assert "unsafe" not in elsewhere
