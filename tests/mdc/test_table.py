"""Checks that the README's tables are the code's, and that they are complete."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from mdc.channels import KINDS
from mdc.table import KEYS, tables
from tests.mdc.ground import contents, everything, open_source

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_holds_exactly_the_generated_tables() -> None:
    """What is written about channels and keys is what the code does; `python -m mdc table` prints it."""
    assert f"\n\n{tables()}\n\n" in (ROOT / "mdc" / "README.md").read_text()


def test_the_command_prints_the_tables() -> None:
    """`python -m mdc table` is how the README is brought up to date; another word is refused in one line."""
    asked = subprocess.run([sys.executable, "-m", "mdc", "table"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert asked.stdout == tables() + "\n"
    wrong = subprocess.run([sys.executable, "-m", "mdc", "tables"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "python -m mdc table" in wrong.stderr
    assert "Traceback" not in wrong.stderr


async def test_every_key_in_the_cache_is_in_the_table(cache: Any) -> None:
    """A flush with everything in it writes no key that the table does not name."""
    source = await open_source(cache)
    flush = source.flush()
    everything(flush, source)
    await source.send(flush)
    starts = {row[0].split("{")[0] for row in KEYS}
    assert [key for key in await contents(cache) if not any(key.decode().startswith(start) for start in starts)] == []


def test_the_table_names_every_kind_and_field() -> None:
    """A kind cannot be added without appearing in the README."""
    text = tables()
    for kind in KINDS.values():
        assert f"| `{kind.name}:" in text
        assert f"`{' '.join(kind.fields)}`" in text
