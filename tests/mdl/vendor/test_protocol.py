"""Checks how the vendor's sessions answer clients, whatever bytes these may send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.vendor.protocol import STATUSES, TOPICS_MAX, SplitFrame, VendorSession, Wants, status
from tests.mdl.calm import calm

KEYS = {"secret": None, "small": frozenset({"T", "AM"})}


def asked(session: VendorSession, action: str, params: str = "") -> list[tuple[str, str]]:
    replies = session.receive(json.dumps({"action": action, "params": params})).messages
    return [(told["status"], told["message"]) for reply in replies for told in json.loads(reply)]


def let_in(market: str = "stocks") -> VendorSession:
    session = VendorSession(KEYS, market)
    assert asked(session, "auth", "secret") == [("auth_success", "authenticated")]
    return session


def test_messages_have_the_vendors_shape() -> None:
    """A list of one status."""
    assert status("connected") == '[{"ev":"status","status":"connected","message":"Connected Successfully"}]'


def test_a_wrong_key_is_told_and_closed() -> None:
    """Nothing else is possible before the key."""
    session = VendorSession(KEYS, "stocks")
    reply = session.receive('{"action":"auth","params":"wrong"}')
    assert reply.close
    assert json.loads(reply.messages[0])[0]["status"] == "auth_failed"
    assert VendorSession(KEYS, "stocks").receive('{"action":"subscribe","params":"T.*"}').close


def test_each_subscription_is_confirmed_by_itself() -> None:
    """Wildcards, symbols, spaces; what the market does not have is an error and changes nothing."""
    session = let_in()
    assert asked(session, "subscribe", "T.*, Q.AAPL,XT.BTC-USD,T") == [
        ("success", "subscribed to: T.*"),
        ("success", "subscribed to: Q.AAPL"),
        ("error", "invalid subscription: XT.BTC-USD"),
        ("error", "invalid subscription: T"),
    ]
    assert session.wants.has("T", "MSFT")
    assert session.wants.has("Q", "AAPL")
    assert not session.wants.has("Q", "MSFT")
    assert asked(session, "unsubscribe", "T.*") == [("success", "unsubscribed to: T.*")]
    assert not session.wants.has("T", "MSFT")


def test_what_a_plan_does_not_include_is_not_authorized() -> None:
    """The answer names no subscription, the connection stays, and the others are confirmed."""
    session = VendorSession(KEYS, "stocks")
    assert asked(session, "auth", "small") == [("auth_success", "authenticated")]
    assert asked(session, "subscribe", "T.*,Q.*,AM.NVDA") == [
        ("success", "subscribed to: T.*"),
        ("error", "not authorized"),
        ("success", "subscribed to: AM.NVDA"),
    ]
    assert asked(session, "subscribe", "*") == [("error", "not authorized")]
    assert not session.wants.has("Q", "NVDA")


def test_a_star_means_everything_of_the_market() -> None:
    """As the vendor does."""
    session = let_in("crypto")
    asked(session, "subscribe", "*")
    assert session.wants.whole == {"XT", "XQ", "XA", "XAS"}
    asked(session, "unsubscribe", "*")
    assert session.wants.count == 0


def test_subscriptions_are_bounded() -> None:
    """A client cannot fill our memory."""
    session = let_in()
    session.wants.add(("T", str(number)) for number in range(TOPICS_MAX))
    assert asked(session, "subscribe", "Q.A") == [("error", "too many subscriptions")]


@calm
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.text(max_size=60),
            st.fixed_dictionaries(
                {"action": st.sampled_from(["auth", "subscribe", "unsubscribe", "", "drop"])},
                optional={
                    "params": st.one_of(
                        st.sampled_from(["secret", "T.*", "*", ",", "T.", "."]), st.text(), st.integers(), st.none()
                    )
                },
            ).map(json.dumps),
        ),
        max_size=8,
    )
)
def test_whatever_a_client_sends_it_gets_documented_statuses(messages: list[bytes | str]) -> None:
    """Arbitrary bytes never raise and never let anybody in."""
    session = VendorSession(KEYS, "stocks")
    for message in messages:
        reply = session.receive(message)
        assert reply.messages
        for text in reply.messages:
            (told,) = json.loads(text)
            assert told["ev"] == "status"
            assert told["status"] in STATUSES
        assert session.key in ("", "secret")
        if reply.close:
            break


@pytest.mark.parametrize("message", [b"[" * 10_000, "[" * 10_000, b"x" * 70_000, b'{"action":"auth","params":"\xff"}'])
def test_hostile_messages_are_errors(message: bytes | str) -> None:
    """Deep nesting, size, broken UTF-8."""
    (text,) = VendorSession(KEYS, "stocks").receive(message).messages
    assert json.loads(text)[0]["status"] == "error"


def wants(*topics: str) -> Wants:
    made = Wants()
    made.add((topic.split(".", 1)[0], topic.split(".", 1)[1]) for topic in topics)
    return made


FRAME = (
    b'[{"ev":"T","sym":"A", "p":1.10},{"ev":"Q","sym":"A"},{"ev":"T","sym":"B"},{"ev":"LULD","T":"B"},{"ev":"C","p":"EUR/USD"}]'
)


@pytest.mark.parametrize(
    ("topics", "expected"),
    [
        (("T.*", "Q.*", "LULD.*", "C.*"), FRAME),
        (("T.*",), b'[{"ev":"T","sym":"A", "p":1.10},{"ev":"T","sym":"B"}]'),
        (("T.A", "LULD.B"), b'[{"ev":"T","sym":"A", "p":1.10},{"ev":"LULD","T":"B"}]'),
        (("C.EUR/USD",), b'[{"ev":"C","p":"EUR/USD"}]'),
        (("AM.*",), None),
        ((), None),
    ],
)
def test_a_client_gets_what_it_wants_with_the_bytes_untouched(topics: tuple[str, ...], expected: bytes | None) -> None:
    """All of it: the very same frame; some: a list of those events; none: nothing."""
    assert SplitFrame(FRAME).for_client(wants(*topics)) == expected


def test_a_wildcard_swallows_single_symbols() -> None:
    """And taking it back takes all of them back, as the vendor's client expects."""
    made: Any = wants("T.A", "T.B", "T.*", "T.C")
    assert made.count == 1
    made.remove([("T", "*")])
    assert made.count == 0
