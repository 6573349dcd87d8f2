"""Answers the vendor's REST questions about one stock of the simulated market: its company, short sales, filings, bars. Pure.

Known are the ticker's overview, its logo, events, short interest and volume, the index of filings, and custom bars. Bars of
before a split are in today's shares (`adjusted=true`, as the vendor's are) or in those of their own day.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from mdl.simulation.company import became, company, filings, logo, settlements, short_interest, short_share, splits
from mdl.simulation.market import Simulator
from mdl.simulation.past import Past, PastBar, salt_of
from mdl.simulation.universe import day_before
from service.days.markets import STOCKS

PATHS = {
    "overview": re.compile(r"/v3/reference/tickers/([^/]+)"),
    "events": re.compile(r"/vX/reference/tickers/([^/]+)/events"),
    "logo": re.compile(r"/v1/reference/company-branding/([^/]+)/logo\.png"),
    "bars": re.compile(r"/v2/aggs/ticker/([^/]+)/range/(\d+)/(minute|hour|day)/([\d-]+)/([\d-]+)"),
    "interest": re.compile(r"/stocks/v1/short-interest"),
    "volume": re.compile(r"/stocks/v1/short-volume"),
    "filings": re.compile(r"/stocks/filings/vX/index"),
}
BARS, BARS_MAX = 5_000, 50_000  # the usual and the most of base bars (minutes, days) of one answer
ROWS, ROWS_MAX = 10, 1_000
DAYS_BACK = 730  # of bars: what the vendor's smaller plans give
SPANS_MS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
Asked = Mapping[str, str]
Body = dict[str, Any] | bytes


class NotFound(LookupError):
    """The vendor knows no such ticker."""


class CompanyDesk:
    """Answers for one simulated market, of which the past is kept from now on."""

    def __init__(self, market: Simulator) -> None:
        self._market = market
        self._past = market.past = market.past or Past(market.listed)
        self._numbers = {symbol: number for number, symbol in enumerate(market.listed.symbols)}
        self._answers: dict[str, Callable[..., Body]] = {
            "overview": self._overview, "events": self._events, "logo": self._logo, "bars": self._bars,
            "interest": self._interest, "volume": self._volume, "filings": self._filings,
        }  # fmt: skip

    def find(self, path: str) -> tuple[str, tuple[str, ...]] | None:
        """Return which question a path is, and its parts; None for none of these."""
        for name, form in PATHS.items():
            if found := form.fullmatch(path):
                return name, found.groups()
        return None

    def answer(self, name: str, parts: tuple[str, ...], asked: Asked, now_ms: int, base: str) -> Body:
        """Return the body.  Raises: NotFound, ValueError for a question that is none."""
        return self._answers[name](*parts, asked=asked, now_ms=now_ms, base=base)

    def _number(self, symbol: str) -> int:
        if symbol not in self._numbers:
            raise NotFound(symbol)
        return self._numbers[symbol]

    # ---- the company

    def _overview(self, symbol: str, asked: Asked, now_ms: int, base: str) -> Body:
        number = self._number(symbol)
        known, day = company(self._market.listed, number), self._market.day(number)
        last = day.get("c", self._market.listed.closes_cents[number] / 100)
        street = {"address1": f"{number + 1} Market Street", "city": known.city[0].upper(), "state": known.city[1]}
        found = {
            "ticker": symbol, "name": known.name, "description": known.about, "market": "stocks", "locale": "us", "type": "CS",
            "primary_exchange": known.exchange, "active": True, "currency_name": "usd", "cik": known.cik,
            "sic_code": known.sic[0], "sic_description": known.sic[1], "ticker_root": symbol, "phone_number": known.phone,
            "homepage_url": f"https://{symbol.lower()}.example.com", "total_employees": known.employees,
            "list_date": str(known.listed_on), "share_class_shares_outstanding": known.shares,
            "weighted_shares_outstanding": known.shares, "market_cap": round(known.shares * last, 2),
            "address": street | {"postal_code": f"{10_000 + number}"}, "round_lot": 100,
            "branding": {"icon_url": f"{base}/v1/reference/company-branding/{symbol}/logo.png"},
        }  # fmt: skip
        return {"results": found, "status": "OK", "request_id": "0"}

    def _logo(self, symbol: str, asked: Asked, now_ms: int, base: str) -> Body:
        return logo(self._number(symbol))

    def _events(self, symbol: str, asked: Asked, now_ms: int, base: str) -> Body:
        known = company(self._market.listed, self._number(symbol))
        named = [(symbol, known.renamed_on), (known.formerly, known.listed_on)] if known.formerly else [(symbol, known.listed_on)]
        events = [{"type": "ticker_change", "date": str(on), "ticker_change": {"ticker": name}} for name, on in named]
        found = {"name": known.name, "composite_figi": f"BBG{known.cik[1:]}", "cik": known.cik, "events": events}
        return {"results": found, "status": "OK", "request_id": "0"}

    def _interest(self, asked: Asked, now_ms: int, base: str) -> Body:
        symbol, limit, newest_first = _rows_asked(asked, "settlement_date")
        number, rows = self._number(symbol), []
        for on in settlements(_date_of(now_ms), limit) if newest_first else ():
            short = short_interest(self._market.listed, number, on)
            usual = self._market.listed.volumes[number]
            rows.append({
                "ticker": symbol, "settlement_date": str(on), "short_interest": short, "avg_daily_volume": usual,
                "days_to_cover": round(max(1.0, short / usual), 2),
            })  # fmt: skip
        return _rows(rows)

    def _volume(self, asked: Asked, now_ms: int, base: str) -> Body:
        symbol, limit, newest_first = _rows_asked(asked, "date")
        number, rows, day_ms = self._number(symbol), [], STOCKS.day_of(now_ms).start_ms
        for _ in range(limit if newest_first else 0):
            day_ms = STOCKS.day_of(day_ms - 1).start_ms
            on = _date_of(day_ms)
            share, whole = short_share(number, on), day_before(self._market.listed, number, salt_of(on)).volume
            rows.append({
                "ticker": symbol, "date": str(on), "short_volume": round(whole * share), "total_volume": whole,
                "short_volume_ratio": round(100 * share, 2), "exempt_volume": 0, "non_exempt_volume": round(whole * share),
            })  # fmt: skip
        return _rows(rows)

    def _filings(self, asked: Asked, now_ms: int, base: str) -> Body:
        symbol, limit, newest_first = _rows_asked(asked, "filing_date")
        number = self._number(symbol)
        known = company(self._market.listed, number)
        rows = [
            {
                "accession_number": accession, "cik": known.cik, "filing_date": str(on), "form_type": form, "ticker": symbol,
                "issuer_name": known.name, "filing_url": f"https://www.example.com/filings/{accession}.txt",
            }
            for on, form, accession in filings(number, _date_of(now_ms), min(limit, 40))
        ]  # fmt: skip
        return _rows(rows if newest_first else rows[::-1])

    def splits_of(self, symbol: str, now_ms: int) -> list[dict[str, Any]]:
        """Return a stock's splits as `/v3/reference/splits` has them, the newest first."""
        found = splits(self._numbers[symbol], _date_of(now_ms)) if symbol in self._numbers else []
        return [
            {
                "id": f"{symbol}-{one.on}", "ticker": symbol, "execution_date": str(one.on), "split_from": one.before,
                "split_to": one.after,
            }
            for one in found
        ]  # fmt: skip

    # ---- bars

    def _bars(self, symbol: str, times: str, unit: str, since: str, until: str, asked: Asked, now_ms: int, base: str) -> Body:
        width, limit = int(times), _whole(asked, "limit", BARS, BARS_MAX)
        adjusted, order = asked.get("adjusted", "true") == "true", asked.get("sort", "asc")
        if not 1 <= width <= 60 or (unit != "minute" and width > 1) or 60 % width or order not in ("asc", "desc"):
            raise ValueError("known are 1 to 60 minutes that divide an hour, 1 hour and 1 day; sort is asc or desc")
        since_ms = max(_ms(since, False), now_ms - DAYS_BACK * SPANS_MS["day"])
        until_ms = min(_ms(until, True), now_ms)
        found = self._found(symbol, width, unit, since_ms, until_ms, now_ms)
        rows = [self._row(symbol, unit, bar, adjusted, now_ms) for bar in found]
        if order == "desc":
            rows.reverse()
        many = max(1, limit // (width * (60 if unit == "hour" else 1)))
        skip = _whole(asked, "skip", 0, 10**9)
        page = rows[skip : skip + many]
        body = {"ticker": symbol, "queryCount": len(page), "resultsCount": len(page), "adjusted": adjusted, "status": "OK"}
        body |= {"request_id": "0", "count": len(page)} | ({"results": page} if page else {})
        if len(rows) > skip + many:
            left = {name: value for name, value in asked.items() if name != "skip"} | {"skip": str(skip + many)}
            body["next_url"] = f"{base}/v2/aggs/ticker/{symbol}/range/{times}/{unit}/{since_ms}/{until_ms}?{urlencode(left)}"
        return body

    def _found(self, symbol: str, width: int, unit: str, since_ms: int, until_ms: int, now_ms: int) -> list[PastBar]:
        if symbol not in self._numbers or since_ms > until_ms:
            return []  # so the vendor answers for a ticker that it does not know, too
        if unit != "day":
            return self._past.bars(self._numbers[symbol], width * SPANS_MS[unit], since_ms, until_ms + 1, now_ms)
        opens_ms = STOCKS.sessions[0][0].hour * SPANS_MS["hour"]  # a day's bar is of midnight, its trading begins later
        return self._past.days(self._numbers[symbol], since_ms + opens_ms, until_ms + 1 + opens_ms, now_ms)

    def _row(self, symbol: str, unit: str, bar: PastBar, adjusted: bool, now_ms: int) -> dict[str, Any]:
        on = _date_of(bar.start)
        times = 1.0 if adjusted else became(self._numbers[symbol], on, _date_of(now_ms))
        start = _midnight_ms(on) if unit == "day" else bar.start
        first, high, low, last = (round(cents * times / 100, 6) for cents in bar[1:5])
        vwap = round(bar.value / bar.volume * times / 100, 4) if bar.volume else None
        return {
            "t": start, "o": first, "h": high, "l": low, "c": last, "v": round(bar.volume / times, 6), "vw": vwap,
            "n": bar.trades,
        }  # fmt: skip


def _rows(rows: list[dict[str, Any]]) -> Body:
    return {"results": rows, "status": "OK", "request_id": "0", "count": len(rows)}


def _rows_asked(asked: Asked, by: str) -> tuple[str, int, bool]:
    """Return whose rows are asked for, how many, and whether the newest come first.  Raises: ValueError."""
    if "ticker" not in asked:
        raise ValueError("this server answers for one ticker at a time")
    order = asked.get("sort", f"{by}.desc")
    if order not in (f"{by}.desc", f"{by}.asc"):
        raise ValueError(f"sort is {by}.desc or {by}.asc")
    return asked["ticker"], max(1, _whole(asked, "limit", ROWS, ROWS_MAX)), order.endswith("desc")


def _whole(asked: Asked, name: str, usual: int, most: int) -> int:
    value = int(asked.get(name, usual))
    if not 0 <= value <= most:
        raise ValueError(f"{name} must be from 0 to {most}")
    return value


def _ms(text: str, ends: bool) -> int:
    """Return a time as the vendor takes them: ms, or a date, whose last ms is meant where a range ends."""
    if text.isdigit():
        return int(text)
    return _midnight_ms(date.fromisoformat(text) + timedelta(days=ends)) - ends


def _midnight_ms(on: date) -> int:
    return round(datetime(on.year, on.month, on.day, tzinfo=STOCKS.zone).astimezone(UTC).timestamp() * 1000)


def _date_of(ts: int) -> date:
    return datetime.fromtimestamp(ts / 1000, STOCKS.zone).date()
