"""Random commands against a plain model: names, patterns, rates and fields may overlap in every way."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wds.access.tokens import Claims
from wds.protocol import TIERS, Sub
from wds.session.subscriptions import Ask, Selection, Subscriptions

SYMBOLS = [f"S{n}" for n in range(6)]
KINDS = ("quote", "trades")
FIELDS: dict[str, list[Any]] = {"quote": [None, ["last"], ["last", "bid"], ["ask"]], "trades": [None, ["price"], ["size"]]}
ALL = Claims("u", 0, "j", ("*",))


class Plain:
    """What must follow, computed anew from everything that was asked for and not taken back."""

    def __init__(self) -> None:
        self.named: dict[str, tuple[Any, Any]] = {}
        self.patterns: dict[str, tuple[Any, Any]] = {}
        self.excluded: set[str] = set()

    def following(self, known: dict[str, list[str]]) -> dict[str, tuple[Any, Any]]:
        found = dict(self.named)
        for pattern, ask in self.patterns.items():
            for name in known[pattern[:-2]]:
                if name not in self.excluded:
                    found[name] = both(found[name], ask) if name in self.named else ask
        return found


def both(one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[Any, Any]:
    """The quicker rate, the fields of either."""
    hz = next(tier for tier in TIERS if tier in (one[0], other[0]))
    return hz, None if one[1] is None or other[1] is None else sorted({*one[1], *other[1]})


class Run:
    """One client's life; `hub` is what the selections made of the hub."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.subs = Subscriptions(10_000)
        self.plain = Plain()
        self.hub: dict[str, Ask] = {}
        self.known = {kind: [f"{kind}:{sym}" for sym in SYMBOLS[: self.dice.randint(0, 4)]] for kind in KINDS}

    def carry_out(self, picked: Selection) -> None:
        for name in picked.leave:
            del self.hub[name]  # nothing is left that is not there
        for want in picked.wants:
            assert want.channel not in self.hub, "joined twice"
            self.hub[want.channel] = Ask(want.hz, want.fields)

    def ask(self) -> None:
        kind = self.dice.choice(KINDS)
        names = self.dice.sample([f"{kind}:*", *(f"{kind}:{sym}" for sym in SYMBOLS)], self.dice.randint(1, 4))
        hz, fields = self.dice.choice(TIERS), self.dice.choice(FIELDS[kind])
        sub = Sub(names) if fields is None else Sub(names, fields=fields)
        picked = self.subs.select(sub, hz, ALL, {kind: tuple(names) for kind, names in self.known.items()})
        for name in names:
            refused = picked.outcomes[name]
            repeated = (self.plain.patterns if name.endswith(":*") else self.plain.named).get(name) == (hz, fields)
            assert repeated or refused is None or not refused.error
            if repeated:
                continue
            if name.endswith(":*"):
                self.plain.patterns[name] = (hz, fields)
                self.plain.excluded -= {one for one in self.plain.excluded if one.startswith(f"{kind}:")}
            else:
                self.plain.named[name] = (hz, fields)
        self.carry_out(picked)

    def take_back(self) -> None:
        kind = self.dice.choice(KINDS)
        picked = Selection()
        for name in self.dice.sample([f"{kind}:*", *(f"{kind}:{sym}" for sym in SYMBOLS)], self.dice.randint(1, 3)):
            following = self.plain.following(self.known)
            was = name in following or name in self.plain.patterns
            assert (self.subs.release(name, picked) is not None) == was
            if name.endswith(":*"):
                if self.plain.patterns.pop(name, None) is not None:
                    self.plain.excluded -= {one for one in self.plain.excluded if one.startswith(f"{kind}:")}
            elif self.plain.named.pop(name, None) is None and was:
                self.plain.excluded.add(name)
        self.carry_out(picked)

    def grow(self) -> None:
        kind = self.dice.choice(KINDS)
        self.known[kind] = [f"{kind}:{sym}" for sym in SYMBOLS[: min(len(SYMBOLS), len(self.known[kind]) + 1)]]
        self.carry_out(self.subs.widen(kind, tuple(self.known[kind]), ALL))

    def retune(self) -> None:
        hz = self.dice.choice(TIERS)
        self.subs.retune(hz)
        for asks in (self.plain.named, self.plain.patterns):
            asks.update({name: (hz, ask[1]) for name, ask in asks.items()})
        self.hub = {name: Ask(hz, ask.fields) for name, ask in self.hub.items()}

    def check(self) -> None:
        expected = {
            name: Ask(hz, None if fields is None else frozenset(fields))
            for name, (hz, fields) in self.plain.following(self.known).items()
        }
        assert self.hub == expected
        assert self.subs.channels == expected


@given(seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_what_is_followed_is_what_was_asked_for_and_not_taken_back(seed: int) -> None:
    """After every command each channel has the quickest rate and all fields that anything still asks for, or is gone."""
    run = Run(seed)
    for _ in range(40):
        run.dice.choice((run.ask, run.ask, run.take_back, run.grow, run.retune))()
        run.check()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_the_cap_holds_whatever_overlaps(seed: int) -> None:
    """Never more than the cap, the hub always as the session thinks it is, and room is given back."""
    run = Run(seed)
    run.subs = Subscriptions(4)
    for _ in range(40):
        kind = run.dice.choice(KINDS)
        name = run.dice.choice([f"{kind}:*", *(f"{kind}:{sym}" for sym in SYMBOLS)])
        picked = Selection()
        if run.dice.random() < 0.6:
            picked = run.subs.select(Sub([name]), run.dice.choice(TIERS), ALL, {kind: tuple(run.known[kind])})
        else:
            run.subs.release(name, picked)
        run.carry_out(picked)
        assert len(run.subs.channels) <= 4
        assert run.subs.channels == run.hub
