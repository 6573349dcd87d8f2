"""Tests alerts to unusual volume against a model that keeps every trade."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

from mdp.analyzers.alerts.alert import Thresholds
from mdp.events.conditions import VOLUME, rule_of
from mdp.reference import Known
from tests.mdp.analyzers.alerts import alerts, build, hand_over
from tests.mdp.feed import START_MS, Desk, Dice, bar, quote, trade

SLICE_MS, MINUTE_MS, PAUSE_MS, TIMES = 10_000, 60_000, 120_000, 2.5
AVERAGE = 20_000
MULTIPLES = (0.5, 1.0, 2.0, 4.0)
THRESHOLDS = Thresholds(volume_times=TIMES, volume_pause_ms=PAUSE_MS, rel_volumes=MULTIPLES)
REFERENCE = {sym: Known(10.0, AVERAGE) for sym in "AB"}


def desk() -> Desk:
    """Return a desk with these thresholds."""
    return Desk(build(REFERENCE, THRESHOLDS))


class PlainVolume:
    """Adds up all trades from the beginning with every one that comes."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.slices: defaultdict[str, Counter[int]] = defaultdict(Counter)  # symbol → slice → volume
        self.surged: dict[str, int] = {}
        self.asked: set[tuple[str, int]] = set()
        self.crossed: dict[str, int] = {}

    def take(self, event: dict[str, Any]) -> None:
        if not event["s"] or not rule_of(event["c"]) & VOLUME:
            return
        sym, volumes = event["sym"], self.slices[event["sym"]]
        now = max([event["t"] - event["t"] % SLICE_MS, *volumes])
        begins = now not in volumes
        volumes[now] += event["s"]
        if begins:
            self._look_at_day(event, sum(volumes.values()))
        minute = now - now % MINUTE_MS
        hour: Counter[int] = Counter()
        for start, volume in volumes.items():
            if minute - 59 * MINUTE_MS <= start < minute:  # as stats has it: minutes that are over
                hour[start - start % MINUTE_MS] += volume
        last = sum(volume for start, volume in volumes.items() if start > now - MINUTE_MS)
        if len(hour) < 10 or last * len(hour) < TIMES * sum(hour.values()) or now - self.surged.get(sym, -PAUSE_MS) < PAUSE_MS:
            return
        if (sym, now) not in self.asked:
            self.asked.add((sym, now))
            self.surged[sym] = now
            self.told.append((sym, "surge", round(last * len(hour) / sum(hour.values()), 2), event["p"], event["t"]))

    def _look_at_day(self, event: dict[str, Any], total: float) -> None:
        sym = event["sym"]
        crossed = sum(total >= multiple * AVERAGE for multiple in MULTIPLES)
        if sym in self.crossed and crossed > self.crossed[sym]:
            self.told.append((sym, "rel_volume", MULTIPLES[crossed - 1], event["p"], event["t"]))
        self.crossed[sym] = crossed


@pytest.mark.parametrize("seed", range(4))
def test_alerts_equal_the_naive_model(seed: int) -> None:
    """Times, moment and order, over late trades, bursts, conditions, flushes and hand-overs."""
    dice, one, model = Dice(seed, ("A", "B")), desk(), PlainVolume()
    for _ in range(900):
        event = dice.trade(pause_ms=dice.random.choice((100, 5_000, 9_000)), late_ms=2_500)
        event["s"] = dice.random.choice((0, 1, 7, 30, 30, 400 if dice.random.random() < 0.3 else 10))
        model.take(event)
        one.feed(event, feed_ms=dice.now)
        one.now_ms = dice.now
        if dice.random.random() < 0.1:
            one.flush()
        if dice.random.random() < 0.1:
            hand_over(one, REFERENCE, THRESHOLDS)
    told = [(a["sym"], a["kind"], a["value"], a["price"], a["ts"]) for a in alerts(one.flush(), "volume")]
    assert told == model.told, f"seed {seed}"
    assert {kind for _, kind, *_ in told} == {"surge", "rel_volume"}


def test_a_surge_is_told_at_its_trade_with_its_size() -> None:
    """Not with the next slice, and with a quote that holds it."""
    one = desk()
    one.feed(*[trade(s=100, t=START_MS + n * MINUTE_MS) for n in range(12)])
    one.feed(trade(s=100, t=START_MS + 12 * MINUTE_MS), trade(s=300, t=START_MS + 12 * MINUTE_MS + 1, p=11))
    [told] = alerts(one.flush(), "volume")
    assert (told["kind"], told["price"], told["value"], told["note"]) == (
        "surge",
        11,
        4,
        "400 in a minute, 4 times the hour's average",
    )
    assert (told["quote"]["volume"], told["quote"]["last"]) == (1600, 11)


def test_who_joins_in_mid_day_hears_no_multiple_of_the_morning() -> None:
    """The vendor's total says that they were crossed before; later ones are told when most of the day was seen."""
    one = desk()
    one.feed(trade(s=100))
    one.feed(bar("A", START_MS, 10, av=11_000))
    one.feed(*[trade(s=200, t=START_MS + n * SLICE_MS) for n in range(1, 5)])
    one.feed(bar("A", START_MS + 60_000, 10, av=21_000))
    one.feed(trade(s=100, t=START_MS + 60_000), trade(s=24_000, t=START_MS + 60_001), trade(s=1, t=START_MS + 70_000))
    assert alerts(one.flush(), "volume") == []
    one.feed(bar("A", START_MS + 80_000, 10, av=41_000), trade(s=1, t=START_MS + 90_000))
    one.feed(trade(s=1, t=START_MS + 90_000))
    assert [a["note"] for a in alerts(one.flush(), "volume")] == ["the day's volume is over 2 times the average day's"]


def test_without_an_average_nothing_is_relative_and_zero_is_never() -> None:
    """No reference, no multiple; a threshold of 0 means off."""
    one = Desk(build({}, Thresholds(volume_times=0)))
    one.feed(*[trade(s=10**n, t=START_MS + n * MINUTE_MS) for n in range(12)])
    one.feed(quote())
    assert alerts(one.flush(), "volume") == []
