"""Tests alerts to gaps against the previous close."""

from __future__ import annotations

from typing import Any

import pytest

from mdp.analyzers.alerts.alert import Thresholds
from mdp.reference import Known
from tests.mdp.analyzers.alerts import alerts, build, hand_over
from tests.mdp.analyzers.alerts.plain_ranges import CLOSES_MS, DAY_MS, OPENS_MS
from tests.mdp.analyzers.alerts.test_ranges import FORM_T
from tests.mdp.feed import Desk, Dice, bar, quote, trade

OPENS_S, CLOSES_S = 19_800, 43_200  # after the pre-market has
PRE_MS = OPENS_MS - OPENS_S * 1_000
REFERENCE = {sym: Known(10.0, None) for sym in ("A", "B", "C", "D")}


def told(desk: Desk) -> list[tuple[Any, ...]]:
    return [(a["sym"], a["kind"], a["session"], a["price"], a["value"]) for a in alerts(desk.flush(), "gap")]


def test_the_first_trade_of_the_pre_market_and_the_open() -> None:
    """Each once, whatever follows; below the threshold there is no alert, and the notes say what opened."""
    desk = Desk(reference=REFERENCE)
    desk.feed(*[trade(p=p, t=PRE_MS + n, c=FORM_T) for n, p in enumerate((10.5, 12, 13))])
    desk.feed(*[trade("B", p, t=PRE_MS + n, c=FORM_T) for n, p in enumerate((10.1, 12))])
    desk.feed(trade(p=9, t=OPENS_MS), trade(p=8, t=OPENS_MS), trade("B", 9.7, t=OPENS_MS), trade("B", 5, t=OPENS_MS))
    desk.feed(trade("A", 5, t=CLOSES_MS, c=FORM_T))
    assert told(desk) == [("A", "gap_up", "pre", 10.5, 5), ("A", "gap_down", "regular", 9, -10)]
    assert [a["note"] for a in alerts(desk.cache, "gap")] == [
        "the pre-market opens 5 % above the previous close of 10.00", "opens 10 % below the previous close of 10.00",
    ]  # fmt: skip


def test_who_joins_in_mid_session_takes_no_trade_for_the_open() -> None:
    """The vendor's open says it, once; the next day is known again, also by who comes from the checkpoint."""
    desk = Desk(reference=REFERENCE)
    desk.feed(trade(p=20, t=OPENS_MS + 7_200_000))
    assert told(desk) == []
    desk.feed(*[bar("A", OPENS_MS + 7_200_000 + ms, 20, op=15) for ms in (0, 1_000)])
    assert told(desk) == [("A", "gap_up", "regular", 15, 50)]
    desk.hand_over()
    desk.feed(bar("A", OPENS_MS + 7_203_000, 20, op=15), trade(p=10, t=OPENS_MS + DAY_MS + 3_600_000))
    desk.feed(trade(p=10, t=OPENS_MS + DAY_MS + 3_600_000))
    assert told(desk)[1:] == [("A", "gap_down", "regular", 10, -50)]


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_symbol_s_first_trades_open_it_also_after_the_session_has_changed(handed_over: bool) -> None:
    """Who heard the day from its beginning has missed none of them: a trade that is reported late is still the first."""
    desk = Desk(reference=REFERENCE)
    desk.feed(trade(p=10, t=PRE_MS + 1, c=FORM_T), trade(p=10, t=OPENS_MS))
    desk.feed(trade("B", 11, t=OPENS_MS - 1, c=FORM_T), trade(p=10, t=CLOSES_MS, c=FORM_T))
    assert told(desk) == [("B", "gap_up", "pre", 11, 10)]
    if handed_over:
        hand_over(desk, REFERENCE, Thresholds())
    desk.feed(trade("C", 12, t=CLOSES_MS - 1))
    assert told(desk)[1:] == [("C", "gap_up", "regular", 12, 20)]


def test_an_open_is_the_trade_where_there_are_trades() -> None:
    """However early the vendor's aggregates, which come on another queue, say it."""
    desk = Desk(reference=REFERENCE)
    desk.feed(trade(p=10, t=OPENS_MS - 1, c=FORM_T), trade("B", 11, t=OPENS_MS))
    desk.feed(bar("A", OPENS_MS, 12, op=11.5))
    desk.feed(trade(p=11.4, t=OPENS_MS), trade(p=12, t=OPENS_MS + 1))
    assert told(desk) == [("B", "gap_up", "regular", 11, 10), ("A", "gap_up", "regular", 11.4, 14)]


def test_an_illiquid_symbol_opens_when_it_trades_first() -> None:
    """Hours after the session began, when others have shown that its beginning was seen."""
    desk = Desk(reference=REFERENCE)
    desk.feed(quote("B", t=OPENS_MS + 1))
    desk.feed(trade(p=11, t=OPENS_MS + 7_200_000))
    assert told(desk) == [("A", "gap_up", "regular", 11, 10)]


def test_a_feed_of_aggregates_has_opens_too() -> None:
    """The vendor's, in the first bar that has one."""
    desk = Desk(reference=REFERENCE)
    desk.feed(bar("A", OPENS_MS, 12, op=11.5), bar("A", OPENS_MS + 1_000, 13, op=11.5))
    assert told(desk) == [("A", "gap_up", "regular", 11.5, 15)]


@pytest.mark.parametrize("seed", range(3))
def test_gaps_equal_the_naive_model(seed: int) -> None:
    """Every day's first trade before the open and the first in the regular session, over hand-overs."""
    dice, thresholds, model = Dice(seed, "ABCD"), Thresholds(gap_pct=2), list[tuple[Any, ...]]()
    desk, closes = Desk(build(REFERENCE, thresholds)), dict.fromkeys("ABCD", 10.0)
    for day_ms in (0, DAY_MS, 2 * DAY_MS):
        opened, last = set[tuple[str, bool]](), dict[str, float]()
        for at_s in sorted({0, OPENS_S, *dice.random.sample(range(50_000), 80)}):
            sym, price, ts = dice.random.choice("ABCD"), round(dice.random.uniform(9, 11), 2), PRE_MS + day_ms + at_s * 1_000
            regular = OPENS_S <= at_s < CLOSES_S
            desk.feed(trade(sym, price, t=ts, c=None if regular else FORM_T))
            if regular:
                last[sym] = price
            if at_s < CLOSES_S and not opened & {(sym, regular), (sym, True)}:
                opened.add((sym, regular))
                gap_pct = round(100 * (price - closes[sym]) / closes[sym], 4)
                if abs(gap_pct) >= 2:
                    session = "regular" if regular else "pre"
                    model.append((sym, "gap_up" if gap_pct > 0 else "gap_down", session, price, gap_pct))
            if dice.random.random() < 0.1:
                hand_over(desk, REFERENCE, thresholds)
        closes |= last
    assert told(desk) == model, f"seed {seed}"
    assert len(model) > 8
