"""Holds one watched channel with its groups, who waits for its snapshot, and what the hub asks of the shell for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from msgspec import Raw

from mdc.channels import split
from wds.fanout.channel import Channel
from wds.fanout.freshness import LIVE, Verdict
from wds.fanout.group import Group, Key
from wds.fanout.member import Member, Want
from wds.protocol import SubOutcome


class Request(NamedTuple):
    """What the shell shall do: `open` = watch, then read; `read` = read a snapshot; `close` = unwatch."""

    what: Literal["open", "read", "close"]
    channel: str
    ticket: int


Done = Callable[[list[SubOutcome]], Callable[[], None]]  # sends the reply; what it returns is called after the first frames


@dataclass(eq=False)
class Batch:
    """A sub command whose channels are being read; joined all together when the last one is there."""

    member: Member
    wants: list[Want]
    done: Done
    missing: set[str]
    opened: bool = False  # every channel of it was looked up
    history: dict[str, Raw | None] = field(default_factory=dict)


@dataclass(eq=False)
class Topic:
    """A watched channel with its groups, and who waits for its snapshot."""

    channel: Channel
    groups: dict[Key, Group] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    ticket: int = 0
    reading: bool = False
    retry_ns: int = 0
    idle_ns: int = 0
    pinned: bool = False
    source: str = ""  # that its documents name
    verdict: Verdict = LIVE  # what its members are told
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = split(self.channel.name)[1]

    def reopen(self) -> None:
        """Documents may have been missed: what is known is read anew, and an answer to a read from before is none."""
        self.channel.reopen()
        self.reading = False
        self.ticket = self.retry_ns = 0

    @property
    def used(self) -> bool:
        return bool(self.groups or self.batches or self.pinned)


@dataclass
class Tally:
    """What happened since the shell last looked; it adds these to the metrics."""

    frames: int = 0
    conflated: int = 0
    lost: int = 0
    malformed: int = 0  # documents whose data is not what their kind says; the group keeps its last good state
    source_ts: list[int] = field(default_factory=list)  # ms; source time of each flushed group's document
