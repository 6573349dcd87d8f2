"""Checks the alerts to news and breakouts together against a plain model, over crashes too."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mdp.analyzers.alerts.alert import Thresholds
from mdp.partitions.partition import Partition
from tests.mdp.analyzers.alerts import build
from tests.mdp.analyzers.alerts.plain_ranges import OPENS_MS
from tests.mdp.feed import Desk, Event, batch, copies, trade
from tests.mdp.partitions.test_ahead import hurry

MINUTE_MS = 60_000
THRESHOLDS = Thresholds(pause_ms=0, news_ms=10 * MINUTE_MS)


def desk_of() -> Desk:
    return Desk(build({}, THRESHOLDS))


def told(desk: Desk, channel: str = "alerts:news") -> list[dict[str, Any]]:
    return [alert for name, _, alert in desk.cache.shared if name == channel]


def at(minutes: float) -> int:
    return OPENS_MS + round(minutes * MINUTE_MS)


def test_a_new_high_soon_after_an_article_is_told_once() -> None:
    """With both in its note and the whole quote; the other side, and a newer article, are told again."""
    desk = desk_of()
    desk.feed(trade("A", 10.0, t=at(1)))
    desk.feed(*copies("n1", ["A", "B"], at(2)))
    desk.feed(trade("A", 10.5, t=at(4)), trade("A", 11.0, t=at(5)), trade("A", 9.0, t=at(6)))
    desk.feed(*copies("n2", ["A"], at(7), title="Second"))
    desk.feed(trade("A", 12.0, t=at(8)))
    desk.flush()
    assert [(one["kind"], one["price"], one["prev"]) for one in told(desk)] == [
        ("news_high", 10.5, 10.0), ("news_low", 9.0, 10.0), ("news", 9.0, 10.0), ("news_high", 12.0, 11.0),
    ]  # fmt: skip
    first, _, article, _ = told(desk)
    assert first["note"] == "above the regular session's high of 10.00, 2 min 0 s after A title"
    assert (first["quote"]["last"], first["session"], first["ts"]) == (10.5, "regular", at(4))
    assert (article["note"], article["ts"]) == ("Second: 1 min 0 s after a new low of 9.00", at(7))


def test_what_is_far_apart_is_no_alert() -> None:
    """Eleven minutes are too much, and so is a setting of none."""
    for thresholds in (THRESHOLDS, Thresholds(pause_ms=0, news_ms=0)):
        desk = Desk(build({}, thresholds))
        desk.feed(trade("A", 10.0, t=at(1)))
        desk.feed(*copies("n1", ["A"], at(2)), feed_ms=at(2))
        desk.feed(trade("A", 11.0, t=at(13)))
        desk.feed(*copies("n2", ["A"], at(25)), feed_ms=at(25))
        desk.flush()
        assert (told(desk), len(told(desk, "alerts:range"))) == ([], 1)


def test_an_article_of_before_the_breakout_that_comes_late_is_told() -> None:
    """Wires are slower than trades: what was published before and came after says so."""
    desk = desk_of()
    desk.feed(trade("A", 10.0, t=at(1)), trade("A", 11.0, t=at(5)))
    desk.feed(*copies("n1", ["A"], at(4)), feed_ms=at(6))
    desk.flush()
    assert [(one["note"], one["ts"]) for one in told(desk)] == [("A title: 1 min 0 s before a new high of 11.00", at(5))]


def plain(events: list[Event]) -> list[tuple[str, str, float]]:
    """Return symbol, kind and price of what is to be told, looking back at everything there was."""
    made, news, highs, lows = [], dict[str, list[Any]](), dict[str, float](), dict[str, float]()
    broke: dict[str, tuple[str, float, int]] = {}
    for event in events:
        if event["ev"] == "news":
            sym, key = event.get("sym", ""), (event["t"], event["id"])
            if not sym or (sym in news and key <= news[sym][0]):
                continue
            news[sym] = [key, set()]
            if sym in broke and abs(event["t"] - broke[sym][2]) <= THRESHOLDS.news_ms:
                news[sym][1].add(broke[sym][0])
                made.append((sym, "news", broke[sym][1]))
            continue
        sym, price = event["sym"], event["p"]
        if sym in highs and not lows[sym] <= price <= highs[sym]:
            side = "high" if price > highs[sym] else "low"
            broke[sym] = (side, price, event["t"])
            if sym in news and 0 <= event["t"] - news[sym][0][0] <= THRESHOLDS.news_ms and side not in news[sym][1]:
                news[sym][1].add(side)
                made.append((sym, f"news_{side}", price))
        highs[sym], lows[sym] = max(price, highs.get(sym, price)), min(price, lows.get(sym, price))
    return made


@pytest.mark.parametrize("seed", range(6))
def test_crashes_at_any_moment_neither_repeat_nor_lose(seed: int) -> None:
    """Trades and articles in any order, articles more than once: what is told is what the plain model says."""
    dice, desk, events, seqs = random.Random(seed), desk_of(), list[Event](), {"trades": 0, "news": 0}
    now, past, made = OPENS_MS, list[tuple[str, list[str], int]](), []
    for n in range(250):
        now += dice.choice((0, 1_000, 40_000, 200_000)) // 2
        if dice.random() < 0.2:
            if not past or dice.random() < 0.7:
                past.append((f"n{n}", dice.sample("ABC", dice.randint(1, 3)), now - dice.choice((0, 0, 90_000))))
            some, stream = copies(*dice.choice(past[-6:])), "news"
        else:
            some, stream = [trade(dice.choice("ABC"), max(0.5, round(10 + dice.gauss(0, n / 80), 2)), t=now)], "trades"
        events += some
        made.append(batch(some, stream, seqs[stream], feed_ms=now))
        seqs[stream] += len(some)
        desk.now_ms = now
        desk.deliver(made[-1])
        what = dice.random()
        if what < 0.3:
            hurry(desk)
        elif what < 0.5:
            desk.flush(0)
        elif what < 0.6:
            desk.partition = Partition(3, 2, "e1", build({}, THRESHOLDS))
            desk.partition.restore(dict(desk.cache.cells), desk.now_ms)
            for again in made:
                desk.deliver(again, redelivered=True)
        desk.watch(*dice.sample("ABC", dice.randint(0, 2)))
    desk.flush(0)
    wanted = plain(events)
    assert len(wanted) > 10
    assert [(one["sym"], one["kind"], one["price"]) for one in told(desk)] == wanted
