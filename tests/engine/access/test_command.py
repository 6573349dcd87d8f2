"""The command that makes, lists and withdraws keys, without an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from engine.access.key_file import KeyFile
from tests.stack import ROOT

NOW = 1_800_000_000 * 10**9
COMMAND = [sys.executable, "-m", "engine", "keys"]


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m engine keys`."""
    env = {"PATH": "/usr/bin:/bin", "ENGINE_DIR": str(folder)}
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=180, check=False)


def test_the_command_makes_lists_and_withdraws(tmp_path: Path) -> None:
    """Without an engine; what is wrong is one line with a way out."""
    made = command(tmp_path, "create", "--role", "trader", "--accounts", "7,100-199", "--name", "desk")
    assert made.returncode == 0, made.stderr
    text = made.stdout.strip()
    key_id = text.split("_")[1]
    listed = command(tmp_path, "list").stdout
    assert f'"id": "{key_id}"' in listed
    assert '"accounts": "7,100-199"' in listed
    assert text not in listed
    into = command(tmp_path, "create", "--role", "operator", "--into", str(tmp_path / "o.key"))
    assert (tmp_path / "o.key").read_text().startswith("tl_")
    assert (tmp_path / "o.key").read_text().strip() not in into.stdout
    assert '"withdrawn": "2' in command(tmp_path, "revoke", key_id).stdout
    assert KeyFile(tmp_path / "keys.json").read().bearer(text, NOW) is None
    for arguments, said in (
        (("revoke", "nobodyis"), "keys list shows the ids"),
        (("create", "--role", "trader"), "a trader has accounts"),
        (("create", "--role", "trader", "--accounts", "zero"), "write 7, 7,100-199 or all"),
    ):
        failed = command(tmp_path, *arguments)
        assert failed.returncode == 2
        assert said in failed.stderr
        assert failed.stderr.count("\n") == 1
