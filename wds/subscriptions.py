"""Decides what a client may join: checks names, expands patterns, gives each channel its outcome, and keeps to the cap.

Invariant: a name leaves this file only after the catalogue knew its kind and a glob of the token covered it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import UNSET, UnsetType

from mdc.channels import KINDS, Kind, UnknownChannel, kind_of
from wds.member import Want
from wds.protocol import Error, GetOutcome, Hz, Since, Sub, SubOutcome, error
from wds.tokens import Claims

Names = Mapping[str, Sequence[str]]  # kind → its known channels


@dataclass
class Pattern:
    """A `kind:*` subscription: how it joins, whom it joined, whom the client took out again."""

    kind: Kind
    hz: Hz
    fields: frozenset[str] | None
    joined: set[str] = field(default_factory=set)
    excluded: set[str] = field(default_factory=set)
    seen: Sequence[str] = ()


@dataclass
class Selection:
    """The result of a sub command: what to join, and the outcomes already known (None = the hub will say)."""

    wants: list[Want] = field(default_factory=list)
    outcomes: dict[str, SubOutcome | None] = field(default_factory=dict)


class Subscriptions:
    """One client's subscriptions and patterns."""

    __slots__ = ("_subs_max", "channels", "patterns")

    def __init__(self, subs_max: int) -> None:
        self.channels: set[str] = set()
        self.patterns: dict[str, Pattern] = {}
        self._subs_max = subs_max

    def select(self, sub: Sub, hz: Hz, claims: Claims, known: Names | None) -> Selection:
        """Check and register every channel of `sub`; `known` None = the cache cannot list channels now."""
        picked = Selection()
        fields = None if isinstance(sub.fields, UnsetType) else frozenset(sub.fields)
        since = {} if isinstance(sub.since, UnsetType) else sub.since
        for name in dict.fromkeys(sub.ch):
            if is_pattern(name):
                self._select_pattern(picked, name, hz, fields, claims, known, since)
            else:
                self._select_one(picked, name, hz, fields, claims, since)
        return picked

    def _select_one(
        self, picked: Selection, name: str, hz: Hz, fields: frozenset[str] | None, claims: Claims, since: Mapping[str, Since]
    ) -> None:
        refused = refusal(name, claims) or _bad_fields(name, fields)
        if refused is None and name in self.channels:
            refused = error("already_subscribed", "unsub first to change it")
        if refused is None and len(self.channels) >= self._subs_max:
            refused = error("limit", f"at most {self._subs_max} subscriptions")
        if refused is not None:
            picked.outcomes[name] = SubOutcome(name, error=refused)
            return
        self.channels.add(name)
        picked.outcomes[name] = None
        picked.wants.append(Want(name, hz, fields, since.get(name)))

    def _select_pattern(
        self,
        picked: Selection,
        name: str,
        hz: Hz,
        fields: frozenset[str] | None,
        claims: Claims,
        known: Names | None,
        since: Mapping[str, Since],
    ) -> None:
        refused = pattern_refusal(name, claims) or _bad_fields(name, fields)
        if refused is None and name in self.patterns:
            refused = error("already_subscribed", "unsub first to change it")
        if refused is None and known is None:
            refused = error("unavailable", "the channels cannot be listed now")
        if refused is not None:
            picked.outcomes[name] = SubOutcome(name, error=refused)
            return
        pattern = self.patterns[name] = Pattern(KINDS[name[:-2]], hz, fields)
        wants, left_out = self._expand(pattern, (known or {}).get(pattern.kind.name, ()), claims, since)
        picked.outcomes.update({want.channel: None for want in wants})
        picked.wants += wants
        over = error("limit", f"{left_out} more channels match; at most {self._subs_max} subscriptions") if left_out else UNSET
        picked.outcomes[name] = SubOutcome(name, hz, matched=len(wants), error=over)

    def _expand(
        self, pattern: Pattern, names: Sequence[str], claims: Claims, since: Mapping[str, Since]
    ) -> tuple[list[Want], int]:
        pattern.seen = names
        fresh = [
            name
            for name in names
            if name not in self.channels and name not in pattern.excluded and claims.allows(name, pattern.kind.operators_only)
        ]
        room = max(0, self._subs_max - len(self.channels))
        taken = fresh[:room]
        self.channels.update(taken)
        pattern.joined.update(taken)
        return [Want(name, pattern.hz, pattern.fields, since.get(name)) for name in taken], len(fresh) - len(taken)

    def widen(self, kind: str, names: Sequence[str], claims: Claims) -> list[Want]:
        """Return what the pattern of `kind` joins now that `names` are known; nothing when they were seen already."""
        pattern = self.patterns.get(f"{kind}:*")
        if pattern is None or pattern.seen is names:
            return []
        return self._expand(pattern, names, claims, {})[0]

    def retune(self, hz: Hz) -> None:
        """Channels that patterns join later come at the new rate, too."""
        for pattern in self.patterns.values():
            pattern.hz = hz

    def release(self, name: str) -> list[str] | None:
        """Forget a channel or a pattern; return the channels to leave, None when it was not subscribed."""
        pattern = self.patterns.pop(name, None)
        if pattern is not None:
            gone = sorted(pattern.joined & self.channels)
            self.channels.difference_update(gone)
            return gone
        if name not in self.channels:
            return None
        self.channels.discard(name)
        for other in self.patterns.values():
            if name in other.joined:
                other.joined.discard(name)
                other.excluded.add(name)
        return [name]

    def forbid(self, claims: Claims) -> list[str]:
        """Forget what narrower claims no longer cover; return the channels to leave."""
        gone = sorted(name for name in self.channels if not claims.allows(name, kind_of(name).operators_only))
        self.channels.difference_update(gone)
        for name in [name for name in self.patterns if pattern_refusal(name, claims) is not None]:
            del self.patterns[name]
        return gone


def is_pattern(name: str) -> bool:
    """Whether a name is `kind:*`."""
    return name.endswith(":*")


def kinds_to_list(names: Sequence[str]) -> list[str]:
    """Return the kinds whose channels must be known to expand the patterns in `names`."""
    return sorted({name[:-2] for name in names if is_pattern(name) and name[:-2] in KINDS})


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
    kind = KINDS.get(name[:-2])
    if kind is None:
        return error("unknown_channel", "patterns are kind:*; the catalogue has no such kind")
    prefix = f"{kind.name}:"
    may = [glob for glob in claims.globs if glob.startswith(prefix) or (_reaches(glob, prefix) and not kind.operators_only)]
    return None if may else error("forbidden", "the token covers no channel of this kind")


def _reaches(glob: str, prefix: str) -> bool:
    head = glob.partition("*")[0]
    return "*" in glob and prefix.startswith(head)


def _bad_fields(name: str, fields: frozenset[str] | None) -> Error | None:
    if fields is None:
        return None
    kind = KINDS[name[:-2]] if is_pattern(name) else kind_of(name)
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
