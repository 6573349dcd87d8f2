"""Checks which names and patterns a client may join with its claims."""

from __future__ import annotations

import pytest

from wds.access.tokens import Claims
from wds.protocol import GetOutcome, Sub
from wds.session.subscriptions import Subscriptions, expand_for_get, pattern_refusal, refusal


def claims(*globs: str) -> Claims:
    return Claims("u", 0, "j", globs)


@pytest.mark.parametrize(
    ("pattern", "globs", "code"),
    [
        ("quote:*", ("*",), None), ("quote:*", ("quote:A",), None), ("quote:*", ("q*",), None), ("quote:*", ("board:*",), "forbidden"),
        ("nope:*", ("*",), "unknown_channel"), ("bars:1m:*", ("bars:*",), None), ("bars:*", ("*",), "unknown_channel"),
        ("own:spread:*", ("own:*",), None), ("own:spread:*", ("own:spread:A",), None), ("own:*", ("*",), "unknown_channel"),
        ("own:spread:*", ("ownlog:*",), "forbidden"), ("*:*", ("*",), "unknown_channel"), ("quote:*", ("quotes:*",), "forbidden"),
    ],
)  # fmt: skip
def test_patterns_are_refused_by_kind_and_token(pattern: str, globs: tuple[str, ...], code: str | None) -> None:
    """Unknown kinds and kinds of which a token covers nothing are refused as a whole."""
    found = pattern_refusal(pattern, claims(*globs))
    assert (found.code if found else None) == code


@pytest.mark.parametrize(
    "name", ["ch:quote:A", "quote:", "quote:*A", "quote:A B", "up:quote:0", "board:Other", "quote:" + "A" * 90]
)
def test_names_the_catalogue_lacks_go_nowhere(name: str) -> None:
    """Nothing that is not a channel name leaves this module."""
    found = refusal(name, claims("*"))
    assert found is not None
    assert found.code == "unknown_channel"
    assert not Subscriptions(9).select(Sub([name]), 4, claims("*"), {}).wants


def test_history_can_be_asked_for_as_a_field() -> None:
    """`history` is a field of bars only."""
    subs = Subscriptions(9)
    picked = subs.select(Sub(["bars:1m:A", "quote:A"], fields=["close", "history"]), 4, claims("*"), {})
    assert [want.channel for want in picked.wants] == ["bars:1m:A"]


def test_any_field_of_a_plugin_may_be_asked_for() -> None:
    """The catalogue does not know them; a pattern of a plug-in joins what there is of it."""
    subs = Subscriptions(9)
    picked = subs.select(Sub(["own:spread:A"], fields=["width"]), 4, claims("*"), {})
    assert [want.channel for want in picked.wants] == ["own:spread:A"]
    picked = subs.select(Sub(["own:spread:*"]), 4, claims("*"), {"own:spread": ("own:spread:A", "own:spread:B")})
    assert picked.outcomes["own:spread:*"].matched == 2


def test_a_get_is_capped() -> None:
    """More channels than the cap are left out, and that is said once."""
    names = tuple(f"quote:S{n}" for n in range(10))
    plan = expand_for_get(["quote:*"], claims("*"), {"quote": names}, 4)
    assert plan.wanted[:4] == list(names[:4])
    read = {name: GetOutcome(name) for name in names[:4]}
    (*_, last) = plan.outcomes(read)
    assert (len(plan.outcomes(read)), last.ch, last.matched) == (5, "quote:*", 10)
    assert last.error
    assert (last.error.code, last.error.message.split()[0]) == ("limit", "6")
