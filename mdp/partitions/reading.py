"""Says what became of a checkpoint cell that was read: its version, and what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

VERSION = 2  # of the checkpoint; 1 had positions without a source and quotes without a calendar


class NewerCheckpoint(ValueError):
    """A checkpoint that a newer version of the processors has written."""


class Unreadable(NamedTuple):
    """A checkpoint cell that could not be read: of an analyzer's symbol, or (empty) one of the partition's own.

    Without a `fault` it was set aside, and told, by an earlier owner.
    """

    analyzer: str
    symbol: str
    field: str
    value: bytes
    fault: str


def version_of(value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        return VERSION  # a cell like any other may be unreadable; the others say themselves whether they can be read


def fault_of(call: Callable[..., None], *arguments: Any) -> str:
    try:
        call(*arguments)
    except Exception as error:  # whatever a decoder or an analyzer makes of bytes that are not its own
        return f"{type(error).__name__}: {error}"[:200]
    return ""
