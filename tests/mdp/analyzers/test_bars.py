"""Tests bars against those made of all trades at once, and as a reader who follows updates sees them."""

from __future__ import annotations

import random
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from mdc.channels import BAR_FIELDS
from mdp.analyzers.bars import BarsAnalyzer
from mdp.analyzers.series import BarData
from mdp.events.conditions import ALL, HIGH_LOW, LAST, VOLUME, rule_of
from service.days.markets import ALWAYS, STOCKS, Market
from tests.mdp.feed import START_MS, Desk, Dice, Event, bar, trade
from tests.mdp.mirror import Mirror

KINDS = {"bars:1s": (1_000, 10), "bars:1m": (60_000, 5)}
WIDE = {"bars:5s": 5_000, "bars:5m": 300_000, "bars:1h": 3_600_000, "bars:1d": 0}
MINUTE = START_MS - START_MS % 60_000


def plain_bars(trades: list[Event], width_ms: int, market: Market = STOCKS) -> dict[int, list[Any]]:
    """Return start → row of bars made of all trades at once; those of width 0 are the market's trading days."""
    by_start: defaultdict[int, list[Event]] = defaultdict(list)
    for event in trades:
        if not rule(event) & ALL:
            continue  # it repeats another trade: no bar begins with it
        start = event["t"] - event["t"] % width_ms if width_ms else market.day_of(event["t"]).start_ms
        by_start[start].append(event)
    return {start: plain_row(start, events) for start, events in by_start.items()}


def rule(event: Event) -> int:
    return rule_of(event["c"]) if event["ev"] == "T" else ALL


def plain_row(start: int, events: list[Event]) -> list[Any]:
    lasts = [e for e in events if rule(e) & LAST]
    ranged = [e["p"] for e in events if rule(e) & HIGH_LOW]
    volume = [e for e in events if rule(e) & VOLUME]
    size = sum((Decimal(repr(e["s"])) for e in volume), Decimal(0))
    worth = sum((Decimal(repr(e["s"])) * Decimal(repr(e["p"])) for e in volume), Decimal(0))
    return [
        start,
        min(lasts, key=lambda e: e["t"])["p"] if lasts else None,
        max(ranged, default=None),
        min(ranged, default=None),
        max(enumerate(lasts), key=lambda x: (x[1]["t"], x[0]))[1]["p"] if lasts else None,
        float(size),
        float(Fraction(worth) / Fraction(size)) if size else None,
        len(volume),
    ]  # fmt: skip


def rows_of(cache: Mirror, channel: str) -> dict[int, list[Any]]:
    """Return start → row of the history and the bar in the making, as a snapshot shows them."""
    data = cache.data(channel)
    assert tuple(data) == BAR_FIELDS
    rows = {row[0]: row for row in cache.history[channel]}
    if data["prev"] is not None:
        assert rows[data["prev"][0]] == data["prev"] == cache.history[channel][-1]
    current = [data[name] for name in BAR_FIELDS[:8]]
    return rows | {data["t"]: current}


class Follower:
    """A reader: takes one snapshot, then only updates, and asks again exactly when the README says so."""

    def __init__(self) -> None:
        self.history: list[list[Any]] | None = None
        self.number = self.revision = self.asked = 0

    def take(self, data: dict[str, Any], history: list[list[Any]]) -> None:
        if self.history is None or data["rev"] != self.revision or data["i"] - self.number not in (0, 1):
            self.history, self.asked = [list(row) for row in history], self.asked + 1
        elif data["prev"] is not None:
            self.history = [*(self.history if data["i"] > self.number else self.history[:-1]), data["prev"]]
        self.number, self.revision = data["i"], data["rev"]


@pytest.mark.parametrize("seed", range(10))
def test_bars_equal_those_made_of_all_trades(seed: int) -> None:
    """However late trades come within what is retained, history and current bar are exact; older ones are counted."""
    dice, desk = Dice(seed, ("A", "X:BTC-USD")), Desk()
    desk.prompt = True
    followers: defaultdict[str, Follower] = defaultdict(Follower)
    taken: defaultdict[str, list[Event]] = defaultdict(list)
    late = 0
    for round_ in range(80):
        events = []
        for _ in range(dice.random.randint(1, 6)):
            event = dice.trade(pause_ms=dice.random.choice((100, 20_000)), late_ms=9_000)
            sym = event.get("sym") or event["pair"]
            if round_ > 60 and dice.random.random() < 0.1:
                event["t"] -= 100_000_000
                late += len(KINDS) * bool(rule(event) & ALL)
            else:
                taken[sym].append(event)
            events.append(event)
        desk.now_ms = max(desk.now_ms, dice.now)
        for run in dice.batches(events):
            desk.feed(*run)
        cache = desk.flush()
        for kind, width_ms in [*((kind, width_ms) for kind, (width_ms, _) in KINDS.items()), *WIDE.items()]:
            for sym in cache.channels(kind):
                channel = f"{kind}:{sym}"
                found, wanted = rows_of(cache, channel), plain_bars(taken[sym], width_ms, ALWAYS if ":" in sym else STOCKS)
                assert found == {start: wanted[start] for start in sorted(wanted)[-len(found) :]}, f"seed {seed} {channel}"
                follower = followers[channel]
                follower.take(cache.data(channel), cache.history[channel])
                kept = cache.history[channel]
                assert follower.history is not None
                assert len(follower.history) >= len(kept)
                assert follower.history[len(follower.history) - len(kept) :] == kept, f"seed {seed} {channel}"
        if dice.random.random() < 0.05:
            desk.hand_over()
    assert desk.partition.counts.discarded.get("late_bar", 0) == late
    assert desk.cache.cells[b"counts"].count(b'"late_bar":%d' % late) == bool(late)
    assert all(len(cache.history[f"{kind}:A"]) > retained for kind, (_, retained) in KINDS.items()) or seed
    assert sum(follower.asked for follower in followers.values()) < 80 * len(followers), "updates suffice mostly"


def test_fields_are_those_of_the_catalogue() -> None:
    """The published state has the catalogue's fields in its order."""
    assert BarData.__struct_fields__ == BAR_FIELDS


def minutes(desk: Desk, *starts: int) -> dict[str, Any]:
    """Trade once in each of these minutes, flush, return the published bar."""
    desk.feed(*[trade(p=10, t=MINUTE + 60_000 * n) for n in starts])
    return dict(desk.flush().data("bars:1m:A"))


@pytest.mark.parametrize("flushes", [False, True])
def test_what_is_too_late_does_not_hang_on_when_flushes_come(flushes: bool) -> None:
    """Twelve minutes in one flush or in twelve: a trade of the seventh last one is too late, of the sixth last one it is not."""
    desk, first = Desk(), START_MS - START_MS % 60_000
    for minute in range(12):
        desk.feed(trade(t=first + minute * 60_000))
        if flushes:
            desk.flush()
    desk.feed(trade(s=7, t=first + 5 * 60_000), trade(s=9, t=first + 6 * 60_000))
    rows = {row[0]: row[5] for row in desk.flush().history["bars:1m:A"]}
    assert (rows[first + 5 * 60_000], rows[first + 6 * 60_000]) == (100, 109)


def test_a_late_trade_corrects_the_previous_bar_in_the_update() -> None:
    """A correction of the bar before is in `prev`: neither number nor revision change."""
    desk = Desk()
    before = minutes(desk, 0, 1)
    desk.feed(trade(p=20, s=1, t=MINUTE + 5))
    after = desk.flush().data("bars:1m:A")
    assert (after["i"], after["rev"], after["t"]) == (before["i"], before["rev"], before["t"])
    assert after["prev"][2] == 20
    assert desk.cache.history["bars:1m:A"] == [after["prev"]]


def test_a_late_trade_in_an_older_bar_raises_the_revision() -> None:
    """What readers hold beyond `prev` is wrong then, so they are told to ask again."""
    desk = Desk()
    before = minutes(desk, 0, 1, 2)
    desk.feed(trade(p=20, s=1, t=MINUTE + 5))
    after = desk.flush().data("bars:1m:A")
    assert (after["i"], after["rev"]) == (before["i"], before["rev"] + 1)
    assert desk.cache.history["bars:1m:A"][0][2] == 20


def test_a_correction_and_a_new_bar_in_one_flush_raise_the_revision() -> None:
    """The corrected bar is not `prev` any more when readers hear of it."""
    desk = Desk()
    before = minutes(desk, 0, 1)
    desk.feed(trade(p=20, s=1, t=MINUTE + 5), trade(p=11, t=MINUTE + 120_000))
    after = desk.flush().data("bars:1m:A")
    assert (after["i"], after["rev"]) == (before["i"] + 1, before["rev"] + 1)
    assert [row[2] for row in desk.cache.history["bars:1m:A"]] == [20, 10]


def test_a_correction_of_the_oldest_retained_bar_survives_new_bars_of_the_same_flush() -> None:
    """What is corrected reaches the history before it leaves the memory."""
    desk = Desk()
    minutes(desk, *range(6))
    desk.feed(trade(p=20, s=1, t=MINUTE + 5), *[trade(p=11, t=MINUTE + 60_000 * n) for n in (6, 7, 8)])
    cache = desk.flush()
    assert [row[2] for row in cache.history["bars:1m:A"]] == [20, 10, 10, 10, 10, 10, 11, 11]


def test_a_correction_and_an_inserted_bar_in_one_flush_raise_the_revision() -> None:
    """The corrected bar was `prev` until another came between it and the bar in the making."""
    desk = Desk()
    before = minutes(desk, 0, 3)
    desk.feed(trade(p=20, s=1, t=MINUTE + 5), trade(p=10, t=MINUTE + 60_000))
    after = desk.flush().data("bars:1m:A")
    assert (after["i"], after["prev"][0]) == (before["i"] + 1, MINUTE + 60_000)
    assert after["rev"] > before["rev"]


def test_a_bar_that_was_missing_is_inserted() -> None:
    """A late trade in a minute without trades makes its bar, in its place, also before the first one known."""
    desk = Desk()
    minutes(desk, 1, 4)
    desk.feed(trade(p=20, t=MINUTE + 120_000), trade(p=30, t=MINUTE))
    cache = desk.flush()
    assert [row[0] for row in cache.history["bars:1m:A"]] == [MINUTE, MINUTE + 60_000, MINUTE + 120_000]
    assert "late_bar" not in desk.partition.counts.discarded


def test_a_trade_without_a_price_rule_makes_volume_only() -> None:
    """An odd lot alone gives a bar with volume and no prices."""
    desk = Desk()
    desk.feed(trade(p=10, s=7, c=[37]))
    data = desk.flush().data("bars:1m:A")
    assert (data["open"], data["high"], data["low"], data["close"], data["volume"], data["trades"]) == (
        None,
        None,
        None,
        None,
        7,
        1,
    )


def test_the_minutes_of_extended_hours_have_bars() -> None:
    """Form T makes them as any trade does, before the opening and after the close; a canceled option begins none."""
    desk = Desk()
    desk.feed(trade(p=10, t=MINUTE, c=[12]), trade(p=12, t=MINUTE + 1, c=[12, 14]), trade(p=11, t=MINUTE + 2, c=[12]))
    desk.feed(trade("O:A", 3, t=MINUTE, c=[209]), trade("O:A", 9, t=MINUTE + 60_000, c=[201]))
    cache = desk.flush()
    assert [cache.data("bars:1m:A")[name] for name in ("open", "high", "low", "close", "volume", "trades")] == [
        10, 12, 10, 11, 300, 3,
    ]  # fmt: skip
    assert [cache.data("bars:1m:O:A")[name] for name in ("t", "high", "trades", "i")] == [MINUTE, 3, 1, 0]


def test_without_trades_seconds_make_minutes_and_the_vendors_minute_replaces_them() -> None:
    """Aggregates fill bars until trades come; the official minute wins, and the next minute's seconds go on."""
    desk = Desk()
    desk.feed(bar("A", MINUTE, 10), bar("A", MINUTE + 1_000, 12), bar("A", MINUTE + 60_000, 14))
    data = desk.flush().data("bars:1m:A")
    assert data["prev"] == [MINUTE, 9.5, 13, 9, 12, 200, (9.75 + 11.75) / 2, 0]
    desk.feed(bar("AM", MINUTE, 11, v=250, vw=11.5, o=9, h=13.5, l=8))
    desk.feed(bar("A", MINUTE + 59_000, 99), bar("A", MINUTE + 61_000, 15))
    data = desk.flush().data("bars:1m:A")
    assert data["prev"] == [MINUTE, 9, 13.5, 8, 11, 250, 11.5, 0]
    assert (data["t"], data["close"], data["volume"]) == (MINUTE + 60_000, 15, 200)
    assert [row[4] for row in desk.cache.history["bars:1s:A"]] == [10, 12, 99, 14]


def test_once_trades_come_aggregates_change_nothing() -> None:
    """A feed with trades and aggregates counts each share once."""
    desk = Desk()
    desk.feed(trade(p=10, s=5, t=MINUTE))
    desk.feed(bar("A", MINUTE, 99), bar("AM", MINUTE, 99))
    assert desk.flush().data("bars:1m:A")["volume"] == 5


def test_an_index_makes_bars_of_values() -> None:
    """Open, high, low and close of the values, the close by time; no volume."""
    desk = Desk()
    values = [(10.0, 0), (12.0, 7), (9.0, 5)]
    desk.feed(*[{"ev": "V", "T": "I:SPX", "val": value, "t": MINUTE + t} for value, t in values])
    data = desk.flush().data("bars:1m:I:SPX")
    assert [data[name] for name in BAR_FIELDS[1:8]] == [10, 12, 9, 12, 0, None, 0]


def test_an_emptied_cache_gets_the_retained_bars_again() -> None:
    """What a late trade could still correct is there again; what a rolled-back cache holds of it is replaced."""
    desk = Desk()
    minutes(desk, *range(9))
    cache = desk.cache
    cache.history["bars:1m:A"] = cache.history["bars:1m:A"][:6]  # rolled back: the two newest are gone
    desk.partition.rewrite(2, "e2")
    cache.documents.clear()
    cache.documents["bars:1m:A"] = {"seq": desk.partition.flush_number}  # the sequence goes on under the new epoch
    seqs = {"bars:1s:A": 1, "quote:A": 1, "trades:A": 9, "bars:1m:A": 1}
    cache.documents.update({channel: {"seq": seq} for channel, seq in seqs.items()})
    desk.flush()
    assert [row[0] for row in cache.history["bars:1m:A"]] == [MINUTE + 60_000 * n for n in range(8)]


def test_memory_is_bounded_by_what_is_retained() -> None:
    """Days of bars leave only the retained ones in the checkpoint."""
    desk = Desk()
    dice = random.Random(1)
    for n in range(200):
        desk.feed(trade(p=10, t=MINUTE + 60_000 * n + dice.randint(0, 59_999)))
        desk.flush()
    [analyzer] = [a for a in desk.partition.analyzers if isinstance(a, BarsAnalyzer) and a.name == "bars:1m"]
    assert len(analyzer._series["A"].closed) == 5
    assert len(desk.cache.history["bars:1m:A"]) == 199
    assert len(desk.cache.cells[b"bars:1m:A"]) < 1_500
