"""Tests alerts of new session highs and lows against a model that keeps every trade."""

from __future__ import annotations

import json

import pytest

from mdc.channels import ALERT_FIELDS
from mdp.analyzers.alerts.alert import KEEP, Alert, Thresholds, amount, decimal
from mdp.enrich.facts import Seen
from mdp.partitions.partition import Partition
from service.days.markets import STOCKS
from tests.mdp.analyzers.alerts import alerts, build
from tests.mdp.analyzers.alerts.plain_ranges import CLOSES_MS, DAY_MS, OPENS_MS, PlainRanges
from tests.mdp.feed import START_MS, Desk, Dice, quote, trade

FORM_T = [12]


@pytest.mark.parametrize("seed", range(9))
def test_alerts_equal_the_naive_model(seed: int) -> None:
    """Price, predecessor, note and order, over three sessions, late trades, any conditions, flushes and hand-overs."""
    dice, desk, model = Dice(seed, ("A", "B", "C", "X:BTC-USD")), Desk(), PlainRanges()
    dice.now = OPENS_MS - 60_000
    for n in range(400):
        if n in (100, 300):
            dice.now = (OPENS_MS, CLOSES_MS)[n == 300] - 5_000
        event = dice.trade(pause_ms=200)
        drift = n if seed % 3 else 0
        event["p"] = round(event["p"] + drift * dice.random.choice((0, 0.01, -0.01)), 4)
        if event["ev"] == "T" and not OPENS_MS <= event["t"] < CLOSES_MS and dice.random.random() < 0.9:
            event["c"] = FORM_T
        desk.feed(event, feed_ms=dice.now)
        model.take(event)
        desk.now_ms = dice.now
        if dice.random.random() < 0.4:
            desk.flush(dice.random.choice((50, 400)))
        if dice.random.random() < 0.1:
            desk.hand_over()
    end = trade("Z", t=dice.now + 60_000)
    desk.feed(end)
    model.take(end)
    found = [(a["sym"], a["kind"], a["price"], a["prev"], a["note"], a["ts"]) for a in alerts(desk.flush())]
    assert found == model.told, f"seed {seed}"
    assert len(found) > 10


def test_fields_are_those_of_the_catalogue() -> None:
    """The published event has the catalogue's fields in its order."""
    assert Alert.__struct_fields__ == ALERT_FIELDS


def test_an_alert_brings_the_whole_quote_of_its_moment() -> None:
    """Sums included, as they were when the price was made, however long the alert waited; the bid and offer of then, too."""
    desk = Desk()
    desk.feed(quote(bp=9.5, ap=12.5))
    desk.feed(trade(p=10, s=100), trade(p=11, s=50), trade(p=12, s=50, t=START_MS + 10), trade(p=5, s=7, t=START_MS + 2_000))
    first, second, third = alerts(desk.flush())
    assert (first["quote"]["last"], first["quote"]["volume"], first["quote"]["change"]) == (11, 150, 1)
    assert (second["quote"]["last"], second["quote"]["high"], second["quote"]["volume"], second["quote"]["bid"]) == (
        12,
        12,
        200,
        9.5,
    )
    assert (third["kind"], third["quote"]["low"], third["quote"]["session"]) == ("new_low", 5, "post")
    assert desk.flush().data("quote:A")["volume"] == 207


def test_the_feeds_time_ends_a_pause() -> None:
    """What was conflated follows without another trade; the wall clock alone ends nothing."""
    desk = Desk()
    desk.feed(trade(p=10), trade(p=11), trade(p=12), trade(p=13))
    assert [a["price"] for a in alerts(desk.flush(60_000))] == [11]
    for seconds in range(1, 8):
        desk.now_ms += 1_000
        desk.feed(quote("B", t=START_MS + seconds * 1_000))
        desk.feed(quote("B", t=START_MS + seconds * 1_000))
        prices = [a["price"] for a in alerts(desk.flush(0))]
        assert prices == ([11] if seconds < 4 else [11, 13]), seconds
    assert alerts(desk.cache)[1]["prev"] == 11


def test_a_trade_of_any_symbol_ends_a_pause_and_a_far_late_one_is_none() -> None:
    """In the order in which pauses end. A time that was far ahead of the others keeps nobody silent."""
    desk = Desk()
    desk.feed(trade("B", 10), trade("A", 10), trade("B", 11), trade("A", 11, t=START_MS + 5))
    desk.feed(trade("A", 12, t=START_MS + 10), trade("B", 12, t=START_MS + 900), trade("C", 5, t=START_MS + 1_005))
    assert [(a["sym"], a["price"]) for a in alerts(desk.flush())] == [("B", 11), ("A", 11), ("B", 12), ("A", 12)]
    desk.feed(trade("C", 6, t=START_MS + 50_000), trade("C", 7, t=START_MS + 2_000), trade("C", 8, t=START_MS + 4_000))
    assert [a["price"] for a in alerts(desk.flush()) if a["sym"] == "C"] == [6, 7, 8]


def test_the_first_price_and_odd_lots_alert_nothing() -> None:
    """A high needs one before it, and conditions that may move it."""
    desk = Desk()
    desk.feed(trade(p=10), trade(p=20, c=[37]), trade(p=1, c=[2]))
    assert alerts(desk.flush(2_000)) == []


def test_each_session_has_its_range_and_notes_name_the_farthest_one_left() -> None:
    """Pre-market, regular session and after hours; the first trade of a session is told when it leaves the whole day behind."""
    desk = Desk()
    desk.feed(*[trade(p=p, t=OPENS_MS - 60_000 + 2_000 * n, c=FORM_T) for n, p in enumerate((12, 12.4, 11, 12.5))])
    desk.feed(*[trade(p=p, t=OPENS_MS + 2_000 * n) for n, p in enumerate((12.1, 12.2, 13, 10))])
    desk.feed(trade(p=99, t=OPENS_MS + 9_000, c=FORM_T))  # of the extended hours, and timed in the regular ones
    desk.feed(trade(p=99, t=OPENS_MS - 1, c=FORM_T))  # reported when the pre-market was over
    desk.hand_over()
    desk.feed(*[trade(p=p, t=CLOSES_MS + 2_000 * n, c=FORM_T) for n, p in enumerate((12, 12.5, 200, 9.995))])
    desk.feed(trade(p=13.5, t=CLOSES_MS + 9_000))  # the closing auction, after the first trades after hours
    assert [(a["session"], a["note"]) for a in alerts(desk.flush())] == [
        ("pre", "above the pre-market high of 12.00"),
        ("pre", "below the pre-market low of 12.00"),
        ("pre", "above the pre-market high of 12.40"),
        ("regular", "above the regular session's high of 12.10"),
        ("regular", "above the pre-market high of 12.50"),
        ("regular", "below the pre-market low of 11.00"),
        ("post", "above the after-hours high of 12.00"),
        ("post", "above the pre-market high of 99.00"),
        ("post", "below the regular session's low of 10.00"),
        ("regular", "above the regular session's high of 13.00"),
    ]


def test_the_first_trade_of_a_session_is_told_beyond_the_day() -> None:
    """The open above the pre-market's high has that as its predecessor; the first after hours within the day is no alert."""
    desk = Desk()
    desk.feed(trade(p=10, t=OPENS_MS - 5_000, c=FORM_T), trade(p=12.4, t=OPENS_MS - 1_000, c=FORM_T), trade(p=13, t=OPENS_MS))
    desk.feed(trade(p=11, t=CLOSES_MS, c=FORM_T), trade("B", 7, t=OPENS_MS), trade("B", 6, t=CLOSES_MS, c=FORM_T))
    told = [(a["sym"], a["session"], a["kind"], a["prev"], a["price"]) for a in alerts(desk.flush())]
    assert told == [("A", "pre", "new_high", 10, 12.4), ("A", "regular", "new_high", 12.4, 13), ("B", "post", "new_low", 7, 6)]


def test_a_new_day_begins_anew_and_yesterdays_trades_are_over() -> None:
    """After midnight the range starts with the first price; a late trade of the day before moves nothing; what waited is told."""
    desk = Desk()
    desk.feed(trade(p=10), trade(p=20), trade(p=21))
    desk.flush(2_000)
    desk.feed(trade(p=5, t=START_MS + DAY_MS))
    desk.hand_over()
    desk.feed(trade(p=50, t=START_MS), trade(p=50, sym="B", t=START_MS), trade(p=6, t=START_MS + DAY_MS))
    assert [(a["prev"], a["price"]) for a in alerts(desk.flush(2_000))] == [(10, 20), (20, 21), (5, 6)]


def test_an_opening_leaves_in_one_flush_in_the_order_of_its_trades() -> None:
    """However many symbols alert at once."""
    desk = Desk()
    names = [f"S{n}" for n in range(600)]
    for price in (10, 11):
        desk.feed(*[trade(name, price) for name in names])
    assert [a["sym"] for a in alerts(desk.flush())] == names


def test_a_tape_that_begins_anew_ends_its_pauses() -> None:
    """What its last second has conflated is told; the next playing tells the same again."""
    desk = Desk()
    for run in (1, 2):
        desk.feed(*[trade(p=p) for p in (10, 11, 12)], run=run)
        desk.flush()
    desk.feed(trade(t=START_MS), run=3)
    assert [(a["prev"], a["price"]) for a in alerts(desk.flush())] == [(10, 11), (11, 12)] * 2


def test_a_checkpoint_of_before_there_were_sessions_is_read() -> None:
    """Its one range is the regular session's, or the pre-market's when that has not begun."""
    for regular, price, note in (
        (True, 21, "above the regular session's high of 20.00"),
        (False, 21, "above the pre-market high of 20.00"),
    ):
        desk = Desk()
        desk.feed(trade(p=10, t=OPENS_MS))
        cells = dict(desk.flush().cells)
        day_ms = OPENS_MS - 19_800_000
        cells[b"range:A"] = json.dumps(["s|stocks", 20, 5, day_ms, regular, None, None, 0, 0]).encode()
        desk.partition = Partition(3, 2, "e1", build({}, Thresholds()))
        assert desk.partition.restore(cells) == []
        desk.feed(trade(p=price, t=OPENS_MS + 1))
        assert [a["note"] for a in alerts(desk.flush())] == [note]


def test_an_emptied_cache_gets_the_newest_alerts_again() -> None:
    """In their order, those of the flush that it has lost among them."""
    desk = Desk()
    desk.feed(*[trade(p=p, t=START_MS + p * 1_000) for p in range(1, KEEP + 100)])
    before = alerts(desk.flush())
    desk.cache.shared.clear()
    desk.partition.rewrite(1, "e2")
    assert alerts(desk.flush()) == before[-KEEP:]


@pytest.mark.parametrize(
    ("value", "text"), [(12.4, "12.40"), (0.00001302, "0.00001302"), (60000, "60000.00"), (4783.255, "4783.255")]
)
def test_prices_in_notes(value: float, text: str) -> None:
    """Two decimals at least, and all that there are."""
    assert decimal(value) == text


@pytest.mark.parametrize(("value", "text"), [(5, "5"), (123_400.0, "123,400"), (6.25, "6.25"), (0.5, "0.5"), (1e-9, "0")])
def test_amounts_in_notes(value: float, text: str) -> None:
    """Without decimals that say nothing."""
    assert amount(value) == text


NOON_MS = OPENS_MS + 9_000_000


def noon(snapshot_ms: int = 120_000, pause_ms: int = 0) -> Desk:
    """A worker that hears of a regular session that has been going on for hours, and has the vendor asked for it."""
    desk = Desk()
    desk.partition = Partition(3, 1, "e1", build({}, Thresholds(pause_ms=pause_ms, snapshot_ms=snapshot_ms)))
    return desk


def see(desk: Desk, symbol: str, high: float, low: float, ts: int = NOON_MS) -> None:
    day_ms = STOCKS.day_of(NOON_MS).start_ms
    for analyzer in desk.partition.analyzers:
        analyzer.on_seen(day_ms, {symbol: Seen(ts, 1_000, None, 10, high, low)})


@pytest.mark.parametrize("first", ["snapshot", "trades"])
def test_who_starts_at_noon_knows_the_sessions_range(first: str) -> None:
    """From the vendor's snapshot, whether it comes before the first trade or between two: what is within is no news."""
    desk = noon()
    if first == "snapshot":
        desk.feed(trade("B", p=5, t=NOON_MS - 10))
        see(desk, "A", 14, 8)
    desk.feed(
        trade(p=10, t=NOON_MS), trade(p=11, t=NOON_MS + 1_000), trade(p=9, t=NOON_MS + 2_000), trade(p=13, t=NOON_MS + 3_000)
    )
    if first == "trades":
        see(desk, "A", 14, 8)
    desk.feed(*(trade(p=p, t=NOON_MS + 5_000 + n) for n, p in enumerate((13.5, 8.5, 14, 14.5, 8, 7.5, 14.25))))
    assert [(a["kind"], a["price"], a["prev"]) for a in alerts(desk.flush())] == [("new_high", 14.5, 14), ("new_low", 7.5, 8)]
    desk.hand_over()
    desk.feed(trade(p=15, t=NOON_MS + 60_000), trade(p=14.9, t=NOON_MS + 61_000))
    assert [a["price"] for a in alerts(desk.flush())] == [14.5, 7.5, 15]


def test_a_snapshot_that_does_not_come_is_not_waited_for_longer() -> None:
    """Nor is one waited for where nobody asks, by a symbol that is new to a worker of the whole day, or the next morning."""
    desk = noon()
    desk.feed(trade(p=10, t=NOON_MS), trade(p=11, t=NOON_MS + 60_000), trade(p=12, t=NOON_MS + 120_000))
    assert [(a["price"], a["prev"]) for a in alerts(desk.flush())] == [(12, 11)]
    desk.feed(trade("N", p=1, t=NOON_MS + 200_000), trade("N", p=2, t=NOON_MS + 201_000))
    assert [a["price"] for a in alerts(desk.flush())] == [12, 2]
    without = noon(0)
    without.feed(trade(p=10, t=NOON_MS), trade(p=11, t=NOON_MS + 1_000))
    assert [a["price"] for a in alerts(without.flush())] == [11]
    early = noon()
    early.feed(trade("Z", t=OPENS_MS + 1_000))
    early.feed(trade(p=10, t=NOON_MS), trade(p=11, t=NOON_MS + 1_000))
    assert [a["price"] for a in alerts(early.flush())] == [11]
    early.feed(trade("Z", t=OPENS_MS + DAY_MS), trade(p=10, t=NOON_MS + DAY_MS), trade(p=11, t=NOON_MS + DAY_MS + 1_000))
    assert [a["price"] for a in alerts(early.flush())] == [11, 11]


@pytest.mark.parametrize("seed", range(6))
def test_who_starts_at_noon_tells_what_who_was_there_all_day_tells(seed: int) -> None:
    """The plain model sees every trade; the worker those since noon, and a snapshot of what was before it."""
    dice, desk, model = Dice(seed, ("A", "B", "C")), noon(pause_ms=1_000), PlainRanges()
    dice.now = OPENS_MS + 1_000
    morning: dict[str, list[float]] = {}
    for _ in range(150):
        event = {**dice.trade(pause_ms=200), "ev": "T", "c": []}
        event["t"] = dice.now
        model.take(event)
        morning.setdefault(event["sym"], []).append(event["p"])
    until = model.told[-1][-1] if model.told else 0
    before = len(model.told)
    dice.now = NOON_MS
    desk.feed(trade("Z", t=NOON_MS - 1))
    for symbol, prices in morning.items():
        see(desk, symbol, max(prices), min(prices), NOON_MS - 1)
    for n in range(300):
        event = {**dice.trade(pause_ms=2_000), "ev": "T", "c": []}
        event["t"], event["p"] = dice.now, round(event["p"] + n * dice.random.choice((0.01, -0.01)), 4)
        desk.feed(event, feed_ms=dice.now)
        model.take(event)
    end = trade("Z", t=dice.now + 60_000)
    desk.feed(end)
    model.take(end)
    found = [(a["sym"], a["kind"], a["price"], a["prev"], a["ts"]) for a in alerts(desk.flush())]
    wanted = [(*told[:4], told[5]) for told in model.told[before:] if told[5] >= NOON_MS > until]
    assert found == wanted
    assert len(found) > 5
