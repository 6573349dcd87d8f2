"""Holds what the hub knows of one client: how to write to it, its step on the ladder, its groups and what it was told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from wds.fanout.cohort import Cohort, Round
from wds.fanout.compact import Form
from wds.fanout.freshness import Verdict
from wds.fanout.group import Group
from wds.fanout.outbox import Ladder, Outbox, Step
from wds.fanout.pieces import Wrap
from wds.protocol import Hz, Since


class Want(NamedTuple):
    """One channel that a client subscribes to; `fields` None = all."""

    channel: str
    hz: Hz
    fields: frozenset[str] | None = None
    since: Since | None = None


class Member:
    """One client as the hub knows it. `write` takes one or more whole WebSocket frames and never blocks."""

    __slots__ = ("cohorts", "form", "gone", "groups", "hz", "loose", "outbox", "paused", "ready", "told", "write")

    def __init__(self, write: Callable[[bytes], None], ladder: Ladder, wrap: Wrap | None = None) -> None:
        self.write = write
        self.form = None if wrap is None else Form(wrap)  # None = as the hub writes to everybody
        self.outbox = Outbox(ladder)
        self.paused = False  # by its own wish: a hidden tab
        self.gone = False
        self.ready = True
        self.hz: Hz | None = None  # the rate it is being moved to
        self.told: dict[str, Verdict] = {}  # channel → what it was told, unless that was live
        self.groups: dict[str, Group] = {}
        self.cohorts: dict[Round, Cohort] = {}
        self.loose: dict[Round, dict[Member, None]] | None = None  # where the hub is told that its cohort is another one now

    @property
    def following(self) -> Iterable[Group]:
        return self.groups.values()

    def judge(self) -> None:
        """Find out anew whether it may be written to."""
        self.ready = not self.paused and not self.gone and self.outbox.step is Step.OPEN

    def loosen(self, round_: Round) -> None:
        """The set of its fast groups of this round has changed."""
        if self.loose is not None:
            self.loose[round_][self] = None
