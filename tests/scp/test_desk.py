"""scp/desk.py: what the controllers hand out."""

from __future__ import annotations

from pathlib import Path

import pytest

from scp import desk as desk_module
from scp.control import Control, open_store
from scp.desk import Desk, cookie_name
from scp.security.door import Caller
from scp.security.roles import scopes_of
from scp.security.sessions import Session
from scp.settings import ScpSettings

ANN = Caller(1, "ann", "viewer", scopes_of("viewer"), Session(1, "s1", 1, False, "ann", "viewer", 0), "word")


def desk_of(settings: ScpSettings) -> Desk:
    """Return a desk with a database of its own."""
    return Desk(settings, Control(settings, open_store(settings)), 8000)


def test_a_session_is_an_address_and_a_fresh_token(tmp_path: Path) -> None:
    """Two sessions are two tokens for the same stream."""
    desk = desk_of(ScpSettings(run_dir=tmp_path, wds_port=8444, token_s=300))
    first, second = desk.session(ANN), desk.session(ANN)
    assert (first["wds_url"], first["expires_s"]) == ("ws://127.0.0.1:8444/v1/stream", 300)
    assert first["token"] != second["token"]
    assert first["may"] == ["account", "view"]
    assert 0 <= second["now_ms"] - first["now_ms"] < 60_000


def test_the_page_is_none_until_it_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the controller can say what to run."""
    desk = desk_of(ScpSettings(run_dir=tmp_path))
    monkeypatch.setattr(desk_module, "DOOR", tmp_path / "index.html")
    assert desk.page("door") is None
    (tmp_path / "index.html").write_text("<!doctype html>")
    assert desk.page("door") == "<!doctype html>"


def test_the_cookie_is_as_strict_as_the_address_allows(tmp_path: Path) -> None:
    """Over https bound to the host; on loopback named after the port, because browsers send it to every port there."""
    local = ScpSettings(run_dir=tmp_path)
    assert desk_of(local).cookie("s") == "tapeline-8000=s; Path=/; HttpOnly; SameSite=Strict; Max-Age=604800"
    public = ScpSettings(run_dir=tmp_path, public_url="https://desk.example.com")
    assert cookie_name(public, 8000) == "__Host-tapeline"
    assert desk_of(public).cookie("").endswith("; Max-Age=0; Secure")
