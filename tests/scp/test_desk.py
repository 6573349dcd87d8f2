"""scp/desk.py: what the controllers hand out."""

from __future__ import annotations

from pathlib import Path

from scp.desk import Desk
from scp.settings import ScpSettings


def test_a_session_is_an_address_and_a_fresh_token(tmp_path: Path) -> None:
    """Two sessions are two tokens for the same stream."""
    desk = Desk(ScpSettings(run_dir=tmp_path, wds_port=8444, token_s=300))
    first, second = desk.session(), desk.session()
    assert (first["wds_url"], first["expires_s"]) == ("ws://127.0.0.1:8444/v1/stream", 300)
    assert first["token"] != second["token"]
    assert 0 <= second["now_ms"] - first["now_ms"] < 60_000


def test_the_page_is_none_until_it_is_built(tmp_path: Path) -> None:
    """So that the controller can say what to run."""
    desk = Desk(ScpSettings(run_dir=tmp_path))
    assert desk.page(tmp_path / "index.html") is None
    (tmp_path / "index.html").write_text("<!doctype html>")
    assert desk.page(tmp_path / "index.html") == "<!doctype html>"
