"""Tests alerts of new session highs and lows."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from mdc.channels import ALERT_FIELDS
from mdp.analyzers.range import ALERTS_A_FLUSH_MAX, Alert
from tests.mdp.feed import START_MS, Desk, Dice, trade
from tests.mdp.mirror import Mirror

DAY_MS = 86_400_000


def alerts(cache: Mirror) -> list[dict[str, Any]]:
    return [data for channel, _, data in cache.shared if channel == "alerts:range"]


@pytest.mark.parametrize("seed", range(6))
def test_alerts_tell_the_whole_range(seed: int) -> None:
    """Each side's alerts form a chain from the first price to the session's extreme, at most one a second."""
    dice, desk = Dice(seed, ("A", "B", "X:BTC-USD")), Desk()
    first: dict[str, float] = {}
    prices: defaultdict[str, list[float]] = defaultdict(list)
    told_ms: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for _ in range(150):
        event = dice.trade(pause_ms=100)
        event["c"] = None
        sym = event.get("sym") or event["pair"]
        event["p"] = round(event["p"] + len(prices[sym]) * dice.random.choice((0, 0.01, -0.01)), 4)
        first.setdefault(sym, event["p"])
        prices[sym].append(event["p"])
        desk.feed(event)
        before = len(alerts(desk.cache))
        for alert in alerts(desk.flush(dice.random.choice((50, 400))))[before:]:
            told_ms[alert["sym"], alert["kind"]].append(desk.now_ms)
        if dice.random.random() < 0.1:
            desk.hand_over()
    found = alerts(desk.flush(1_000))
    for sym, seen in prices.items():
        for kind, extreme in (("new_high", max(seen)), ("new_low", min(seen))):
            mine = [a for a in found if (a["sym"], a["kind"]) == (sym, kind)]
            assert [first[sym], *(a["price"] for a in mine)] == [*(a["prev"] for a in mine), extreme], f"seed {seed}"
            gaps = [b - a for a, b in zip(told_ms[sym, kind], told_ms[sym, kind][1:], strict=False)]
            assert all(gap >= 1_000 for gap in gaps), f"seed {seed}"


def test_fields_are_those_of_the_catalogue() -> None:
    """The published event has the catalogue's fields in its order."""
    assert Alert.__struct_fields__ == ALERT_FIELDS


def test_the_last_high_of_a_burst_is_alerted_without_another_trade() -> None:
    """What was conflated follows when the second is over."""
    desk = Desk()
    desk.feed(trade(p=10), trade(p=11))
    desk.flush()
    desk.feed(trade(p=12), trade(p=13))
    assert [a["price"] for a in alerts(desk.flush())] == [11]
    assert [(a["prev"], a["price"]) for a in alerts(desk.flush(1_000))] == [(10, 11), (11, 13)]


def test_the_first_price_and_odd_lots_alert_nothing() -> None:
    """A high needs one before it, and conditions that may move it."""
    desk = Desk()
    desk.feed(trade(p=10), trade(p=20, c=[37]), trade(p=1, c=[2]))
    assert alerts(desk.flush(2_000)) == []


def test_extended_hours_alert_until_the_regular_session_begins() -> None:
    """The pre-market's highs are its own; the first regular trade begins anew; after the close nothing is a session's high."""
    desk, opens, form_t = Desk(), START_MS - START_MS % DAY_MS + 14 * 3_600_000 + 1_800_000, [12]
    desk.feed(*[trade(p=p, t=opens - 60_000, c=form_t) for p in (10, 12)])
    desk.flush(1_000)
    desk.feed(trade(p=8, t=opens), trade(p=9, t=opens + 1), trade(p=20, t=opens - 1, c=form_t))
    desk.hand_over()
    desk.feed(trade(p=30, t=opens + 7 * 3_600_000, c=form_t))
    assert [(a["kind"], a["prev"], a["price"]) for a in alerts(desk.flush(2_000))] == [("new_high", 10, 12), ("new_high", 8, 9)]


def test_a_new_day_begins_anew_and_yesterdays_trades_are_over() -> None:
    """After midnight the range starts with the first price; a late trade of the day before moves nothing."""
    desk = Desk()
    desk.now_ms = START_MS + DAY_MS
    desk.feed(trade(p=10), trade(p=20))
    desk.flush(2_000)
    desk.feed(trade(p=5, t=START_MS + DAY_MS))
    desk.hand_over()
    desk.feed(trade(p=50, t=START_MS), trade(p=50, sym="B", t=START_MS), trade(p=6, t=START_MS + DAY_MS))
    assert [(a["prev"], a["price"]) for a in alerts(desk.flush(2_000))] == [(10, 20), (5, 6)]


def test_a_flush_carries_a_bounded_number_of_alerts() -> None:
    """An opening auction is spread over flushes, first come first served, and none is lost."""
    desk = Desk()
    many = ALERTS_A_FLUSH_MAX * 2 + 5
    desk.feed(*[trade(f"S{n}", 10) for n in range(many)])
    desk.feed(*[trade(f"S{n}", 11) for n in range(many)])
    counts = [len(alerts(desk.flush())) for _ in range(4)]
    assert counts == [50, 100, 105, 105]
    assert [a["sym"] for a in alerts(desk.cache)] == [f"S{n}" for n in range(many)]
