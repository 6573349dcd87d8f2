"""Tests that aggregates and index values wait for the day they are of, while trades of the one before are still on their way."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mdp.days.held import HELD_MAX
from service.days.markets import STOCKS
from tests.mdp.days.test_calendar import ms
from tests.mdp.feed import Desk, bar, pass_time, trade

DAY_MS = 86_400_000
PRE_MARKET, NINE_THIRTY = ms("2023-11-14 04:00:00"), ms("2023-11-14 09:30:00")


def shown(desk: Desk, *names: str, sym: str = "A") -> tuple[Any, ...]:
    data = desk.flush().data(f"quote:{sym}")
    return tuple(data[name] for name in names)


@pytest.mark.parametrize("ahead", ["aggregates", "values"])
def test_aggregates_and_values_of_the_next_day_leave_the_trades_of_this_one_that_still_wait(ahead: str) -> None:
    """They have a queue of their own, too; what they say counts from their day on, also for whoever has taken over meanwhile."""
    desk, opens = Desk(), NINE_THIRTY + 86_400_000
    desk.feed(trade(p=10, t=NINE_THIRTY))
    made = {
        "aggregates": [bar("A", day + n, 50 + n / 1_000, "B") for day in (NINE_THIRTY, opens) for n in (0, 1_000, 2_000)],
        "values": [{"ev": "V", "T": "B", "val": 50 + n / 1_000, "t": day + n} for day in (NINE_THIRTY, opens) for n in (0, 1_000, 2_000)],
    }  # fmt: skip
    desk.feed(*made[ahead])
    desk.hand_over()
    desk.feed(trade(p=11, t=NINE_THIRTY + 60_000))
    assert shown(desk, "last", "volume", "prev_close", "session") == (11, 200, None, "regular")
    assert shown(desk, "last", "prev_close", sym="B") == (52, None), "of this day alone"
    desk.feed(trade(p=12, t=opens))
    assert shown(desk, "last", "volume", "prev_close") == (12, 100, 11)
    first = {"aggregates": 49.5, "values": 50}[ahead]
    assert shown(desk, "last", "open", "prev_close", sym="B") == (52, first, 52)
    assert "earlier_day" not in desk.partition.counts.discarded
    assert not any(body.endswith(b"]]]") for name, body in desk.cache.cells.items() if name == b"quote:B"), (
        "nothing is held any more"
    )


@pytest.mark.parametrize("kind", ["A", "AM"])
def test_days_of_aggregates_that_waited_end_as_those_that_did_not(kind: str) -> None:
    """Three days read at once, trades of another symbol after them: the quotes are those of a feed that came in order."""
    dice = random.Random(kind)
    days = [
        [
            bar(
                kind, PRE_MARKET + day * 86_400_000 + 60_000 * n, dice.randrange(900, 1_100) / 100, "B", av=1_000 + 10 * n, a=10.0
            )
            for n in sorted(dice.sample(range(600), 40))
        ]
        for day in range(3)
    ]
    anchors = [trade(p=10, t=PRE_MARKET + day * 86_400_000) for day in range(3)]
    in_order, at_once = Desk(), Desk()
    for anchor, many in zip(anchors, days, strict=True):
        in_order.feed(anchor)
        in_order.feed(*many)
    at_once.feed(anchors[0])
    at_once.feed(*[event for many in days for event in many])
    for anchor in anchors[1:]:
        at_once.hand_over()
        at_once.feed(anchor)
    wanted, got = (desk.flush().data("quote:B") for desk in (in_order, at_once))
    assert got == wanted
    assert got["prev_close"] is not None


def test_a_symbol_holds_few_days_and_then_ends_them() -> None:
    """Aggregates that run away for weeks take no memory without end: the oldest day that waits begins then."""
    desk = Desk()
    desk.feed(trade(p=10, t=NINE_THIRTY))
    opens = [NINE_THIRTY + day * DAY_MS for day in range(60)]
    opens = [ts for ts in opens if STOCKS.day_of(ts).start_ms == ts - 330 * 60_000][: HELD_MAX + 3]  # trading days
    for number, ts in enumerate(opens):
        desk.feed(bar("A", ts, 50 + number, "B"))
    assert shown(desk, "last", "prev_close", sym="B") == (52, 51), "two days have ended, sixteen wait"
    assert len(desk.cache.cells[b"quote:B"]) < 4_000
    pass_time(desk, opens[-1] + 60_000, "trades", "aggregates")
    assert shown(desk, "last", "prev_close", sym="B") == (50 + HELD_MAX + 2, 50 + HELD_MAX + 1), "the others, one after the other"
