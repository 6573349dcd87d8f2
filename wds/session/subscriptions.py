"""Decides what a client may join: checks names, expands patterns, gives each channel its outcome, and keeps to the cap.

Invariant: a name leaves this file only after the catalogue knew its kind and a glob of the token covered it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import UNSET, UnsetType

from mdc.channels import Kind, UnknownChannel, kind_named, kind_of
from wds.access.tokens import Claims
from wds.fanout.channel import Names
from wds.fanout.member import Want
from wds.protocol import TIERS, Error, GetOutcome, Hz, Since, Sub, SubOutcome, error

OVER = error("limit")  # hundreds of names beyond the cap: why was said with the first


class Ask(NamedTuple):
    """How a channel is asked for; `fields` None = all."""

    hz: Hz
    fields: frozenset[str] | None

    def __or__(self, other: object) -> Ask:
        """Return what serves both: the quicker rate, the fields of either."""
        assert isinstance(other, Ask)
        fields = None if self.fields is None or other.fields is None else self.fields | other.fields
        return Ask(min(self.hz, other.hz, key=TIERS.index), fields)


@dataclass
class Pattern:
    """A `kind:*` subscription: how it asks, whom it joined, whom the client took out again."""

    kind: Kind
    ask: Ask
    joined: set[str] = field(default_factory=set)
    excluded: set[str] = field(default_factory=set)
    seen: Sequence[str] = ()


@dataclass
class Selection:
    """What a command means for the hub: what to leave, then what to join, and the outcomes known (None = the hub says).

    A channel whose rate or fields change is left and joined: it begins anew with a snap.
    """

    left: dict[str, None] = field(default_factory=dict)
    joined: dict[str, Want] = field(default_factory=dict)
    outcomes: dict[str, SubOutcome | None] = field(default_factory=dict)
    full: bool = False  # a name was refused for want of room, and it was said why

    @property
    def leave(self) -> list[str]:
        return list(self.left)

    @property
    def wants(self) -> list[Want]:
        return list(self.joined.values())


class Subscriptions:
    """One client's subscriptions: what it asked for by name and by pattern, and what follows from both.

    Invariant: `channels` has a channel if and only if it was asked for by name or a pattern joined it, with what serves both.
    """

    __slots__ = ("_subs_max", "channels", "named", "patterns")

    def __init__(self, subs_max: int) -> None:
        self.channels: dict[str, Ask] = {}
        self.named: dict[str, Ask] = {}
        self.patterns: dict[str, Pattern] = {}
        self._subs_max = subs_max

    def select(self, sub: Sub, hz: Hz, claims: Claims, known: Names | None) -> Selection:
        """Check and register every channel of `sub`; `known` None = the cache cannot list channels now."""
        picked = Selection()
        ask = Ask(hz, None if isinstance(sub.fields, UnsetType) else frozenset(sub.fields))
        since = {} if isinstance(sub.since, UnsetType) else sub.since
        for name in dict.fromkeys(sub.ch):
            if is_pattern(name):
                self._select_pattern(picked, name, ask, claims, known, since)
            else:
                self._select_one(picked, name, ask, claims, since)
        return picked

    def _select_one(self, picked: Selection, name: str, ask: Ask, claims: Claims, since: Mapping[str, Since]) -> None:
        refused = refusal(name, claims) or _bad_fields(name, ask.fields)
        if refused is None and self.named.get(name) == ask:
            refused = error("already_subscribed", "with the same rate and fields")
        if refused is None and name not in self.channels and len(self.channels) >= self._subs_max:
            refused = OVER if picked.full else error("limit", f"at most {self._subs_max} subscriptions")
            picked.full = True
        if refused is not None:
            picked.outcomes[name] = SubOutcome(name, error=refused)
            return
        self.named[name] = ask
        self._settle(picked, name, since.get(name))

    def _settle(self, picked: Selection, name: str, since: Since | None = None) -> None:
        """Bring one channel to what is asked for now; its outcome is the hub's unless nothing changes."""
        before, ask = self.channels.get(name), self._ask_of(name)
        if ask == before:
            if ask is not None:
                picked.outcomes.setdefault(name, SubOutcome(name, ask.hz))
            return
        if before is not None and picked.joined.pop(name, None) is None:
            picked.left[name] = None  # the hub has it; one that was to be joined just now it has not
        if ask is None:
            del self.channels[name]
            return
        self.channels[name] = ask
        picked.outcomes[name] = None
        picked.joined[name] = Want(name, ask.hz, ask.fields, since)

    def _ask_of(self, name: str) -> Ask | None:
        ask = self.named.get(name)
        for pattern in self.patterns.values():
            if name in pattern.joined:
                return pattern.ask if ask is None else ask | pattern.ask
        return ask

    def _select_pattern(
        self, picked: Selection, name: str, ask: Ask, claims: Claims, known: Names | None, since: Mapping[str, Since]
    ) -> None:
        refused = pattern_refusal(name, claims) or _bad_fields(name, ask.fields)
        before = self.patterns.get(name)
        if refused is None and before is not None and before.ask == ask:
            refused = error("already_subscribed", "with the same rate and fields")
        if refused is None and known is None:
            refused = error("unavailable", "the channels cannot be listed now")
        if refused is not None:
            picked.outcomes[name] = SubOutcome(name, error=refused)
            return
        pattern = self.patterns[name] = Pattern(_kind_of_pattern(name), ask)
        names = (known or {}).get(pattern.kind.name, ())
        gone = before.joined.difference(names) if before is not None else ()
        left_out = self._expand(pattern, names, claims)
        for channel in gone:
            self._settle(picked, channel)
        self._settle_all(picked, pattern, names, since)
        over = error("limit", f"{left_out} more channels match; at most {self._subs_max} subscriptions") if left_out else UNSET
        picked.outcomes[name] = SubOutcome(name, ask.hz, matched=len(pattern.joined), error=over)

    def _settle_all(self, picked: Selection, pattern: Pattern, names: Sequence[str], since: Mapping[str, Since]) -> None:
        # Thousands of names in one turn: those that nothing else asks for, nearly all, take the short way.
        joined, channels, ask = pattern.joined, self.channels, pattern.ask
        for name in names:
            if name in channels:
                self._settle(picked, name, since.get(name))
            elif name in joined:
                channels[name] = ask
                picked.outcomes[name] = None
                picked.joined[name] = Want(name, ask.hz, ask.fields, since.get(name))

    def _expand(self, pattern: Pattern, names: Sequence[str], claims: Claims) -> int:
        """Let the pattern join what it may; return how many are left out for want of room."""
        pattern.seen = names
        operators_only = pattern.kind.operators_only
        fresh = [name for name in names if name not in pattern.joined and name not in pattern.excluded]
        if f"{pattern.kind.name}:*" not in claims.globs and (operators_only or "*" not in claims.globs):
            fresh = [name for name in fresh if claims.allows(name, operators_only)]
        pattern.joined.update([name for name in fresh if name in self.channels])
        fresh = [name for name in fresh if name not in self.channels]
        room = max(0, self._subs_max - len(self.channels))
        pattern.joined.update(fresh[:room])
        return max(0, len(fresh) - room)

    def widen(self, kind: str, names: Sequence[str], claims: Claims) -> Selection:
        """Return what the pattern of `kind` joins now that `names` are known; nothing when they were seen already."""
        picked = Selection()
        pattern = self.patterns.get(f"{kind}:*")
        if pattern is not None and pattern.seen is not names:
            before = set(pattern.joined)
            self._expand(pattern, names, claims)
            for name in names:
                if name in pattern.joined and name not in before:
                    self._settle(picked, name)
        return picked

    def retune(self, hz: Hz) -> None:
        """Everything asked for comes at the new rate, also what patterns join later. The hub moves what is there."""
        for pattern in self.patterns.values():
            pattern.ask = pattern.ask._replace(hz=hz)
        for asks in (self.named, self.channels):
            asks.update({name: ask._replace(hz=hz) for name, ask in asks.items()})

    def release(self, name: str, picked: Selection) -> int | None:
        """Take back what was asked for by this name or pattern; return how many channels that was, None when nothing was.

        What something else asks for stays, as that asks for it. A channel that only a pattern joined stays out of it from now.
        """
        pattern = self.patterns.pop(name, None)
        if pattern is not None:
            for channel in sorted(pattern.joined):
                self._settle(picked, channel)
            return len(pattern.joined)
        if name not in self.channels:
            return None
        if self.named.pop(name, None) is None:
            for other in self.patterns.values():
                if name in other.joined:
                    other.joined.discard(name)
                    other.excluded.add(name)
        self._settle(picked, name)
        return 1

    def forget(self, name: str) -> None:
        """The hub has not taken a channel: nobody asks for it."""
        self.channels.pop(name, None)
        self.named.pop(name, None)
        for pattern in self.patterns.values():
            pattern.joined.discard(name)

    def forbid(self, claims: Claims) -> list[str]:
        """Forget what narrower claims no longer cover; return the channels to leave."""
        gone = sorted(name for name in self.channels if not claims.allows(name, kind_of(name).operators_only))
        for name in gone:
            self.forget(name)
        for pattern in [name for name in self.patterns if pattern_refusal(name, claims) is not None]:
            del self.patterns[pattern]
        return gone


def is_pattern(name: str) -> bool:
    """Whether a name is `kind:*`."""
    return name.endswith(":*")


def kinds_to_list(names: Sequence[str]) -> list[str]:
    """Return the kinds whose channels must be known to expand the patterns in `names`."""
    return sorted({name[:-2] for name in names if is_pattern(name) and kind_named(name[:-2]) is not None})


def refusal(name: str, claims: Claims) -> Error | None:
    """Return why a single channel is refused, None when it is not."""
    try:
        kind = kind_of(name)
    except UnknownChannel:
        return error("unknown_channel", "the catalogue has no such channel")
    if not claims.allows(name, kind.operators_only):
        return error("forbidden", "the token does not cover this channel")
    return None


def pattern_refusal(name: str, claims: Claims) -> Error | None:
    """Return why a pattern is refused: an unknown kind, or one of which the token covers nothing."""
    kind = kind_named(name[:-2])
    if kind is None:
        return error("unknown_channel", "patterns are kind:*; the catalogue has no such kind")
    prefix = f"{kind.name}:"
    may = [glob for glob in claims.globs if glob.startswith(prefix) or (_reaches(glob, prefix) and not kind.operators_only)]
    return None if may else error("forbidden", "the token covers no channel of this kind")


def _kind_of_pattern(name: str) -> Kind:
    kind = kind_named(name[:-2])
    assert kind is not None, "a pattern of an unknown kind was refused"
    return kind


def _reaches(glob: str, prefix: str) -> bool:
    head = glob.partition("*")[0]
    return "*" in glob and prefix.startswith(head)


def _bad_fields(name: str, fields: frozenset[str] | None) -> Error | None:
    if fields is None:
        return None
    kind = _kind_of_pattern(name) if is_pattern(name) else kind_of(name)
    if kind.plugin:
        return None  # its fields are the plug-in's business
    known = {*kind.fields, "history"} if kind.mode == "merge" and kind.keep else set(kind.fields)
    bad = sorted(fields - known)
    return error("bad_request", f"no such fields of {kind.name}: {', '.join(bad)[:200]}") if bad else None


@dataclass
class GetPlan:
    """What a get reads: each name with why it is refused (None = read it), in order."""

    names: dict[str, Error | None] = field(default_factory=dict)
    by_pattern: dict[str, str] = field(default_factory=dict)  # names that only a pattern brought → the pattern
    matched: dict[str, int] = field(default_factory=dict)  # pattern → how many channels it has

    @property
    def wanted(self) -> list[str]:
        """The channels to read."""
        return [name for name, refused in self.names.items() if refused is None]

    def outcomes(self, read: Mapping[str, GetOutcome]) -> list[GetOutcome]:
        """Return the lines of the reply. What was not read is told name by name, or as a number of the pattern's."""
        snaps, left = [], dict.fromkeys(self.matched, 0)
        for name, refused in self.names.items():
            if refused is not None:
                snaps.append(GetOutcome(name, error=refused))
            elif name in read:
                snaps.append(read[name])
            elif name in self.by_pattern:
                left[self.by_pattern[name]] += 1
            else:
                snaps.append(GetOutcome(name, error=FULL))
        return snaps + [
            GetOutcome(name, matched=self.matched[name], error=_cut(self.matched[name], n)) for name, n in left.items() if n
        ]


FULL = error("limit", "the reply is full")


def _cut(matched: int, left: int) -> Error:
    return error("limit", f"{left} of {matched} channels left out: ask for them by name, or with a limit")


def expand_for_get(names: Sequence[str], claims: Claims, known: Names | None, most: int) -> GetPlan:
    """Return what a get reads; patterns are expanded, to at most `most` channels in all."""
    plan = GetPlan({name: refusal(name, claims) for name in dict.fromkeys(names) if not is_pattern(name)})
    for pattern in dict.fromkeys(filter(is_pattern, names)):
        refused = pattern_refusal(pattern, claims)
        if refused is None and known is None:
            refused = error("unavailable", "the channels cannot be listed now")
        found = [] if refused else [name for name in (known or {}).get(pattern[:-2], ()) if refusal(name, claims) is None]
        if refused is None and not found:
            refused = error("unavailable", "no channel matches yet")
        if refused is not None:
            plan.names[pattern] = refused
            continue
        plan.matched[pattern] = len(found)
        for name in found:
            if name not in plan.names:
                plan.by_pattern[name] = pattern
                plan.names[name] = None
    for name in plan.wanted[most:]:
        if name not in plan.by_pattern:
            plan.names[name] = FULL
    return plan
