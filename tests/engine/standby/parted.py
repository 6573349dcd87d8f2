"""Makes the folders of two engines whose journals part: one was the leader, the other one was promoted without its last commands."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from engine.journal.reader import segments
from engine.standby import command
from engine.standby import role as roles
from engine.standby.role import Role
from tests.engine.lives import journaled, life

COMMON, ALL = 300, 600
NOW_NS = 10**18 * 2


def parted(folder: Path, seed: int = 1, common: int = COMMON, segment_bytes_max: int = 20_000) -> tuple[Path, Path]:
    """Return the old leader's folder, which has commands of its own behind the first `common` ones, and the new leader's."""
    old, new = folder / "old", folder / "new"
    commands = life(seed, ALL)
    exchange = journaled(old / "journal", commands[:common], segment_bytes_max=segment_bytes_max)
    shutil.copytree(old, new)
    journaled(old / "journal", commands[common:], exchange, segment_bytes_max)
    roles.write(new, Role("standby", 0, "http://127.0.0.1:1"))
    command.run(new, argparse.Namespace(replication=""), NOW_NS)
    return old, new


def files(folder: Path) -> dict[str, bytes]:
    """Return the segments of an engine's journal."""
    return {path.name: path.read_bytes() for path in segments(folder / "journal")}
