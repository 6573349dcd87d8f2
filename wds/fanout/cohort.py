"""Finds the members that follow exactly the same groups of a round: what it says to one of them is, byte for byte, for all.

A round is one phase of a rate: pages that differ in a symbol still share the rounds in which that symbol is not.
Invariant: after `settle(round)` each member with fast groups in it is in the one cohort of exactly these groups. Between two
settlements a member may only lose groups (it was demoted): then it is not ready, and `pieces.hand_over` puts its chains back.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Protocol

from wds.fanout.pieces import Part, Piece, Recipient, Wrap, cut, hand_over
from wds.protocol import Hz

Round = tuple[Hz, int]  # a rate and one of its phases


class Followed(Protocol):
    """A group as its cohorts see it."""

    number: int
    hz: Hz
    phase: int
    cohorts: dict[Cohort, None]
    wrap: Wrap

    @property
    def fast(self) -> Mapping[Recipient, object]: ...

    def bring_late(self, spoke: bool) -> int: ...


class Follower(Recipient, Protocol):
    """A member as its cohorts see it."""

    cohorts: dict[Round, Cohort]

    @property
    def following(self) -> Iterable[Followed]: ...


class Cohort:
    """Members of the same groups of a round, and therefore of one form."""

    __slots__ = ("groups", "members")

    def __init__(self, groups: tuple[Followed, ...]) -> None:
        self.groups = groups
        self.members: dict[Follower, None] = {}


class Cohorts:
    """All cohorts of a worker."""

    __slots__ = ("_known", "loose", "readers")

    def __init__(self) -> None:
        self.loose: dict[Round, dict[Follower, None]] = defaultdict(dict)  # whose groups of a round have changed since
        self.readers: Counter[Round] = Counter()  # how many members are written to in each round
        self._known: dict[tuple[Followed, ...], Cohort] = {}

    def __len__(self) -> int:
        return len(self._known)

    def settle(self, round_: Round) -> None:
        """Move every loose member to the cohort of its groups.  Cost: O(loose members and their groups)."""
        loose = self.loose[round_]
        if not loose:
            return
        self.loose[round_] = {}
        hz, phase = round_
        for member in loose:
            groups: tuple[Followed, ...] = ()
            if member.ready:  # who is not has no fast groups
                fast = [one for one in member.following if one.phase == phase and one.hz == hz and member in one.fast]
                groups = tuple(sorted(fast, key=attrgetter("number")))
            cohort = member.cohorts.get(round_)
            if cohort is None or cohort.groups != groups:
                self._part(member, round_)
                self._join(member, round_, groups)

    def forget(self, member: Follower) -> None:
        """The member has ended."""
        for round_ in list(member.cohorts):
            self._part(member, round_)
        for loose in self.loose.values():
            loose.pop(member, None)

    def _join(self, member: Follower, round_: Round, groups: tuple[Followed, ...]) -> None:
        if not groups:
            return
        cohort = self._known.get(groups)
        if cohort is None:
            cohort = self._known[groups] = Cohort(groups)
            for group in groups:
                group.cohorts[cohort] = None
        cohort.members[member] = None
        member.cohorts[round_] = cohort
        self.readers[round_] += 1

    def _part(self, member: Follower, round_: Round) -> None:
        cohort = member.cohorts.pop(round_, None)
        if cohort is None:
            return
        del cohort.members[member]
        self.readers[round_] -= 1
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


def deliver(cork: Cork) -> None:
    """Write what was laid down in one round: made once for all members of a cohort."""
    for cohort, parts in cork.parts.items():
        pieces = cut(parts, cohort.groups[0].wrap)
        whole = pieces[0].blob if len(pieces) == 1 else None
        for member in cohort.members:  # who is demoted by a write stays in it until the next round
            if whole is not None and member.ready:
                member.write(whole)
            else:
                hand_over(member, pieces)


def deliver_together(cork: Cork) -> None:
    """Write what was laid down in several rounds: to each member all of it at once, made once for all of the same cohorts."""
    mail: defaultdict[Follower, list[Cohort]] = defaultdict(list)
    for cohort in cork.parts:
        for member in cohort.members:
            mail[member].append(cohort)
    made: dict[tuple[Cohort, ...], list[Piece]] = {}
    for member, cohorts in mail.items():
        key = tuple(cohorts)
        pieces = made.get(key)
        if pieces is None:
            pieces = cut([part for cohort in cohorts for part in cork.parts[cohort]], cohorts[0].groups[0].wrap)
            # What only one member gets is let go at once: kept until the end it would be 16 MB a tick for 1,000 of them.
            if all(len(cohort.members) > 1 for cohort in cohorts):
                made[key] = pieces
        hand_over(member, pieces)
