"""Drives one session by hand, with its own clock, and checks the actions it returns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wds.access.tokens import Claims, TokenRefused
from wds.fanout.freshness import LIVE
from wds.protocol import GetOutcome, SubOutcome
from wds.session.session import Close, Fetch, Join, Leave, ListKinds, Send, Session, SessionLimits, Tune, Verify

S = 1_000_000_000
ALL = Claims("u", 10_000, "j", ("*",))


def said(actions: list[Any]) -> list[Any]:
    """What the actions send, decoded."""
    return [json.loads(action.payload) for action in actions if isinstance(action, Send)]


def kinds(actions: list[Any]) -> list[type]:
    return [type(action) for action in actions]


def send(session: Session, *commands: Any, now: int = 0) -> list[Any]:
    return session.receive(json.dumps(commands[0] if len(commands) == 1 else commands).encode(), now)


def known(**limits: Any) -> Session:
    session = Session("c", SessionLimits(**limits), 0)
    assert kinds(send(session, {"id": 1, "op": "auth", "token": "t"})) == [Verify]
    assert said(session.on_verified(ALL, 100.0, 0)) == [{"id": 1, "ok": True, "expires_s": 100}]
    return session


def test_commands_wait_for_the_one_before() -> None:
    """auth and sub in one frame: sub is looked at only once the token was judged."""
    session = Session("c", SessionLimits(), 0)
    actions = send(
        session, {"id": 1, "op": "auth", "token": "t"}, {"id": 2, "op": "sub", "ch": ["quote:A"]}, {"id": 3, "op": "set"}
    )
    assert actions == [Verify("t")]
    actions = session.on_verified(ALL, 100.0, 0)
    assert kinds(actions) == [Send, Join]
    reply, then = session.on_joined([SubOutcome("quote:A", 4)])
    assert said(reply) == [{"id": 2, "ok": True, "subs": [{"ch": "quote:A", "hz": 4}]}]
    assert kinds(then()) == [Tune]
    assert said(session.on_tuned(3, LIVE)) == [{"id": 3, "ok": True, "state": "live"}]


def test_patterns_are_listed_before_they_expand() -> None:
    """A wildcard asks for the known channels first; a cache that cannot tell makes it unavailable."""
    session = known()
    assert send(session, {"id": 2, "op": "sub", "ch": ["quote:*", "status:pipeline"]}) == [ListKinds(["quote"])]
    (join,) = session.on_listed({"quote": ("quote:A", "quote:B")})
    assert [want.channel for want in join.wants] == ["quote:A", "quote:B", "status:pipeline"]
    session.on_joined([SubOutcome(want.channel, 4) for want in join.wants])
    send(session, {"id": 3, "op": "sub", "ch": ["board:*"]})
    assert said(session.on_listed(None))[0]["subs"][0]["error"]["code"] == "unavailable"


def test_new_channels_join_a_pattern() -> None:
    """The same list joins nobody; a longer one joins the new; those unsubscribed one by one stay out."""
    session = known()
    send(session, {"op": "sub", "ch": ["quote:*"]})
    names = ("quote:A", "quote:B")
    session.on_listed({"quote": names})
    session.on_joined([SubOutcome("quote:A", 4), SubOutcome("quote:B", 4)])
    assert session.on_known("quote", names) == []
    send(session, {"op": "unsub", "ch": ["quote:A"]})
    (join,) = session.on_known("quote", ("quote:A", "quote:B", "quote:C"))
    assert [want.channel for want in join.wants] == ["quote:C"]
    assert session.on_joined([SubOutcome("quote:C", 4)])[0] == []
    leave = send(session, {"op": "unsub", "ch": ["quote:*"]})[0]
    assert leave == Leave(["quote:B", "quote:C"])


def test_get_answers_each_channel_in_order() -> None:
    """Refused channels and read ones come in the order asked."""
    session = known()
    actions = send(session, {"id": 5, "op": "get", "ch": ["quote:A", "nope", "board:volume"], "limit": 3})
    assert actions == [Fetch(["quote:A", "board:volume"], 3)]
    (reply,) = said(session.on_fetched({name: GetOutcome(name) for name in actions[0].channels}))
    assert [snap["ch"] for snap in reply["snaps"]] == ["quote:A", "nope", "board:volume"]
    assert reply["snaps"][1]["error"]["code"] == "unknown_channel"


def test_set_changes_the_default_rate() -> None:
    """hz applies to what is subscribed and to later subs without one; an unknown tier is refused."""
    session = known()
    assert send(session, {"op": "set", "hz": "0.2", "paused": True}) == [Tune(0.2, True)]
    assert send(session, {"op": "sub", "ch": ["quote:A"]})[0].wants[0].hz == 0.2
    session.on_joined([SubOutcome("quote:A", 0.2)])
    assert said(send(session, {"id": 9, "op": "set", "hz": 7}))[0]["error"]["code"] == "bad_request"


def test_a_refused_refresh_keeps_the_token_in_force() -> None:
    """Only the first token's refusal ends the connection."""
    session = known()
    send(session, {"id": 2, "op": "auth", "token": "bad"})
    assert said(session.on_refused(TokenRefused("unauthorized", "no"), 0))[0]["error"]["code"] == "unauthorized"
    assert not session.closed
    fresh = Session("c", SessionLimits(), 0)
    send(fresh, {"id": 2, "op": "auth", "token": "bad"})
    assert fresh.on_refused(TokenRefused("unavailable", "no keys"), 0)[-1] == Close(4100)


def test_the_token_runs_out() -> None:
    """One notice 60 s ahead, 4201 with after_ms at the end; a refresh in between starts over."""
    session = known(ping_s=1e6)
    assert session.on_time(39 * S, 0) == []
    assert said(session.on_time(40 * S, 0)) == [{"t": "auth_expiring", "in_s": 60}]
    assert session.on_time(41 * S, 0) == []
    send(session, {"op": "auth", "token": "t2"})
    session.on_verified(ALL, 100.0, 50 * S)
    assert session.on_time(101 * S, 0) != [Close(4201)]
    actions = session.on_time(150 * S, 0)
    assert actions[-1] == Close(4201)
    assert 0 <= said(actions)[0]["after_ms"] < 1000


def test_pings_must_be_answered() -> None:
    """Any frame is an answer; silence over a whole period is 4112."""
    session = known(ping_s=20)
    assert said(session.on_time(20 * S, 7)) == [{"t": "ping", "ts": 7}]
    send(session, {"op": "pong"}, now=21 * S)
    assert said(session.on_time(40 * S, 8))[-1]["t"] == "ping"
    assert session.on_time(60 * S, 9)[-1] == Close(4112)


def test_no_token_in_time() -> None:
    """4008 after the deadline."""
    session = Session("c", SessionLimits(auth_s=5), 0)
    assert session.on_time(4 * S, 0) == []
    assert session.on_time(5 * S, 0)[-1] == Close(4008)
    assert session.receive(b'{"op":"pong"}', 6 * S) == []


@pytest.mark.parametrize(
    "frame", [b"", b"nope", b"7", b"[1]", b'{"op":"x"}', b'{"op":"sub"}', b'{"op":"sub","ch":[]}', b"[" * 5000]
)
def test_malformed_frames_are_bad_requests(frame: bytes) -> None:
    """Each gets an error reply; too many of them are abuse."""
    session = known(violations_max=3)
    assert said(session.receive(frame, 0))[0]["error"]["code"] == "bad_request"
    for _ in range(5):
        actions = session.receive(frame, 0)
    assert session.closed
    assert actions == []


def test_a_huge_pipeline_is_bounded() -> None:
    """Commands behind one that waits are queued up to a bound, then refused."""
    session = Session("c", SessionLimits(commands_burst=10_000, violations_max=10_000), 0)
    send(session, {"op": "auth", "token": "t"})
    for _ in range(256):
        assert send(session, {"op": "set"}) == []
    assert said(send(session, {"id": 1, "op": "set"}))[0]["error"]["code"] == "rate_limited"
