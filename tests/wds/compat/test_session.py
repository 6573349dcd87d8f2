"""Drives one session of the original's protocol by hand, with its own clock, and checks the actions it returns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.wds.compat.test_payloads import ALERT, ARTICLE, BOARD, QUOTE, QUOTE_PAYLOAD
from wds.access.tokens import Claims, TokenRefused
from wds.compat.session import WILDCARDS_MAX, CompatSession
from wds.protocol import GetOutcome, error
from wds.session.session import Close, Fetch, Follow, ListKinds, Probe, Send, SessionLimits, Unfollow, Verify

S = 1_000_000_000
ALL = Claims("u", 10_000, "j", ("*",))


def said(actions: list[Any]) -> list[Any]:
    """What the actions send, decoded."""
    return [json.loads(action.payload) for action in actions if isinstance(action, Send)]


def kinds(actions: list[Any]) -> list[type]:
    return [type(action) for action in actions]


def send(session: CompatSession, now: int = 0, **frame: Any) -> list[Any]:
    return session.receive(json.dumps(frame).encode(), now)


def known(claims: Claims = ALL, **limits: Any) -> CompatSession:
    session = CompatSession("c", SessionLimits(**limits), 0)
    assert session.open() == [], "it greets nobody"
    assert send(session, action="auth", api_key="k") == [Verify("k")]
    assert said(session.on_verified(claims, 100.0, 0)) == [{"status": "authorized"}]
    return session


def outcome(data: Any) -> GetOutcome:
    return GetOutcome("", "e", 1, 1, Raw(json.dumps(data).encode()))


def test_the_three_frames_of_a_widget_wait_for_the_key() -> None:
    """auth, get and subscribe in one go: each is answered after the one before."""
    session = CompatSession("c", SessionLimits(), 0)
    assert send(session, action="auth", api_key="k") == [Verify("k")]
    assert send(session, action="get", cache="quote:ABC") == []
    assert send(session, action="subscribe", feed="quote:ABC") == []
    authorized, fetch = session.on_verified(ALL, 100.0, 0)
    assert said([authorized]) == [{"status": "authorized"}]
    assert fetch == Fetch(["quote:ABC"], None)
    actions = session.on_fetched({"quote:ABC": outcome(QUOTE)})
    assert said(actions) == [{"cache": "quote:ABC", "data": QUOTE_PAYLOAD}, {"status": "subscribed", "feed": "quote:ABC"}]
    assert actions[-1] == Follow(["quote:ABC"])


def test_subscriptions_come_and_go() -> None:
    """Twice is once; what is taken back is pushed no more; what was never taken is said to be so."""
    session = known()
    assert send(session, action="subscribe", feed="quote:A")[1:] == [Follow(["quote:A"])]
    assert said(again := send(session, action="subscribe", feed="quote:A")) == [{"status": "subscribed", "feed": "quote:A"}]
    assert kinds(again) == [Send]
    actions = send(session, action="unsubscribe", feed="quote:A")
    assert (said(actions), actions[-1]) == ([{"status": "unsubscribed", "feed": "quote:A"}], Unfollow(["quote:A"]))
    assert said(send(session, action="unsubscribe", feed="quote:A")) == [{"status": "not subscribed", "feed": "quote:A"}]


def test_a_wrong_key_ends_it() -> None:
    """`invalid key` and 4001; a first frame that is no auth: `unauthorized` and 4001."""
    session = CompatSession("c", SessionLimits(), 0)
    send(session, action="auth", api_key="bad")
    actions = session.on_refused(TokenRefused("unauthorized", "bad token"), 0)
    assert (said(actions)[0]["status"], actions[-1]) == ("invalid key", Close(4001))
    session = CompatSession("c", SessionLimits(), 0)
    actions = send(session, action="subscribe", feed="quote:A")
    assert (said(actions), actions[-1]) == ([{"status": "unauthorized"}], Close(4001))
    assert send(session, action="subscribe", feed="quote:A") == []


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (b"not json", "invalid message"), (b"", "invalid message"), (b"[]", "invalid message"), (b"5", "invalid message"),
        (b'"auth"', "invalid message"), (b"\xff\xfe", "invalid message"), (b"[" * 10_000, "invalid message"),
        (b'{"action":"subscribe"}', "invalid message"), (b'{"action":"subscribe","feed":7}', "invalid message"),
        (b'{"action":"subscribe","feed":""}', "invalid message"), (b'{"action":"get","cache":null}', "invalid message"),
        (b'{"action":"get","cache":"quote:A","limit":"many"}', "invalid message"),
        (b'{"action":"get","cache":"quote:A","limit":1e300}', "invalid message"),
        (b'{"action":"auth"}', "invalid message"), (b'{"action":"dance"}', "invalid action"), (b"{}", "invalid action"),
        (b'{"action":["get"]}', "invalid action"), (b'{"op":"sub","ch":["quote:A"]}', "invalid action"),
        (b'{"action":"get","cache":"' + b"A" * 20_000 + b'"}', "too large"),
        (b'{"action":"subscribe","feed":"nothing:A"}', "unknown feed"), (b'{"action":"subscribe","feed":"a*"}', "unknown feed"),
    ],
)  # fmt: skip
def test_bad_frames_are_answered_and_end_nothing(frame: bytes, status: str) -> None:
    """Each has its status, what is wrong stands beside it, and the next frame is served."""
    session = known()
    actions = session.receive(frame, 0)
    (answer,) = said(actions)
    assert answer["status"] == status
    assert len(kinds(actions)) == 1
    assert answer.get("message") or answer.get("feed")
    assert said(send(session, action="subscribe", feed="quote:A"))[0]["status"] == "subscribed"


def test_binary_frames_are_no_commands() -> None:
    """Answered like what is no JSON."""
    assert said(known().receive(b'{"action":"get"}', 0, binary=True))[0]["status"] == "invalid message"


def test_one_who_does_not_stop_is_sent_off() -> None:
    """Over the rate: told when to go on; 50 violations: 4029."""
    session = known(commands_burst=6)
    answers = [said(send(session, action="subscribe", feed="quote:A"))[0] for _ in range(5)]
    assert [one["status"] for one in answers] == ["subscribed"] * 4 + ["rate limited"], "auth costs 1, a name a little more"
    assert answers[-1]["after_ms"] >= 1
    closes: list[Any] = []
    for _ in range(60):
        closes += [one for one in session.receive(b"x", 0) if isinstance(one, Close)]
    assert closes == [Close(4029)]


def test_a_cap_and_what_the_key_does_not_cover() -> None:
    """Each is said; the others are followed."""
    session = known(Claims("u", 10_000, "j", ("quote:*",)), subs_max=2)
    given = ["quote:A", "scanners:top_volume", "daily_range:A", "quote:B", "quote:C"]
    statuses = [said(send(session, action="subscribe", feed=feed))[0]["status"] for feed in given]
    assert statuses == ["subscribed", "forbidden", "forbidden", "subscribed", "limit"], "daily_range reads bars, too"
    assert said(send(session, action="get", cache="news:feed:latest")) == [
        {"cache": "news:feed:latest", "data": None, "status": "forbidden"}
    ]
    assert said(send(session, action="get", cache="what:ever")) == [
        {"cache": "what:ever", "data": None, "status": "unknown feed"}
    ]


def test_wildcards_follow_what_is_known_and_what_comes() -> None:
    """Counted, capped, held by name or by wildcard, joined by new symbols, and taken back as a whole."""
    session = known(subs_max=4)
    assert send(session, action="subscribe", feed="quote:B")[1:] == [Follow(["quote:B"])]
    assert send(session, action="subscribe", feed="quote:*") == [ListKinds(["quote"])]
    names = ("quote:A", "quote:B")
    actions = session.on_listed({"quote": names})
    assert said(actions) == [{"status": "subscribed", "feed": "quote:*", "matched": 2, "following": 2}]
    assert actions[1:] == [Follow(["quote:A"])]
    assert session.on_known("quote", names) == []
    more = (*names, "quote:C", "quote:D", "quote:E")
    assert session.on_known("quote", more) == [Follow(["quote:C", "quote:D"])], "four is the cap"
    assert session.on_known("quote", more) == []
    actions = send(session, action="unsubscribe", feed="quote:*")
    assert said(actions) == [{"status": "unsubscribed", "feed": "quote:*"}]
    assert sorted(actions[-1].feeds) == ["quote:A", "quote:C", "quote:D"], "B was asked for by name"
    assert session.on_known("quote", (*more, "quote:F")) == []


def test_a_wildcard_over_thousands_follows_them_in_parts() -> None:
    """A thousand in one turn, the rest with the next seconds, until all are followed."""
    session = known(subs_max=5000)
    names = tuple(f"quote:S{n}" for n in range(2500))
    send(session, action="subscribe", feed="quote:*")
    actions = session.on_listed({"quote": names})
    assert said(actions) == [{"status": "subscribed", "feed": "quote:*", "matched": 2500, "following": 1000}]
    sizes = [len(actions[1].feeds)]
    while actions := session.on_known("quote", names):
        sizes.append(len(actions[0].feeds))
    assert (sizes, len(session.subscriptions.channels)) == ([1000, 1000, 500], 2500)


def test_wildcards_of_feeds_without_symbols() -> None:
    """They need no list; a cache that cannot tell lists joins nobody yet."""
    session = known()
    actions = send(session, action="subscribe", feed="scanners:*")
    assert said(actions) == [{"status": "subscribed", "feed": "scanners:*", "matched": 3, "following": 3}]
    assert len(actions[1].feeds) == 3
    send(session, action="subscribe", feed="stocks:luld:*")
    assert said(session.on_listed(None)) == [{"status": "subscribed", "feed": "stocks:luld:*", "matched": 0, "following": 0}]
    assert session.on_known("halts", ("halts:A",)) == [Follow(["stocks:luld:A"])]
    assert sorted(send(session, action="unsubscribe", feed="scanners:*")[-1].feeds) == sorted(actions[1].feeds)


def test_wildcards_are_few() -> None:
    """Each is held against every new channel, so their number is bounded."""
    session = known(commands_burst=1000)
    statuses = []
    for at in range(WILDCARDS_MAX + 2):
        send(session, action="subscribe", feed=f"quote:{at}*")
        statuses += [one["status"] for one in said(session.on_listed({"quote": ()}))]
    assert statuses == ["subscribed"] * WILDCARDS_MAX + ["limit"] * 2


def test_lists_come_newest_first_and_limited() -> None:
    """`limit` cuts lists only; alerts are those of the feed's side; a print is the newest alone."""
    session = known()

    def get(cache: str, data: Any, channel: str, **more: Any) -> tuple[Any, Any]:
        (fetch,) = send(session, action="get", cache=cache, **more)
        return fetch.limit, said(session.on_fetched({channel: outcome(data)}))[0]["data"]

    articles = [{**ARTICLE, "title": str(at)} for at in range(5)]
    limit, found = get("news:feed:latest", articles, "news:latest", limit=3)
    assert (limit, [one["title"] for one in found]) == (3, ["4", "3", "2"])
    limit, found = get("news:ticker:A", articles, "news:A", limit="2")
    assert (limit, len(found)) == (2, 2)
    limit, found = get("news:feed:latest", articles, "news:latest", limit=-1)
    assert (limit, len(found)) == (100, 5)
    alerts = [{**ALERT, "kind": kind, "price": at} for at, kind in enumerate(["new_high", "new_low", "new_high", "new_low"])]
    limit, found = get("daily_range_hod_alert", alerts, "alerts:range", limit=1)
    assert (limit, [one["price"] for one in found]) == (None, [2])
    limit, found = get("daily_range_lod_alert", alerts, "alerts:range")
    assert [one["price"] for one in found] == [3, 1]
    limit, found = get("stocks:trades:A", [{"price": 1}, {"price": 2}], "trades:A", limit=5)
    assert (limit, found["price"]) == (1, 2)
    limit, found = get("scanners:top_gappers", BOARD, "board:gainers", limit=1)
    assert len(found) == 2, "the original's limit is one of lists of events"


def test_what_is_not_there_is_null() -> None:
    """No data yet and an unknown key are null; a cache that cannot be read says so; a poisoned document is null."""
    session = known()
    for cache, outcomes, answer in (
        ("quote:A", {"quote:A": GetOutcome("quote:A", error=error("unavailable", "no data yet"))}, {"data": None}),
        ("news:ticker:A", {"news:A": GetOutcome("news:A", error=error("unavailable", "no data yet"))}, {"data": []}),
        ("quote:A", {"quote:A": GetOutcome("quote:A", error=error("unavailable", "x"))}, {"data": None, "status": "unavailable"}),
        ("quote:A", {}, {"data": None, "status": "unavailable"}),
        ("quote:A", {"quote:A": outcome({"last": "poison"})}, {"data": None}),
        ("daily_range:A", {"quote:A": outcome(QUOTE)}, {}),
    ):
        send(session, action="get", cache=cache)
        (said_,) = said(session.on_fetched(outcomes))
        assert said_["cache"] == cache
        assert answer.items() <= said_.items()


def test_a_get_by_wildcard_is_a_list() -> None:
    """Of the documents that are there, as many as one may subscribe to."""
    session = known(subs_max=2)
    assert send(session, action="get", cache="quote:*") == [ListKinds(["quote"])]
    assert session.on_listed({"quote": ("quote:A", "quote:B", "quote:C")}) == [Fetch(["quote:A", "quote:B"], None)]
    (answer,) = said(session.on_fetched({"quote:B": outcome(QUOTE)}))
    assert (answer["cache"], [one["symbol"] for one in answer["data"]]) == ("quote:*", ["B"])
    send(session, action="get", cache="stocks:luld:*")
    assert said(session.on_listed(None)) == [{"cache": "stocks:luld:*", "data": []}]


def test_it_is_pinged_by_websocket_itself() -> None:
    """Who does not answer ends with 4112; the end of the key is 4201, without a notice before it."""
    session = known(ping_s=10.0)
    assert session.on_time(5 * S, 0) == []
    assert session.on_time(10 * S, 0) == [Probe()]
    assert session.on_control_frame(11 * S) == []
    assert session.on_time(20 * S, 0) == [Probe()]
    assert session.on_time(30 * S, 0) == [Close(4112)]
    session = known(ping_s=1000.0)
    assert session.on_time(99 * S, 0) == []
    assert session.on_time(100 * S, 0) == [Close(4201)]
    assert known().probe(0) == [Probe()]


def test_a_second_key_takes_away_what_it_does_not_cover() -> None:
    """A bad one changes nothing; one of less rights ends those feeds."""
    session = known()
    for feed in ("quote:A", "scanners:top_volume"):
        send(session, action="subscribe", feed=feed)
    send(session, action="auth", api_key="bad")
    assert said(session.on_refused(TokenRefused("unauthorized", "no"), 0)) == [{"status": "invalid key", "message": "no"}]
    send(session, action="auth", api_key="less")
    actions = session.on_verified(Claims("u", 10_000, "j2", ("quote:*",)), 100.0, 0)
    assert (said(actions), actions[-1]) == ([{"status": "authorized"}], Unfollow(["scanners:top_volume"]))


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.fixed_dictionaries(
                {"action": st.sampled_from(["auth", "subscribe", "unsubscribe", "get", "x", None])},
                optional={
                    "feed": st.sampled_from(["quote:A", "quote:*", "*", "news:*", 1, "", "tta:A:widget"]),
                    "cache": st.sampled_from(["quote:A", "quote:*", "daily_range:A", [], "news:feed:latest"]),
                    "limit": st.sampled_from([0, -1, "3", None, {}, 1e9, True]), "api_key": st.sampled_from(["k", "", 5]),
                },
            ).map(lambda frame: json.dumps(frame).encode()),
        ),
        max_size=25,
    ),
    st.lists(st.booleans(), max_size=25),
)  # fmt: skip
def test_whatever_comes_in_whatever_order_is_answered(frames: list[bytes], answers: list[bool]) -> None:
    """Only JSON goes out, nothing is raised, and after the end nothing is said."""
    session, now = CompatSession("c", SessionLimits(subs_max=3), 0), 0
    asked: Any = None  # what the outside was asked and has not answered
    for at in range(max(len(frames), len(answers))):
        now += S // 10
        closed = session.closed
        actions = session.receive(frames[at], now) if at < len(frames) else []
        asked = next((one for one in actions if isinstance(one, Verify | ListKinds | Fetch)), asked)
        if at < len(answers):
            more = _answer(session, asked, answers[at], now)
            if more is not None:
                asked = next((one for one in more if isinstance(one, Verify | ListKinds | Fetch)), None)
                actions += more
            actions += session.on_known("quote", ("quote:A", str(at))) + session.on_time(now, 0) + session.go_on(now)
            asked = next((one for one in actions if isinstance(one, Verify | ListKinds | Fetch)), asked)
        assert all(isinstance(one, dict) for one in said(actions))
        assert not (closed and actions)
        assert len(session.subscriptions.channels) <= 3


def _answer(session: CompatSession, asked: Any, good: bool, now: int) -> list[Any] | None:
    if isinstance(asked, Verify):
        return session.on_verified(ALL, 5.0, now) if good else session.on_refused(TokenRefused("token_expired", "old"), now)
    if isinstance(asked, ListKinds):
        return session.on_listed({kind: (f"{kind}:A", f"{kind}:B") for kind in asked.kinds} if good else None)
    if isinstance(asked, Fetch):
        return session.on_fetched({"quote:A": outcome(QUOTE)} if good else {})
    return None
