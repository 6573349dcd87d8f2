"""Tests quotes against a model that remembers every trade and sums with fractions."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mdc.channels import QUOTE_FIELDS
from mdp.analyzers.quote import QuoteData, difference
from mdp.enrich.facts import Seen
from mdp.events.conditions import EXTENDED, HIGH_LOW, LAST, VOLUME, rule_of
from mdp.reference import Known
from service.days.markets import STOCKS
from tests.mdp.days.test_calendar import ms
from tests.mdp.feed import START_MS, Desk, Dice, Event, bar, batch, pass_time, quote, trade

NEW_YORK = ZoneInfo("America/New_York")
DAY_MS = 86_400_000
NOON_ET = START_MS - START_MS % DAY_MS + 17 * 3_600_000


def plain_day(ts: int, continuous: bool) -> str:
    if continuous:
        return str(ts // DAY_MS)
    moment = datetime.fromtimestamp(ts / 1000, NEW_YORK)
    return str(moment.date() - timedelta(days=moment.hour < 4))


class PlainQuotes:
    """The naive model: it keeps every trade of the day and looks at all of them when asked."""

    def __init__(self) -> None:
        self.days = {True: "", False: ""}
        self.trades: defaultdict[str, list[Event]] = defaultdict(list)
        self.quotes: dict[str, Event] = {}
        self.times: defaultdict[str, int] = defaultdict(int)
        self.closes: dict[str, float] = {}
        self.lasts: dict[str, Event] = {}
        self.kinds: dict[str, bool] = {}

    def take(self, event: Event) -> None:
        continuous = event["ev"] in ("XT", "XQ", "C")
        sym = event["p"] if event["ev"] == "C" else event.get("sym") or event["pair"]
        day = plain_day(event["t"], continuous)
        if event["ev"] == "C":
            pass  # pairs of currencies have days of their own, and no trades
        elif event["ev"] in ("Q", "XQ") and self.days[continuous]:
            pass  # trades of before may still wait in their queue
        elif len(day) > len(self.days[continuous]) or day > self.days[continuous]:
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
        ranged = [t["p"] for t in trades if self._rule(t) & HIGH_LOW and not self._rule(t) & EXTENDED]
        ranged = ranged or [t["p"] for t in trades if self._rule(t) & HIGH_LOW]
        lasts = [t for t in trades if self._rule(t) & LAST]
        regular = self._regular(trades)
        size = sum((Decimal(repr(t["s"])) for t in volume), Decimal(0))
        worth = sum((Decimal(repr(t["s"])) * Decimal(repr(t["p"])) for t in volume), Decimal(0))
        newest = self._newest(lasts) if lasts else self.lasts.get(sym)
        last = None if newest is None else newest["p"]
        first = min(regular, key=lambda t: t["t"])["p"] if regular else None
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
            **dict.fromkeys(("prev_open", "prev_high", "prev_low", "prev_volume", "prev_vwap", "avg_volume", "float")),
            "open_change": None if last is None or first is None else float(Decimal(repr(last)) - Decimal(repr(first))),
            "spread": self._spread(latest),
            "last_size": None if newest is None else newest["s"],
            "news_ts": None,
        }

    def _spread(self, latest: Event) -> float | None:
        bid, ask = latest.get("b", latest.get("bp")), latest.get("a", latest.get("ap"))
        return float(Decimal(repr(ask)) - Decimal(repr(bid))) if bid and ask else None

    def _roll(self, continuous: bool, day: str) -> None:
        for sym in [s for s, kind in self.kinds.items() if kind is continuous]:
            lasts, regular = [t for t in self.trades[sym] if self._rule(t) & LAST], self._regular(self.trades[sym])
            if lasts:
                self.lasts[sym] = self._newest(lasts)
            if regular:
                self.closes[sym] = self._newest(regular)["p"]
            self.trades[sym] = []
        self.days[continuous] = day

    def _regular(self, trades: list[Event]) -> list[Event]:
        return [t for t in trades if self._rule(t) & LAST and not self._rule(t) & EXTENDED]

    def _newest(self, trades: list[Event]) -> Event:
        return max(enumerate(trades), key=lambda x: (x[1]["t"], x[0]))[1]

    def _rule(self, event: Event) -> int:
        return rule_of(event["c"]) if event["ev"] == "T" else rule_of(None)


@pytest.mark.parametrize("seed", range(12))
def test_quotes_equal_the_naive_model(seed: int) -> None:
    """Every field of every symbol, after any mix of late trades, conditions, markets, days and flushes, also hand-overs."""
    dice, desk, plain = Dice(seed), Desk(), PlainQuotes()
    desk.partition._time_handlers.clear()  # the model's days go by events alone
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
            desk.partition._time_handlers.clear()
    assert found.keys() == plain.kinds.keys()


def test_fields_are_those_of_the_catalogue() -> None:
    """The published state has the catalogue's fields in its order."""
    assert QuoteData.__struct_encode_fields__ == QUOTE_FIELDS
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
    desk.feed(trade("A", t=regular))
    cache = desk.flush()
    assert (cache.data("quote:A")["session"], cache.data("quote:B")["session"]) == ("regular", "regular")
    assert cache.documents["quote:X:BTC-USD"]["seq"] == 1


def test_quotes_of_the_next_day_leave_the_trades_of_this_one_that_still_wait() -> None:
    """Quotes have a queue of their own, which a replay at full speed may be ahead in by a night."""
    desk, opens = Desk(), NINE_THIRTY + 86_400_000
    desk.feed(quote(t=NINE_THIRTY), trade(p=10, t=NINE_THIRTY))
    desk.feed(quote(t=opens))
    desk.feed(trade(p=11, t=NINE_THIRTY + 60_000))
    assert shown(desk, "last", "volume", "prev_close", "session") == (11, 200, None, "regular")
    desk.feed(trade(p=12, t=opens))
    assert shown(desk, "last", "volume", "prev_close") == (12, 100, 11)
    assert "earlier_day" not in desk.partition.counts.discarded


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
    pass_time(desk, midnight + 60_000, "aggregates")
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


NINE_THIRTY = NOON_ET - 150 * 60_000  # of the same day in New York
FORM_T, FORM_T_LATE, ODD_LOT = [12], [13], [37]


def shown(desk: Desk, *names: str, sym: str = "A") -> tuple[Any, ...]:
    data = desk.flush().data(f"quote:{sym}")
    return tuple(data[name] for name in names)


def test_the_hours_before_the_opening_are_not_empty() -> None:
    """Form T moves last, and high and low until the regular session has its own; it never gives the official open."""
    desk, early = Desk(reference={"A": Known(9.0, None)}), NINE_THIRTY - 3_600_000
    desk.feed(trade(p=10, t=early, c=FORM_T), trade(p=12, t=early + 1, c=FORM_T), trade(p=11, t=early + 2, c=FORM_T))
    names = ("session", "last", "open", "high", "low", "volume", "change")
    assert shown(desk, *names) == ("pre", 11, None, 12, 10, 300, 2)
    desk.hand_over()
    desk.feed(trade(p=10.5, t=NINE_THIRTY), trade(p=13, t=NINE_THIRTY - 1, c=FORM_T), trade(p=10.6, t=NINE_THIRTY + 1))
    assert shown(desk, *names[:-1]) == ("regular", 10.6, 10.5, 10.6, 10.5, 600)


def test_the_hours_after_the_close_leave_the_official_values() -> None:
    """Form T moves last and volume; high, low and open stay; tomorrow's previous close is the regular session's."""
    desk, close = Desk(), NINE_THIRTY + 390 * 60_000
    desk.feed(trade(p=10, t=NINE_THIRTY), trade(p=11, t=close - 1))
    desk.feed(trade(p=15, t=close + 1, c=FORM_T), trade(p=5, t=close + 2, c=FORM_T))
    names = ("session", "last", "open", "high", "low", "volume")
    assert shown(desk, *names) == ("post", 5, 10, 11, 10, 400)
    desk.hand_over()
    desk.feed(trade(p=11.5, t=close))  # the closing auction, reported behind them
    assert shown(desk, *names) == ("post", 5, 10, 11.5, 10, 500)
    desk.feed(trade(p=9, t=close + 17 * 3_600_000, c=[44]))
    assert shown(desk, "last", "prev_close", "high") == (5, 11.5, None)


def test_late_reports_of_extended_hours_and_odd_lots_do_not_move_last() -> None:
    """Out of sequence `t` is the time of the report: high, low and volume count; an odd lot counts as volume alone."""
    desk, early = Desk(), NINE_THIRTY - 3_600_000
    desk.feed(trade(p=10, t=early, c=FORM_T), trade(p=14, t=early + 5, c=FORM_T_LATE))
    desk.feed(trade(p=99, t=early + 6, c=FORM_T + ODD_LOT))
    assert shown(desk, "last", "high", "low", "volume") == (10, 14, 10, 300)


def test_aggregates_of_extended_hours_leave_the_official_values() -> None:
    """The vendor's bars from 04:00 to 09:30 and after 16:00 move last; open, high and low are those of the regular ones."""
    desk, close = Desk(), NINE_THIRTY + 390 * 60_000
    desk.feed(bar("AM", NINE_THIRTY - 60_000, 10))
    assert shown(desk, "last", "open", "high", "low") == (10, None, 11, 9)
    desk.feed(bar("AM", NINE_THIRTY, 10.25), bar("AM", close, 20))
    assert shown(desk, "last", "open", "high", "low") == (20, 9.75, 11.25, 9.25)


def test_a_canceled_option_trade_is_taken_back() -> None:
    """It counts no more, and is no new trade; one that we have not seen takes nothing back."""
    desk, option = Desk(), "O:SPY251219C00650000"
    desk.feed(trade(option, 2.5, 10, c=[209]), trade(option, 3, 4, START_MS + 1, [219]))
    desk.feed(trade(option, 3, 4, START_MS + 2, [203]), trade(option, 9, 5_000, START_MS + 3, [201]))
    assert shown(desk, "volume", "vwap", "trades", "last", sym=option) == (10, 2.5, 1, 3)


def test_fractions_of_shares_count() -> None:
    """The decimal beside the whole number is the size: 0.25 of a share is not none."""
    desk = Desk()
    desk.feed({**trade(p=10, s=0), "ds": "0.25"}, {**trade(p=10, s=3), "ds": "3.5"}, trade(p=10, s=1))
    assert shown(desk, "volume", "vwap") == (4.75, 10)
    assert [event["size"] for event in desk.cache.events("trades:A")] == [0.25, 3.5, 1]
    desk.feed(bar("A", START_MS, 10, "B", v=7, dv="7.125", av=1_000, dav="1000.0625", a=9.5))
    assert shown(desk, "volume", sym="B") == (1000.0625,)


def test_a_futures_day_is_chicagos() -> None:
    """New York's midnight is in the middle of it; at 17:00 in Chicago the next one begins."""
    desk, evening = Desk(), START_MS + 3_600_000  # 17:13 in Chicago
    desk.feed(trade("ESZ3", 4_500, t=evening), trade("ESZ3", 4_510, t=evening + 10 * 3_600_000))
    assert shown(desk, "open", "last", "volume", "session", sym="ESZ3") == (4_500, 4_510, 200, "regular")
    desk.feed(trade("ESZ3", 4_520, t=evening + 24 * 3_600_000))
    assert shown(desk, "open", "volume", "prev_close", sym="ESZ3") == (4_520, 100, 4_510)


def venue(x: int, bp: float, ap: float, t: int, bs: float = 1, a_s: float = 1) -> Event:
    return {**quote("X:BTC-USD", bp, ap, t, bs, a_s, "XQ"), "x": x}


@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_many_venues_is_shown(seed: int) -> None:
    """Bid and ask are the best over each venue's newest quote, those silent for five minutes left out, also after a hand-over."""
    dice, desk = Dice(seed), Desk()
    newest: dict[int, Event] = {}
    now = START_MS
    for _ in range(300):
        now += dice.random.choice((10, 1_000, 40_000))
        bid, ask = (dice.random.choice((0, round(dice.random.uniform(*span), 1))) for span in ((9, 10), (10, 11)))
        event = venue(dice.random.choice((1, 1, 1, 2, 6, 23)), bid, ask, now, dice.random.randint(1, 9), 0.5)
        newest[event["x"]] = event
        desk.feed(event)
        alive = [e for e in newest.values() if e["t"] >= now - 300_000]
        bids = [(e["bp"], e["bs"]) for e in alive if e["bp"]]
        asks = [(e["ap"], -e["as"]) for e in alive if e["ap"]]
        found = shown(desk, "bid", "ask", sym="X:BTC-USD")
        assert found == (max(bids)[0] if bids else None, min(asks)[0] if asks else None), f"seed {seed}"
        if bids:
            assert shown(desk, "bid_size", sym="X:BTC-USD") == (max(bids)[1],)
        if dice.random.random() < 0.1:
            desk.hand_over()


def test_venues_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was heard first goes when there are too many."""
    monkeypatch.setattr("mdp.events.bbo.VENUES_MAX", 2)
    desk = Desk()
    desk.feed(venue(1, 12, 13, START_MS), venue(2, 10, 11, START_MS), venue(1, 12, 13, START_MS), venue(3, 9, 20, START_MS))
    assert shown(desk, "bid", "ask", sym="X:BTC-USD") == (12, 13)


def test_a_day_ends_when_its_time_has_come_without_an_event() -> None:
    """The listener's marks tell the feed's time: session and day change once, with nothing traded and nothing lost to the next day."""
    desk = Desk()
    friday, monday = ms("2026-11-20 19:59:59"), ms("2026-11-23 04:00:00")
    desk.feed(trade(p=10, t=friday))
    desk.feed(quote(t=friday))
    desk.flush()

    last_ms = friday

    def mark(stream: str, at_ms: int) -> dict[str, Any]:
        nonlocal last_ms
        desk.now_ms += at_ms - last_ms + 1_000
        last_ms = at_ms
        desk.deliver(replace(batch([], stream, 1), feed_ns=at_ms * 1_000_000))
        return dict(desk.flush().data("quote:A"))

    for at_ms in (friday, friday, monday - 1):
        for stream in ("trades", "quotes"):
            held = mark(stream, at_ms)
    assert (held["session"], held["volume"], held["prev_close"]) == ("closed", 100, None)
    assert mark("quotes", monday)["volume"] == 100, "the trades have not come as far"
    begun = mark("trades", monday)
    assert (begun["session"], begun["volume"], begun["last"], begun["open"], begun["prev_close"]) == ("pre", 0, 10, None, 10)
    seq = desk.cache.documents["quote:A"]["seq"]
    for stream in ("trades", "quotes"):
        mark(stream, monday + 60_000)
    assert desk.cache.documents["quote:A"]["seq"] == seq
    desk.hand_over()
    desk.feed(trade(p=11, t=monday + 1))
    assert desk.flush().data("quote:A")["volume"] == 100


def test_a_mark_before_anything_has_come_says_no_time() -> None:
    """A listener that has not yet read its tape does not know its time: the wall clock would end the tape's day."""
    desk = Desk()
    desk.feed(trade(p=10), quote())
    for _ in range(5):
        desk.now_ms += 1_000
        desk.deliver(replace(batch([], "trades", 2), feed_ns=0))
    assert desk.flush().data("quote:A")["volume"] == 100


TODAY_MS = STOCKS.day_of(NINE_THIRTY).start_ms


def test_facts_reach_quotes_that_are_there_and_those_that_come() -> None:
    """Of their trading day alone; what was derived of the old ones is derived again, and a checkpoint holds them."""
    desk, known = Desk(), Known(8.0, 1_000, 5_000, 7.0, 9.0, 6.0, 300, 7.5)
    desk.feed(trade(p=10, t=NINE_THIRTY))
    desk.flush()
    for analyzer in desk.partition.analyzers:
        analyzer.on_facts(TODAY_MS, {"A": known, "B": known})
        analyzer.on_facts(TODAY_MS - DAY_MS, {"C": known})
    desk.feed(trade("B", t=NINE_THIRTY + 1), trade("C", t=NINE_THIRTY + 1))
    desk.flush()
    fields = ("prev_close", "change", "rel_volume", "prev_open", "prev_high", "prev_low", "prev_volume", "prev_vwap", "float")
    assert shown(desk, *fields) == shown(desk, *fields, sym="B") == (8.0, 2.0, 0.1, 7.0, 9.0, 6.0, 300, 7.5, 5_000)
    assert shown(desk, *fields[2:], sym="C") == (None,) * 7
    desk.hand_over()
    desk.feed(trade(p=11, t=NINE_THIRTY + 2))
    desk.flush()
    assert shown(desk, "change", "rel_volume", "prev_low", "avg_volume") == (3.0, 0.2, 6.0, 1_000)


def test_the_next_day_knows_nothing_of_the_last_ones_facts() -> None:
    """Its own close is the previous one until the vendor says more; a file's lasting columns stay."""
    desk = Desk(reference={"B": Known(5.0, 700, 9_000, 4.0)})
    for analyzer in desk.partition.analyzers:
        analyzer.on_facts(TODAY_MS, {"A": Known(8.0, 1_000, 5_000, 7.0)})
    desk.feed(trade(p=10, t=NINE_THIRTY), trade("B", p=20, t=NINE_THIRTY))
    desk.flush()
    fields = ("prev_close", "avg_volume", "float", "prev_open")
    assert (shown(desk, *fields), shown(desk, *fields, sym="B")) == ((8.0, 1_000, 5_000, 7.0), (5.0, 700, 9_000, 4.0))
    tomorrow = NINE_THIRTY + DAY_MS
    desk.feed(trade(p=11, t=tomorrow), trade("B", p=21, t=tomorrow))
    desk.flush()
    assert (shown(desk, *fields), shown(desk, *fields, sym="B")) == ((10, None, None, None), (20, 700, 9_000, None))
    for analyzer in desk.partition.analyzers:
        analyzer.on_facts(STOCKS.day_of(tomorrow).start_ms, {"A": Known(9.9, 1_100), "B": Known(19.9, 800, 1)})
    desk.flush()
    assert (shown(desk, *fields), shown(desk, *fields, sym="B")) == ((9.9, 1_100, None, None), (19.9, 700, 9_000, None))


@pytest.mark.parametrize("seed", range(4))
def test_who_joins_at_noon_ends_with_the_numbers_of_who_saw_the_morning(seed: int) -> None:
    """Facts, one snapshot, and the feed's aggregates from then on: all but the count of trades is the same."""
    dice, morning, noon = random.Random(seed), Desk(), Desk()
    known = {"A": Known(9.0, 1_000, 5_000, 8.0, 10.0, 7.0, 900, 9.5)}
    volume, worth, prices = 0, 0.0, list[float]()
    for number in range(120):
        ts = NINE_THIRTY + number * 120_000
        made = trade(p=round(dice.uniform(8, 12), 2), s=dice.randrange(1, 500), t=ts)
        volume, worth = volume + made["s"], worth + made["s"] * made["p"]
        prices.append(made["p"])
        seen = [morning] if number < 60 else [morning, noon]
        if number == 60:  # noon joins with this trade, and learns the rest when some more have come
            snapshot = Seen(ts - 1, volume - made["s"], 9.9, prices[0], max(prices[:-1]), min(prices[:-1]))
        for desk in seen:
            desk.feed(made)
        if number == 70:
            for analyzer in noon.partition.analyzers:
                analyzer.on_facts(TODAY_MS, known)
                analyzer.on_seen(TODAY_MS, {"A": snapshot})
        if number == 0:
            for analyzer in morning.partition.analyzers:
                analyzer.on_facts(TODAY_MS, known)
        made_bar = bar(
            "AM", ts, made["p"], h=made["p"], l=made["p"], o=made["p"], av=volume, a=round(worth / volume, 4), op=prices[0]
        )
        for desk in seen:
            desk.feed(made_bar)
    first, late = (desk.flush().data("quote:A") for desk in (morning, noon))
    assert late.pop("trades") < first.pop("trades")
    assert late.pop("vwap") == pytest.approx(first.pop("vwap"), abs=1e-4)  # the vendor gives four decimals
    assert late == first


def test_a_snapshot_of_the_pre_market_has_no_official_values() -> None:
    """Before 09:30 only the volume counts."""
    desk, early = Desk(), NINE_THIRTY - 3_600_000
    desk.feed(trade(p=10, t=early, c=[12]))
    for analyzer in desk.partition.analyzers:
        analyzer.on_seen(TODAY_MS, {"A": Seen(early, 900, 9.5, 9.0, 12.0, 8.0)})
    desk.flush()
    assert shown(desk, "open", "high", "low", "volume", "vwap") == (None, 10, 10, 900, 9.5)


def test_a_quote_says_when_its_newest_article_was_published() -> None:
    """Whatever order they come in, also before anybody trades it, over a day and a hand-over; a symbol without news has null."""

    def article(sym: str, ts: int) -> Event:
        return {"ev": "news", "sym": sym, "id": f"{sym}{ts}", "title": "t", "url": "", "source": "s", "summary": "", "tickers": [sym],
                "more": 0, "t": ts}  # fmt: skip

    desk = Desk()
    desk.feed(article("A", START_MS), article("A", START_MS - 60_000), source="news")
    desk.feed(trade("A"), trade("B"))
    cache = desk.flush()
    assert [cache.data(f"quote:{sym}")["news_ts"] for sym in "AB"] == [START_MS, None]
    desk.feed(article("B", START_MS + 5_000), article("A", START_MS - 9_000), source="news")
    desk.hand_over()
    desk.feed(trade("A", t=START_MS + 86_400_000), trade("B", t=START_MS + 86_400_000))
    cache = desk.flush()
    assert [cache.data(f"quote:{sym}")["news_ts"] for sym in "AB"] == [START_MS, START_MS + 5_000]
