"""Feeds a session arbitrary and near-valid frames: only documented replies, close codes and actions may follow."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wds.access.tokens import Claims, KeyRing, TokenRefused
from wds.fanout.freshness import LIVE
from wds.protocol import CLOSE_CODES, Code, GetOutcome, SubOutcome
from wds.session.session import Again, Close, Fetch, Join, Leave, ListKinds, Send, Session, SessionLimits, Shape, Tune, Verify

CODES = set(get_args(Code))
ACTIONS = (Shape, Again, Send, Close, Verify, ListKinds, Join, Leave, Fetch, Tune)
CHANNELS = st.sampled_from([
    "quote:A", "quote:*", "board:*", "board:gainers", "trades:A", "bars:1m:A", "bars:1m:*", "status:pipeline", "*", ":", "ch:quote:A",
    "quote:\u0000", "nope:*", "x" * 96, "admin:x",
])  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
COMMANDS = st.fixed_dictionaries(
    {"op": st.sampled_from(["auth", "sub", "unsub", "get", "set", "pong", "jump"])},
    optional={
        "id": st.one_of(st.integers(0, 9), st.text(max_size=70), VALUES),
        "token": st.one_of(st.text(max_size=30), VALUES),
        "form": st.one_of(st.sampled_from(["compact", "json"]), VALUES),
        "ch": st.one_of(st.lists(CHANNELS, max_size=5), VALUES),
        "hz": st.one_of(st.sampled_from(["raw", 10, 4, 1, 0.2, "0.2", 3]), VALUES),
        "fields": st.one_of(st.lists(st.sampled_from(["last", "close", "history", "?"]), max_size=3), VALUES),
        "since": st.one_of(
            st.dictionaries(CHANNELS, st.fixed_dictionaries({"epoch": st.just("e"), "seq": st.integers(0, 9)}), max_size=2),
            VALUES,
        ),
        "limit": st.one_of(st.integers(1, 50), VALUES),
        "paused": st.one_of(st.booleans(), VALUES),
    },
)
FRAMES = st.one_of(
    st.binary(max_size=60),
    VALUES.map(lambda value: json.dumps(value).encode()),
    COMMANDS.map(lambda value: json.dumps(value).encode()),
    st.lists(COMMANDS, max_size=4).map(lambda value: json.dumps(value).encode()),
    st.just(b"[" * 3000), st.just(b'{"op":' * 2000), st.just(b'{"a":' + b"[" * 2500),
)  # fmt: skip


class World:
    """Answers every question of a session at once, some of them badly."""

    def __init__(self, choices: Any) -> None:
        self.session = Session("conn", SessionLimits(violations_max=20), 0)
        self.choices = choices
        self.now = 0
        self.codes: list[int] = []

    def carry_out(self, actions: list[Any]) -> None:
        waiting = list(actions)
        while waiting:
            action = waiting.pop(0)
            assert isinstance(action, ACTIONS)
            if isinstance(action, Send):
                self.check(json.loads(action.payload))
            elif isinstance(action, Close):
                self.codes.append(action.code)
            else:
                waiting += self.answer(action)

    def answer(self, action: Any) -> list[Any]:
        session = self.session
        if isinstance(action, Verify):
            if self.choices.draw(st.integers(0, 9)) == 0:
                return session.on_refused(TokenRefused("unauthorized", "no"), self.now)
            return session.on_verified(Claims("u", 0, "j", ("quote:*", "board:*", "bars:*")), 1e6, self.now)
        if isinstance(action, ListKinds):
            known = {kind: (f"{kind}:A", f"{kind}:B") for kind in action.kinds}
            return session.on_listed(self.choices.draw(st.sampled_from([known, None, {}])))
        if isinstance(action, Join):
            reply, then = session.on_joined([SubOutcome(want.channel, want.hz) for want in action.wants])
            return [*reply, *then()]
        if isinstance(action, Fetch):
            return session.on_fetched({name: GetOutcome(name, "e", 1, 1) for name in action.channels})
        if isinstance(action, Tune):
            return session.on_tuned(action.id, LIVE)
        if isinstance(action, Again):
            return session.again()
        return []

    def check(self, frame: Any) -> None:
        for item in frame if isinstance(frame, list) else [frame]:
            assert ("t" in item) != ("ok" in item)
            if item.get("ok") is False:
                assert item["error"]["code"] in CODES
            for part in (*item.get("subs", ()), *item.get("snaps", ())):
                assert "error" not in part or part["error"]["code"] in CODES


@given(frames=st.lists(FRAMES, max_size=15), choices=st.data())
@settings(max_examples=400, deadline=None)
def test_only_documented_answers_leave_a_session(frames: list[bytes], choices: Any) -> None:
    """Whatever a client sends, it gets documented errors, at most one documented close code, and no exception escapes."""
    world = World(choices)
    world.carry_out(world.session.open())
    for frame in frames:
        world.now += 10_000_000
        world.carry_out(world.session.receive(frame, world.now))
        world.carry_out(world.session.on_time(world.now, 0))
    assert len(world.codes) <= 1
    assert set(world.codes) <= set(CLOSE_CODES)
    assert len(world.session.subscriptions.channels) <= 200


@given(st.one_of(st.text(max_size=200), st.binary(max_size=100).map(lambda data: data.decode("latin-1"))))
@settings(max_examples=200, deadline=None)
def test_only_refusals_leave_the_key_ring(token: str) -> None:
    """No text makes token verification fail in any other way."""
    with pytest.raises(TokenRefused) as refused:
        KeyRing().verify(token, 0)
    assert refused.value.code in CODES
