"""Every field of every payload, from documents as the processors write them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdc.channels import KINDS
from wds.compat import payloads
from wds.compat.feeds import FAMILIES, Family
from wds.compat.payloads import Ranges, read

TS = 1_785_250_800_250  # Tuesday 2026-07-28, 11:00 in New York, and a quarter of a second
QUOTE = {
    "last": 110.0, "bid": 109.9, "ask": 110.1, "bid_size": 200, "ask_size": 300, "open": 100.0, "high": 112.0, "low": 99.0,
    "volume": 5000, "vwap": 105.5, "trades": 50, "prev_close": 88.0, "change": 22.0, "change_pct": 25.0, "rel_volume": 2.5,
    "session": "regular", "ts": TS,
}  # fmt: skip
QUOTE_PAYLOAD = {
    "symbol": "ABC", "volume": None, "accumulated_volume": 5000, "relative_volume": 2.5, "official_open_price": 100.0,
    "vwap": 105.5, "open": 100.0, "close": 110.0, "aggregate_vwap": 105.5, "average_size": 100, "avg_volume": 2000,
    "prev_day_open": None, "prev_day_high": None, "prev_day_low": None, "prev_day_volume": None, "prev_day_vwap": None,
    "high": 112.0, "low": 99.0, "free_float": None, "prev_day_close": 88.0, "change": 22.0, "pct_change": 25.0,
    "change_since_open": 10.0, "pct_change_since_open": 10.0, "start_timestamp": TS - 250, "end_timestamp": TS + 750,
}  # fmt: skip
BOARD = {
    "order": ["ABC", "NEW"],
    "rows": {
        "NEW": {"sym": "NEW", "last": 5.0, "volume": 0},
        "ABC": {
            "sym": "ABC", "last": 110.0, "change": 22.0, "change_pct": 25.0, "volume": 5000, "gap_pct": 13.6364,
            "open_change_pct": 10.0, "dollar_volume": 527_500.0, "rel_volume": 2.5, "float": 1_000_000, "trades": 50, "news_ts": None,
        },
    },
}  # fmt: skip
ROW_PAYLOAD = {
    **QUOTE_PAYLOAD, "rank": 1, "high": None, "low": None, "free_float": 1_000_000, "start_timestamp": None, "end_timestamp": None,
}  # fmt: skip
NEW_PAYLOAD = {
    **dict.fromkeys(ROW_PAYLOAD), "rank": 2, "symbol": "NEW", "close": 5.0, "accumulated_volume": 0,
}  # fmt: skip
ALERT = {
    "sym": "ABC", "kind": "new_high", "price": 112.0, "prev": 111.0, "value": None, "session": "pre",
    "note": "above the pre-market high of 111.00", "high_band": None, "low_band": None, "quote": QUOTE, "ts": TS,
}  # fmt: skip
ARTICLE = {
    "id": "n1", "title": "ABC rises", "url": "https://example.com/1", "source": "example.com", "summary": "Again.",
    "tickers": ["ABC", "X:BTCUSD"], "more": 0, "ts": TS,
}  # fmt: skip
BAR = {
    "t": TS - 250,
    "open": 1.0,
    "high": 3.0,
    "low": 0.5,
    "close": 2.0,
    "volume": 30,
    "vwap": 1.5,
    "trades": 3,
    "i": 1,
    "rev": 0,
}


def shaped(shape: payloads.Shape, symbol: str, *documents: tuple[str, Any]) -> Any:
    return shape(symbol, [None if one is None else read(kind, json.dumps(one).encode()) for kind, one in documents])


def test_a_quote() -> None:
    """All that is known of it; what nobody here knows is null, and what follows from other fields is computed."""
    assert shaped(payloads.quote, "ABC", ("quote", QUOTE)) == QUOTE_PAYLOAD
    facts = {
        "prev_open": 90.0, "prev_high": 91.0, "prev_low": 85.0, "prev_volume": 7000, "prev_vwap": 88.5, "avg_volume": 2001,
        "float": 1_000_000, "open_change": 10.0, "spread": 0.2, "last_size": 100,
    }  # fmt: skip
    assert shaped(payloads.quote, "ABC", ("quote", QUOTE | facts)) == {
        **QUOTE_PAYLOAD, "prev_day_open": 90.0, "prev_day_high": 91.0, "prev_day_low": 85.0, "prev_day_volume": 7000,
        "prev_day_vwap": 88.5, "avg_volume": 2001, "free_float": 1_000_000,
    }  # fmt: skip


def test_a_scanner_is_a_ranked_list() -> None:
    """In the board's order, the open and the previous close made of the changes since then; an unknown number is null, never 0."""
    rows = shaped(payloads.board, "", ("board", BOARD))
    assert rows == [ROW_PAYLOAD, NEW_PAYLOAD]
    assert rows[0].keys() == rows[1].keys() == QUOTE_PAYLOAD.keys() | {"rank"}


def test_alerts_go_to_the_feed_of_their_side() -> None:
    """With the whole quote, seconds for milliseconds, and the original's names of sessions."""
    alert = {
        "session": "pre_market", "direction": "high", "price": 112.0, "previous": 111.0, "timestamp": TS / 1000,
        "note": "above the pre-market high of 111.00", **QUOTE_PAYLOAD,
    }  # fmt: skip
    assert shaped(payloads.high_alert, "", ("alerts", ALERT)) == alert
    assert shaped(payloads.low_alert, "", ("alerts", ALERT)) is None
    low = shaped(payloads.low_alert, "", ("alerts", {**ALERT, "kind": "new_low", "session": "post"}))
    assert (low["direction"], low["session"]) == ("low", "after_hours")
    lonely = shaped(payloads.high_alert, "", ("alerts", {**ALERT, "quote": None, "session": ""}))
    assert (lonely["symbol"], lonely["close"], lonely["session"], lonely.keys()) == ("ABC", None, "regular", alert.keys())


def test_an_article() -> None:
    """Its tickers are companies; only what may be one of the United States has one of the exchanges that the app shows."""
    assert shaped(payloads.article, "", ("news", ARTICLE)) == {
        "title": "ABC rises", "link": "https://example.com/1", "source": "example.com", "summary": "Again.",
        "publishDate": "2026-07-28T15:00:00.250+00:00", "language": None, "sentiment": None, "confidence": None, "content": None,
        "images": [],
        "companies": [
            {
                "ticker": "ABC", "name": "ABC", "companyId": None,
                "primaryListing": {"ticker": "ABC", "exchangeCode": "XNAS", "exchangeCountry": "US"},
            },
            {
                "ticker": "X:BTCUSD", "name": "X:BTCUSD", "companyId": None,
                "primaryListing": {"ticker": "X:BTCUSD", "exchangeCode": None, "exchangeCountry": None},
            },
        ],
    }  # fmt: skip


def test_raw_events_of_the_vendor() -> None:
    """Bands, a second's aggregate with the day's totals, a print, the best prices."""
    bands = {"state": "halted", "high_band": 9.0, "low_band": 7.0, "indicators": [17], "ts": TS}
    assert shaped(payloads.bands, "ABC", ("halts", bands)) == {
        "event_type": "LULD", "symbol": "ABC", "high_price": 9.0, "low_price": 7.0, "indicators": [17], "tape": None,
        "timestamp": TS, "sequence_number": None,
    }  # fmt: skip
    assert shaped(payloads.aggregate, "ABC", ("bars:1s", BAR), ("quote", QUOTE)) == {
        "event_type": "A", "symbol": "ABC", "volume": 30, "accumulated_volume": 5000, "official_open_price": 100.0, "vwap": 1.5,
        "open": 1.0, "close": 2.0, "high": 3.0, "low": 0.5, "aggregate_vwap": 105.5, "average_size": 10,
        "start_timestamp": TS - 250, "end_timestamp": TS + 750, "otc": None,
    }  # fmt: skip
    trade = {"price": 1.5, "size": 100, "ts": TS, "exchange": 4, "conditions": [12], "id": "7"}
    assert shaped(payloads.trade, "ABC", ("trades", trade)) == {
        "event_type": "T", "symbol": "ABC", "exchange": 4, "id": "7", "tape": None, "price": 1.5, "size": 100,
        "conditions": [12], "timestamp": TS, "sequence_number": None, "trf_id": None, "trf_timestamp": None,
    }  # fmt: skip
    assert shaped(payloads.best_prices, "ABC", ("quote", QUOTE)) == {
        "event_type": "Q", "symbol": "ABC", "bid_exchange_id": None, "bid_price": 109.9, "bid_size": 200, "ask_exchange_id": None,
        "ask_price": 110.1, "ask_size": 300, "condition": None, "indicators": None, "timestamp": TS, "sequence_number": None,
        "tape": None,
    }  # fmt: skip


def test_what_was_traded() -> None:
    """The last hour's sums, and the last price of the quote."""
    stats = {"trades_60m": 4, "volume_60m": 90, "average_60m": 22.506, "largest_60m": 60, "trades_1m": 1, "ts": TS}
    assert shaped(payloads.activity, "ABC", ("stats", stats), ("quote", QUOTE)) == {
        "timestamp": "2026-07-28T15:00:00.250+00:00", "symbol": "ABC", "total_volume": 90, "trade_count": 4, "avg_size": 22.51,
        "max_size": 60, "time_span_ms": 3_600_000, "latest_price": 110.0, "latest_timestamp": TS, "latest_exchange": "",
    }  # fmt: skip


def row(hour: int, minute: int, high: float, low: float, day: int = 28) -> list[Any]:
    """A closed bar of five minutes, by New York's clock."""
    start = TS - 250 - 11 * 3_600_000 + hour * 3_600_000 + minute * 60_000 + (day - 28) * 86_400_000
    return [start, 1.0, high, low, 1.0, 1, 1.0, 1]


def test_the_sessions_of_a_day() -> None:
    """Highs and lows of pre-market, regular session and after hours from the day's bars; the quote's are those of its own session."""
    history = [
        row(12, 0, 999.0, 0.1, day=27),
        row(4, 0, 95.0, 90.0),
        row(9, 25, 98.0, 94.0),
        row(9, 30, 104.0, 99.5),
        row(16, 5, 103.0, 101.0),
    ]
    ranges = Ranges()
    ranges.see(
        read("bars:5m", json.dumps({**BAR, "t": row(10, 55, 0, 0)[0], "high": 108.0, "low": 103.0, "history": history}).encode())
    )
    made = payloads.daily_range("ABC", [read("quote", json.dumps(QUOTE).encode()), ranges])
    assert made == {
        **QUOTE_PAYLOAD, "pre_market_high": 98.0, "pre_market_low": 90.0, "regular_session_high": 112.0,
        "regular_session_low": 99.0, "after_hours_high": 103.0, "after_hours_low": 101.0,
    }  # fmt: skip
    late = payloads.daily_range("ABC", [read("quote", json.dumps({**QUOTE, "session": "post"}).encode()), ranges])
    assert late["regular_session_high"] == 108.0, "after the close the quote keeps the regular session's range, its bars have it"
    alone = payloads.daily_range("ABC", [read("quote", json.dumps(QUOTE).encode()), None])
    assert (alone["pre_market_high"], alone["regular_session_high"]) == (None, 112.0)
    coin = payloads.daily_range("X:BTCUSD", [read("quote", json.dumps({**QUOTE, "session": "continuous"}).encode()), None])
    assert (coin["regular_session_low"], coin["after_hours_low"]) == (99.0, None)


def test_a_days_bars_are_all_that_is_kept() -> None:
    """Of bars that come for ever, those of a day stay; a corrected one takes the place of the one before."""
    ranges = Ranges()
    for at in range(2000):
        ranges.see(payloads.Bar(t=at * 300_000, high=float(at), low=0.0, prev=[(at - 1) * 300_000, 0, -1.0, -1.0]))
    assert len(ranges) <= 2 * 288


@given(
    st.lists(st.tuples(st.integers(0, 400), st.none() | st.integers(1, 9), st.none() | st.integers(1, 9)), max_size=40),
    st.integers(0, 3),
)
def test_ranges_that_grow_are_those_of_all_bars(seen: list[tuple[int, int | None, int | None]], every: int) -> None:
    """However bars come, are corrected and days change, and whenever somebody looks."""
    grown, last = Ranges(), {}
    for at, (t, high, low) in enumerate(seen):
        start = TS - 250 + (t - 200) * 300_000
        last[start] = (high, low)
        grown.see(payloads.Bar(t=start, high=high, low=low))
        day = payloads.MARKETS.named("stocks").day_of(start)
        if every and at % every == 0:
            grown.sessions(day)
        plain = Ranges()
        for one, edges in last.items():
            plain.see(payloads.Bar(t=one, high=edges[0], low=edges[1]))
        assert grown.sessions(day) == plain.sessions(day)
        inside = [edges for one, edges in last.items() if day.start_ms <= one < day.end_ms]
        highs = [value for (_, side), value in grown.sessions(day).items() if side == "high"]
        assert max(highs, default=None) == max((high for high, _ in inside if high is not None), default=None)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["order", "rows", "ts", "last", "t"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
FIELDS = sorted({name for kind in KINDS.values() for name in kind.fields} | {"order", "rows", "history"})


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.head)
@given(data=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=6))
def test_no_document_breaks_more_than_itself(family: Family, data: dict[str, Any]) -> None:
    """Whatever stands in a document: a payload that is JSON, or one of the faults that count it as malformed."""
    try:
        found = read(family.kind.name, json.dumps(data).encode())
        rest = [None for _ in family.sources[1:]]
        json.dumps(family.shape("ABC", [found, *rest]))
    except (payloads.msgspec.DecodeError, ArithmeticError, ValueError):
        pass
