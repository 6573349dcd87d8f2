"""The key file: changed from several processes at once, never half written, for its owner's eyes only."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine.access.key_file import KeyFile
from engine.access.keys import Role, ranges
from service.errors import OperatorError
from tests.stack import ROOT

NOW = 1_800_000_000 * 10**9


def test_a_key_is_made_found_and_withdrawn(tmp_path: Path) -> None:
    """By whoever opens the file; a withdrawn key stays in the list, because the journal names it."""
    file = KeyFile(tmp_path / "a" / "keys.json")
    assert not file.read().keys
    key, text = file.create(NOW, Role.TRADER, "desk", ranges("7"))
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert text not in file.path.read_text()
    caller = KeyFile(file.path).read().bearer(text, NOW)
    assert caller is not None
    assert (caller.sender, caller.accounts) == (key.id, ((7, 7),))
    before = file.mark()
    assert file.withdraw(key.id, NOW).withdrawn
    assert file.mark() != before
    ring = file.read()
    assert ring.bearer(text, NOW) is None
    assert list(ring.keys) == [key.id]
    with pytest.raises(KeyError):
        file.withdraw("nobodyis", NOW)


def test_changes_of_many_processes_are_all_there(tmp_path: Path) -> None:
    """Nobody's key is lost between the reading and the writing of another one."""
    script = (
        "import sys, pathlib; from engine.access.key_file import KeyFile; from engine.access.keys import Role\n"
        f"for n in range(10): KeyFile(pathlib.Path({str(tmp_path / 'keys.json')!r})).create({NOW}, Role.OPERATOR, sys.argv[1])"
    )
    made = [subprocess.Popen([sys.executable, "-c", script, str(n)], cwd=ROOT) for n in range(3)]
    assert [process.wait(60) for process in made] == [0, 0, 0]
    assert len(KeyFile(tmp_path / "keys.json").read().keys) == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.json", "keys.json.lock"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'{"version":2,"keys":[]}', b'{"version":1}', b'{"version":1,"keys":[{"id":"x"}]}', b"\xff" * 9, b"[" * 90_000,
        b'{"version":1,"keys":[],"more":1}',
        b'{"version":1,"keys":[{"id":"abcdefgh","role":"trader","hash":"' + b"0" * 64 + b'","created":"2026-01-01T00:00:00Z"}]}',
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    """And no change is made to it."""
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(OperatorError, match=r"keys\.json.*Mend or restore it") as found:
        KeyFile(path).read()
    assert "\n" not in str(found.value)
    with pytest.raises(OperatorError):
        KeyFile(path).create(NOW, Role.OPERATOR)
    assert path.read_bytes() == content


def test_the_first_key_of_a_process_is_made_once(tmp_path: Path) -> None:
    """Kept in a file of its own; made again when it was withdrawn."""
    file, path = KeyFile(tmp_path / "keys.json"), tmp_path / "operator.key"
    text = file.ensure(path, NOW, Role.OPERATOR, "first")
    assert path.read_text().strip() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert file.ensure(path, NOW, Role.OPERATOR, "first") == text
    (key,) = file.read().keys.values()
    file.withdraw(key.id, NOW)
    assert file.ensure(path, NOW, Role.OPERATOR, "first") != text
