"""The command lines `backup` and `restore` of an exchange; what was done is one JSON line on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import IO

from engine.backup.backup import put_back, take
from service import backup
from service.errors import OperatorError


def backup_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `backup` takes."""
    parser.add_argument("file", metavar="FILE", help="a new file; - is stdout")


def restore_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `restore` takes."""
    parser.add_argument("file", metavar="FILE", help="what `backup` wrote; - is stdin")
    parser.add_argument(
        "--exact",
        action="store_true",
        help="begin no new term: for a look at it, not for an exchange that others knew and that goes on",
    )


def run_backup(folder: Path, keys: Path, given: argparse.Namespace, now_ns: int) -> None:
    """Write a backup of the exchange of a folder.  Raises: OperatorError."""

    def make(out: IO[bytes]) -> None:
        about.update(take(folder, keys, out, now_ns))

    about: dict[str, object] = {}
    backup.write(given.file, make)
    print(json.dumps(about), file=sys.stderr)


def run_restore(folder: Path, keys: Path, given: argparse.Namespace, now_ns: int) -> None:
    """Make a backup the exchange of a folder that is empty.  Raises: OperatorError."""
    try:
        with backup.reading(given.file) as source:
            print(json.dumps(put_back(source, folder, keys, given.exact, now_ns)), file=sys.stderr)
    except OSError as error:
        what = f"The backup cannot be put into {folder}: {(error.strerror or str(error)).lower()}"
        raise OperatorError(what, "Give a folder on a disk with room that this user may write", 3) from None
