"""The rules of message stores: where a feed goes on, what is a gap, when a store suspends trading and when that ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.commands import Resume, Suspend
from engine.core.state import Store
from engine.stores.rules import Holding, age_ms, distance_ms, due, start, store_of

MS = 1_000_000


def held(name: str, messages: int, oldest_ms: int, age_ms_max: int = 100) -> Holding:
    return Holding(name, 0, messages, oldest_ms * MS, age_ms_max)


@pytest.mark.parametrize(("text", "store"), [('""', ""), ("", ""), ("oms", "oms"), ('"', '"'), ('"a"', '"a"')])
def test_two_quotation_marks_are_the_default_store(text: str, store: str) -> None:
    """So does nothing; any other text is a name, as it stands."""
    assert store_of(text) == store


@pytest.mark.parametrize(
    ("last_seen", "after"),
    [(None, 40), (40, 40), (41, 41), (90, 90), (100, 100)],
)
def test_a_consumer_goes_on_after_what_it_has_seen(last_seen: int | None, after: int) -> None:
    """Without lastSeen it gets all that is stored; the purged index itself is no gap."""
    assert start(Store("oms", 10, 40), last_seen, 100) == after


@pytest.mark.parametrize("last_seen", [0, 1, 9, 39])
def test_a_consumer_behind_the_purged_index_is_told_of_the_gap(last_seen: int) -> None:
    """The text names the store, both indices and what to do."""
    text = start(Store("oms", 10, 40), last_seen, 100)
    assert isinstance(text, str)
    assert "gap" in text
    assert "oms" in text
    assert f"after {last_seen} " in text
    assert "lastSeen=40" in text


def test_a_consumer_ahead_of_the_exchange_is_told_that_something_is_wrong() -> None:
    """It has seen what this exchange never sent: another exchange, or an older copy."""
    text = start(Store("oms", 10, 40), 101, 100)
    assert isinstance(text, str)
    assert "101" in text
    assert "100" in text


@pytest.mark.parametrize(("last_seen", "after"), [(0, 9), (8, 9), (9, 9), (10, 10)])
def test_an_empty_consumer_of_an_untouched_store_misses_nothing(last_seen: int, after: int) -> None:
    """A store made by command 9 holds what follows; 0 is a database without anything, 8 one that had everything before."""
    assert start(Store("oms", 10, 9), last_seen, 100) == after


@pytest.mark.parametrize("last_seen", [1, 7])
def test_a_copy_that_ends_before_its_store_was_made_has_a_gap(last_seen: int) -> None:
    """It had messages of an earlier store; what came between the two is nowhere."""
    assert isinstance(start(Store("oms", 10, 9), last_seen, 100), str)


def test_age_is_that_of_the_oldest_message_and_zero_without_any() -> None:
    """A clock that went back makes nobody young or old."""
    assert age_ms(held("a", 3, 1_000), 1_500 * MS) == 500
    assert age_ms(held("a", 0, 0), 1_500 * MS) == 0
    assert age_ms(held("a", 3, 1_000), 900 * MS) == 0
    assert distance_ms(held("a", 3, 1_000), 1_500 * MS) == -400
    assert distance_ms(held("a", 0, 0), 1_500 * MS) == 100


def test_a_store_suspends_when_its_oldest_message_is_older_than_allowed() -> None:
    """At the limit it does not, above it does, once."""
    stores = [held("a", 1, 1_000), held("", 1, 2_000)]
    assert due(stores, 1_100 * MS, set()) == []
    assert due(stores, 1_101 * MS, set()) == [Suspend("store:a")]
    assert due(stores, 1_101 * MS, {"store:a", "manual"}) == []
    assert due(stores, 2_101 * MS, {"store:a"}) == [Suspend("store:")]


def test_a_store_lifts_its_own_reason_and_no_other() -> None:
    """Caught up, empty or deleted: its reason goes. The manual one and those of others stay."""
    reasons = {"store:a", "store:b", "store:gone", "manual"}
    assert due([held("a", 0, 0), held("b", 5, 1_000)], 9_000 * MS, reasons) == [Resume("store:a"), Resume("store:gone")]


def test_a_store_that_was_waived_is_overlooked_until_it_has_caught_up() -> None:
    """It sets no reason while it is behind, and is told once when it is not."""
    behind, level = held("a", 1, 1_000)._replace(waived=True), held("a", 0, 0)._replace(waived=True)
    assert due([behind], 9_000 * MS, set()) == []
    assert due([level], 9_000 * MS, set()) == [Resume("store:a")]


@given(
    st.dictionaries(st.sampled_from(["", "a", "b", "c"]), st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(1, 40))),
    st.sets(st.sampled_from(["manual", "store:", "store:a", "store:b", "store:x"])),
    st.integers(0, 100),
)
def test_carrying_out_what_is_due_leaves_nothing_due(stores, reasons: set[str], now: int) -> None:  # type: ignore[no-untyped-def]
    """The reasons of stores are then exactly the late stores, and everything else is as it was."""
    holdings = [held(name, *numbers) for name, numbers in stores.items()]
    after = set(reasons)
    for command in due(holdings, now * MS, reasons):
        (after.add if isinstance(command, Suspend) else after.remove)(command.reason)
    late = {f"store:{one.store_id}" for one in holdings if distance_ms(one, now * MS) < 0}
    assert after == late | (reasons & {"manual"})
    assert due(holdings, now * MS, after) == []
