"""Tests the windows against a model that keeps every trade."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import Any

import pytest

from mdc.channels import STATS_FIELDS
from mdp.analyzers.stats import LATE_MS, StatsData
from mdp.events.conditions import VOLUME, rule_of
from tests.mdp.feed import START_MS, Desk, Dice, Event, quote, trade

SLICE_MS = 10_000
MINUTE_MS = 60_000


class PlainStats:
    """Keeps every trade with the slice in which it counts, and who took, by the quotes that came before it."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.middle: dict[str, Fraction] = {}
        self.trades: defaultdict[str, list[tuple[int, Fraction, Fraction, int]]] = defaultdict(list)

    def take(self, event: Event) -> None:
        sym = event["p"] if event["ev"] == "C" else event.get("sym") or event["pair"]
        if event["ev"] in ("Q", "XQ"):
            if event["bp"] and event["ap"]:
                self.middle[sym] = (Fraction(str(event["bp"])) + Fraction(str(event["ap"]))) / 2
            else:
                self.middle.pop(sym, None)
        elif event["ev"] in ("T", "XT") and event["s"] and (event["ev"] == "XT" or rule_of(event["c"]) & VOLUME):
            self.now[sym] = max(self.now.get(sym, 0), event["t"] - event["t"] % SLICE_MS)
            price, size = Fraction(str(event["p"])), Fraction(str(event["s"]))
            self.trades[sym].append((self.now[sym], size, price * size, self._side(event, sym, price)))

    def _side(self, event: Event, sym: str, price: Fraction) -> int:
        if event["ev"] == "XT":
            return 1 if event["c"] == [2] else -1
        middle = self.middle.get(sym)
        return 0 if middle is None else (price > middle) - (price < middle)

    def of(self, sym: str) -> dict[str, Any]:
        now, found = self.now[sym], dict[str, Any]()
        minute = now - now % MINUTE_MS
        for window, first in (("1m", now - 5 * SLICE_MS), ("5m", now - 29 * SLICE_MS), ("60m", minute - 59 * MINUTE_MS)):
            part = [one for one in self.trades[sym] if one[0] >= first]
            volume = sum((size for _, size, _, _ in part), Fraction(0))
            found |= {
                f"trades_{window}": len(part),
                f"volume_{window}": float(volume),
                f"notional_{window}": float(sum((worth for _, _, worth, _ in part), Fraction(0))),
                f"average_{window}": pytest.approx(float(volume / len(part))) if part else None,
                f"largest_{window}": float(max((size for _, size, _, _ in part), default=0)),
                f"bought_{window}": float(sum((size for _, size, _, side in part if side > 0), Fraction(0))),
                f"sold_{window}": float(sum((size for _, size, _, side in part if side < 0), Fraction(0))),
            }
        return found | {"ts": now}


@pytest.mark.parametrize("seed", range(6))
def test_windows_equal_the_naive_model(seed: int) -> None:
    """Every field of every symbol, after any mix of late trades, conditions, pauses and hand-overs."""
    dice, desk, plain = Dice(seed), Desk(), PlainStats()
    desk.prompt = True
    desk.partition._time_handlers.clear()  # the model's time is that of a symbol's trades
    pause_ms = (300, 5_000, 120_000)[seed % 3]
    for _ in range(40):
        events = [dice.event(pause_ms) for _ in range(dice.random.randint(1, 12))]
        desk.now_ms = max(desk.now_ms, dice.now)
        for run in dice.batches(events):
            desk.feed(*run)
        for event in events:
            plain.take(event)
        found = desk.flush().channels("stats")
        assert found == {sym: plain.of(sym) for sym in plain.now}, f"seed {seed}"
        if dice.random.random() < 0.15:
            desk.hand_over()
            desk.partition._time_handlers.clear()


def test_what_is_not_watched_is_written_once_a_slice() -> None:
    """And what is watched with every flush; the checkpoint holds the newest trade either way."""
    desk = Desk()
    desk.feed(trade("A", 10, 1, START_MS))
    assert desk.flush().data("stats:A")["trades_1m"] == 1
    desk.feed(trade("A", 10, 1, START_MS + 1))
    assert desk.flush().data("stats:A")["trades_1m"] == 1
    desk.hand_over()
    desk.feed(trade("A", 10, 1, START_MS + SLICE_MS))
    assert desk.flush().data("stats:A")["trades_1m"] == 3


def test_windows_empty_when_time_goes_on_without_trades() -> None:
    """The feed's time lets old slices go, a little late; an hour later nothing is left, and the channel says so."""
    desk = Desk()
    desk.feed(trade("A", 10, 5, START_MS), trade("B", 10, 5, START_MS))
    desk.feed(quote("B", t=START_MS))
    desk.flush()
    for minutes in (1, 2, 6, 30, 61):
        for _ in range(3):
            desk.now_ms += 1_000
            desk.feed(quote("B", t=START_MS + minutes * MINUTE_MS + LATE_MS))
            desk.feed(trade("B", 10, 1, START_MS + minutes * MINUTE_MS + LATE_MS))
        data = desk.flush().data("stats:A")
        expected = [int(minutes < 1), int(minutes < 5), int(minutes < 60)]
        assert [data["trades_1m"], data["trades_5m"], data["trades_60m"]] == expected, minutes


def test_fields_are_those_of_the_catalogue() -> None:
    """A document has the catalogue's fields in its order."""
    assert StatsData.__struct_fields__ == STATS_FIELDS
