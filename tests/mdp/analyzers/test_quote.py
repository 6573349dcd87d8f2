"""Trades, quotes and aggregates in, quotes out: against a model that remembers every trade and sums with fractions."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mdc.channels import QUOTE_FIELDS
from mdp.analyzers.quote import QuoteData, difference
from mdp.conditions import HIGH_LOW, LAST, VOLUME, rule_of
from mdp.reference import Known
from tests.mdp.feed import START_MS, Desk, Dice, Event, bar, quote, trade

NEW_YORK = ZoneInfo("America/New_York")
DAY_MS = 86_400_000
NOON_ET = START_MS - START_MS % DAY_MS + 17 * 3_600_000


def plain_day(ts: int, continuous: bool) -> str:
    return str(ts // DAY_MS) if continuous else str(datetime.fromtimestamp(ts / 1000, NEW_YORK).date())


class PlainQuotes:
    """The naive model: it keeps every trade of the day and looks at all of them when asked."""

    def __init__(self) -> None:
        self.days = {True: "", False: ""}
        self.trades: defaultdict[str, list[Event]] = defaultdict(list)
        self.quotes: dict[str, Event] = {}
        self.times: defaultdict[str, int] = defaultdict(int)
        self.closes: dict[str, float] = {}
        self.lasts: dict[str, float] = {}
        self.kinds: dict[str, bool] = {}

    def take(self, event: Event) -> None:
        continuous = event["ev"] in ("XT", "XQ", "C")
        sym = event["p"] if event["ev"] == "C" else event.get("sym") or event["pair"]
        day = plain_day(event["t"], continuous)
        if len(day) > len(self.days[continuous]) or day > self.days[continuous]:
            self._roll(continuous, day)
        self.kinds[sym] = continuous
        if event["ev"] not in ("T", "XT"):
            self.quotes[sym] = event
        elif day < self.days[continuous]:
            return
        else:
            self.trades[sym].append(event)
        self.times[sym] = max(self.times[sym], event["t"])

    def of(self, sym: str) -> dict[str, Any]:
        trades, latest = self.trades[sym], self.quotes.get(sym, {})
        volume = [t for t in trades if self._rule(t) & VOLUME]
        ranged = [t["p"] for t in trades if self._rule(t) & HIGH_LOW]
        lasts = [t for t in trades if self._rule(t) & LAST]
        size = sum((Decimal(repr(t["s"])) for t in volume), Decimal(0))
        worth = sum((Decimal(repr(t["s"])) * Decimal(repr(t["p"])) for t in volume), Decimal(0))
        last = max(enumerate(lasts), key=lambda x: (x[1]["t"], x[0]))[1]["p"] if lasts else self.lasts.get(sym)
        first = min(lasts, key=lambda t: t["t"])["p"] if lasts else None
        base = self.closes.get(sym, first)
        change = None if last is None or base is None else Decimal(repr(last)) - Decimal(repr(base))
        sizes = latest["ev"] != "C" if latest else True
        return {
            "last": last,
            "bid": latest.get("b", latest.get("bp")) or None,
            "ask": latest.get("a", latest.get("ap")) or None,
            "bid_size": latest.get("bs") if sizes else None,
            "ask_size": latest.get("as") if sizes else None,
            "open": first,
            "high": max(ranged, default=None),
            "low": min(ranged, default=None),
            "volume": float(size),
            "vwap": float(Fraction(worth) / Fraction(size)) if size else None,
            "trades": len(volume),
            "prev_close": self.closes.get(sym),
            "change": None if change is None else float(change),
            "change_pct": None if change is None else round(float(100 * Fraction(change) / Fraction(Decimal(repr(base)))), 4),
            "rel_volume": None,
            "ts": self.times[sym],
        }

    def _roll(self, continuous: bool, day: str) -> None:
        for sym in [s for s, kind in self.kinds.items() if kind is continuous]:
            last = self.of(sym)["last"]
            if last is not None:
                self.closes[sym] = self.lasts[sym] = last
            self.trades[sym] = []
        self.days[continuous] = day

    def _rule(self, event: Event) -> int:
        return rule_of(event["c"]) if event["ev"] == "T" else rule_of(None)


@pytest.mark.parametrize("seed", range(12))
def test_quotes_equal_the_naive_model(seed: int) -> None:
    """Every field of every symbol, after any mix of late trades, conditions, markets, days and flushes, also hand-overs."""
    dice, desk, plain = Dice(seed), Desk(), PlainQuotes()
    pause_ms = (300, 60_000, 900_000)[seed % 3]
    for _ in range(60):
        events = [dice.event(pause_ms) for _ in range(dice.random.randint(1, 12))]
        desk.now_ms = max(desk.now_ms, dice.now)
        for run in dice.batches(events):
            desk.feed(*run)
        for event in events:
            plain.take(event)
        found = desk.flush().channels("quote")
        assert {s: {k: v for k, v in data.items() if k != "session"} for s, data in found.items()} == {
            sym: plain.of(sym) for sym in found
        }, f"seed {seed}"
        if dice.random.random() < 0.1:
            desk.hand_over()
    assert found.keys() == plain.kinds.keys()


def test_fields_are_those_of_the_catalogue() -> None:
    """The published state has the catalogue's fields in its order."""
    assert QuoteData.__struct_fields__ == QUOTE_FIELDS
    desk = Desk()
    desk.feed(quote())
    assert tuple(desk.flush().data("quote:A")) == QUOTE_FIELDS


def test_a_late_trade_moves_totals_but_not_the_last_price() -> None:
    """Out of order by time: volume, high and low count, last stays; earlier than the first it gives the open."""
    desk = Desk()
    desk.feed(trade(p=10, t=START_MS + 5), trade(p=12, t=START_MS + 2), trade(p=11, t=START_MS + 5))
    data = desk.flush().data("quote:A")
    assert (data["last"], data["open"], data["high"], data["low"], data["volume"], data["ts"]) == (
        11,
        12,
        12,
        10,
        300,
        START_MS + 5,
    )


def test_sums_of_fractions_are_exact() -> None:
    """A thousand tenths are a hundred, not 99.9999999999986."""
    desk = Desk()
    desk.feed(*[trade("X:BTC-USD", 0.1, 0.1, START_MS + n, ev="XT") for n in range(1000)])
    data = desk.flush().data("quote:X:BTC-USD")
    assert (data["volume"], data["vwap"], data["trades"]) == (100, 0.1, 1000)
    assert isinstance(data["volume"], int)


def test_changes_carry_no_float_dust() -> None:
    """A difference of decimals is a decimal, the average is left as exact as a float can be."""
    assert difference(4775.34, 4725.0) == 50.34
    desk = Desk(reference={"A": Known(4725.0, 1_000.0)})
    desk.feed(trade(p=4775.34, s=3), trade(p=4775.33, s=4))
    data = desk.flush().data("quote:A")
    assert (data["change"], data["change_pct"], data["rel_volume"]) == (50.33, 1.0652, 0.007)
    assert data["vwap"] == float(Fraction("4775.34") * Fraction(3, 7) + Fraction("4775.33") * Fraction(4, 7))


def test_a_new_day_keeps_the_price_and_forgets_the_totals() -> None:
    """At midnight last becomes the previous close for every symbol of the market, also for those that stay silent."""
    desk = Desk()
    desk.now_ms = START_MS + 2 * DAY_MS
    desk.feed(trade("A", 10), trade("B", 20), trade("X:BTC-USD", 5, ev="XT"))
    desk.feed(quote("C1"))
    desk.flush()
    desk.feed(trade("A", 11, t=START_MS + DAY_MS))
    cache = desk.flush()
    a, b, crypto, silent = (cache.data(f"quote:{s}") for s in ("A", "B", "X:BTC-USD", "C1"))
    assert (a["last"], a["open"], a["volume"], a["prev_close"], a["change"]) == (11, 11, 100, 10, 1)
    assert (b["last"], b["open"], b["volume"], b["trades"], b["prev_close"], b["change"]) == (20, None, 0, 0, 20, 0)
    assert (crypto["volume"], crypto["prev_close"]) == (100, None)
    assert (silent["last"], silent["bid"], silent["change"]) == (None, 9.9, None)
    desk.feed(trade("B", 99, t=START_MS))  # of yesterday: today is none of its business
    assert desk.flush().data("quote:B")["last"] == 20


def test_a_new_session_reaches_silent_symbols() -> None:
    """When the market opens, a symbol without trades says so too."""
    desk = Desk()
    pre, regular = NOON_ET - 4 * 3_600_000, NOON_ET
    desk.feed(quote("A", t=pre), quote("B", t=pre), quote("X:BTC-USD", t=pre, ev="XQ"))
    assert desk.flush().data("quote:B")["session"] == "pre"
    desk.feed(quote("A", t=regular))
    cache = desk.flush()
    assert (cache.data("quote:A")["session"], cache.data("quote:B")["session"]) == ("regular", "regular")
    assert cache.documents["quote:X:BTC-USD"]["seq"] == 1


def test_a_feed_of_seconds_alone_makes_quotes() -> None:
    """Without trades the vendor's aggregates give last, range and the day's official totals."""
    desk = Desk()
    desk.feed(bar("A", START_MS, 10, av=5_000, a=9.5, op=9.0), bar("A", START_MS + 1_000, 12, av=5_100, a=9.6, op=9.0))
    data = desk.flush().data("quote:A")
    assert (data["last"], data["open"], data["high"], data["low"]) == (12, 9.0, 13, 9)
    assert (data["volume"], data["vwap"], data["trades"], data["change"]) == (5_100, 9.6, 0, 3.0)


def test_official_totals_fill_in_for_trades_before_we_joined() -> None:
    """Joined at noon, the day's volume is the vendor's until ours is larger; prices are those of our trades."""
    desk = Desk()
    desk.feed(trade(p=10, s=100))
    desk.feed(bar("A", START_MS, 11, av=1_000, a=8.5, op=8.0))
    data = desk.flush().data("quote:A")
    assert (data["last"], data["volume"], data["vwap"], data["trades"], data["open"]) == (10, 1_000, 8.5, 1, 8.0)
    desk.feed(trade(p=10, s=5_000, t=START_MS + 5))
    data = desk.flush().data("quote:A")
    assert (data["volume"], data["vwap"], data["trades"]) == (5_100, 10, 2)


@pytest.mark.parametrize(("kinds", "volume"), [(("XAS",), 300), (("XA",), 100), (("XAS", "XA"), 300)])
def test_pairs_volume_is_summed_from_one_kind_of_aggregates(kinds: tuple[str, ...], volume: int) -> None:
    """Pairs have no official total: seconds or minutes are added up, never both."""
    desk = Desk()
    start = START_MS - START_MS % 60_000
    if "XAS" in kinds:
        desk.feed(*[bar("XAS", start + n * 1_000, 10, "X:BTC-USD") for n in range(3)])
    if "XA" in kinds:
        desk.feed(bar("XA", start, 10, "X:BTC-USD"))
    assert desk.flush().data("quote:X:BTC-USD")["volume"] == volume


def test_the_last_minute_of_a_day_belongs_to_it() -> None:
    """A bar that ends at midnight does not keep its day's totals alive into the next."""
    desk = Desk()
    midnight = START_MS - START_MS % DAY_MS + DAY_MS
    desk.now_ms = midnight + DAY_MS
    desk.feed(bar("XA", midnight - 60_000, 10, "X:BTC-USD"))
    desk.flush()
    desk.feed(bar("XA", midnight, 11, "X:BTC-USD"))
    data = desk.flush().data("quote:X:BTC-USD")
    assert (data["volume"], data["prev_close"], data["open"]) == (100, 10, 10.5)


def test_forex_has_no_sizes_and_an_empty_side_no_price() -> None:
    """What the vendor does not give is null, and so is a bid of 0."""
    desk = Desk()
    desk.feed(quote("EUR/USD", 1.0831, 1.0833, ev="C"))
    desk.feed(quote("A", 0, 10.5))
    cache = desk.flush()
    forex, stock = cache.data("quote:EUR/USD"), cache.data("quote:A")
    assert (forex["bid"], forex["ask"], forex["bid_size"], forex["ask_size"]) == (1.0831, 1.0833, None, None)
    assert (stock["bid"], stock["ask"]) == (None, 10.5)


def test_an_index_has_a_value_and_no_volume() -> None:
    """Values give last, open and range; an older one changes nothing."""
    desk = Desk()
    values = [(3_988.5, 0), (3_990.0, 2), (3_980.0, 1)]
    desk.feed(*[{"ev": "V", "T": "I:SPX", "val": value, "t": START_MS + t} for value, t in values])
    data = desk.flush().data("quote:I:SPX")
    assert (data["last"], data["open"], data["high"], data["low"], data["volume"]) == (3_990, 3_988.5, 3_990, 3_988.5, 0)
    assert data["change"] == 1.5


def test_an_impossible_time_is_a_bad_event_from_the_first_batch_on() -> None:
    """A year ahead would end the day for every symbol: it is refused, kept, and its batch goes on."""
    desk = Desk()
    desk.feed(trade(p=10, t=START_MS + 366 * DAY_MS), trade(p=11))
    cache = desk.flush()
    assert cache.data("quote:A")["last"] == 11
    assert desk.partition.counts.bad == 1
    assert "more than a day ahead" in cache.letters[0]["reason"]


def test_symbols_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of invented symbols is refused; those known go on."""
    monkeypatch.setattr("mdp.analyzer.SYMBOLS_MAX", 3)
    desk = Desk()
    desk.feed(*[quote(f"S{n}") for n in range(5)], quote("S0", 5))
    cache = desk.flush()
    assert sorted(cache.channels("quote")) == ["S0", "S1", "S2"]
    assert cache.data("quote:S0")["bid"] == 5
    assert desk.partition.counts.bad == 2
