"""Runs the cache's commands: `python -m mdc embedded` serves it on 127.0.0.1, `… table` prints the README's tables."""

from __future__ import annotations

import sys

from mdc import served
from mdc.table import tables
from service.errors import OperatorError
from service.run import fail


def command(words: list[str]) -> None:
    """Run one command.  Raises: OperatorError."""
    match words:
        case ["embedded"]:
            served.run()
        case ["table"]:
            print(tables())
        case _:
            raise OperatorError("unknown command", "The commands are: python -m mdc embedded, python -m mdc table")


if __name__ == "__main__":
    try:
        command(sys.argv[1:])
    except OperatorError as error:
        fail("mdc", error)
