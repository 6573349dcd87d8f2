"""Finds the members that follow exactly the same groups: what a round says to one of them is, byte for byte, for all.

Invariant: after `settle` each member with fast groups is in the one cohort of exactly these groups. Between two settlements a
member may only lose groups (it was demoted): then it is not ready, and `pieces.hand_over` puts its chains back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Protocol

from wds.pieces import Part, Recipient


class Followed(Protocol):
    """A group as its cohorts see it."""

    number: int
    cohorts: dict[Cohort, None]

    @property
    def fast(self) -> Mapping[Recipient, object]: ...

    def bring_late(self, spoke: bool) -> int: ...


class Follower(Recipient, Protocol):
    """A member as its cohort sees it."""

    gone: bool
    cohort: Cohort | None

    @property
    def following(self) -> Iterable[Followed]: ...


class Cohort:
    """Members of the same groups."""

    __slots__ = ("groups", "members")

    def __init__(self, groups: tuple[Followed, ...]) -> None:
        self.groups = groups
        self.members: dict[Follower, None] = {}


class Cohorts:
    """All cohorts of a worker."""

    __slots__ = ("_known", "loose")

    def __init__(self) -> None:
        self.loose: dict[Follower, None] = {}  # whose groups have changed since
        self._known: dict[tuple[Followed, ...], Cohort] = {}

    def __len__(self) -> int:
        return len(self._known)

    def settle(self) -> None:
        """Move every loose member to the cohort of its groups.  Cost: O(loose members and their groups)."""
        loose = list(self.loose)
        self.loose.clear()
        for member in loose:
            fast = [] if member.gone else [group for group in member.following if member in group.fast]
            groups = tuple(sorted(fast, key=attrgetter("number")))
            if member.cohort is None or member.cohort.groups != groups:
                self._part(member)
                self._join(member, groups)

    def settle_gone(self) -> None:
        """Forget who has ended; the others are settled when a round begins."""
        for member in [member for member in self.loose if member.gone]:
            del self.loose[member]
            self._part(member)

    def _join(self, member: Follower, groups: tuple[Followed, ...]) -> None:
        if not groups:
            return
        cohort = self._known.get(groups)
        if cohort is None:
            cohort = self._known[groups] = Cohort(groups)
            for group in groups:
                group.cohorts[cohort] = None
        cohort.members[member] = None
        member.cohort = cohort

    def _part(self, member: Follower) -> None:
        cohort, member.cohort = member.cohort, None
        if cohort is None:
            return
        del cohort.members[member]
        if not cohort.members:
            del self._known[cohort.groups]
            for group in cohort.groups:
                del group.cohorts[cohort]


class Cork:
    """What the groups of one round have to say, by cohort; it is written when all have spoken."""

    __slots__ = ("late", "parts")

    def __init__(self) -> None:
        self.parts: defaultdict[Cohort, list[Part]] = defaultdict(list)
        self.late: dict[Followed, bool] = {}  # groups with members to bring up, and whether they spoke

    def lay(self, group: Followed, parts: list[Part]) -> None:
        """Lay down a group's parts for everybody who follows it at once."""
        for cohort in group.cohorts:
            self.parts[cohort] += parts
