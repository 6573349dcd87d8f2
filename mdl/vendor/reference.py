"""Answers the vendor's REST questions about the whole market from the simulated one: days, a snapshot, floats, splits. Pure.

Known are grouped daily values, the snapshot of all tickers, floats in pages, and splits (none of the last months); questions
about one stock go to `company.py`. The simulated market begins every day at the same closes, so these are the closes of every
day; volumes, highs and lows differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from mdl.simulation.market import Simulator
from mdl.simulation.past import salt_of
from mdl.simulation.universe import DayBefore, Universe, day_before, free_float
from mdl.vendor.company import CompanyDesk, NotFound
from service.days.markets import STOCKS

GROUPED = re.compile(r"/v2/aggs/grouped/locale/us/market/stocks/(\d{4}-\d\d-\d\d)")
SNAPSHOT = "/v2/snapshot/locale/us/markets/stocks/tickers"
FLOATS = "/stocks/vX/float"
SPLITS = "/v3/reference/splits"
FLOATS_MAX = 5_000
SPLITS_MAX = 1_000
Answer = tuple[int, dict[str, Any] | bytes]  # bytes are a picture
Plans = Mapping[str, frozenset[str] | None]


class ReferenceDesk:
    """Answers for one simulated market."""

    def __init__(self, market: Simulator) -> None:
        self._market = market
        self._companies = CompanyDesk(market)
        self._paths: dict[str, Callable[[Mapping[str, str], int, str], dict[str, Any]]] = {
            SNAPSHOT: self._snapshot, FLOATS: self._floats, SPLITS: self._splits,
        }  # fmt: skip

    def answers_for(self, market: Simulator) -> bool:
        """Whether this is the market that is answered for."""
        return market is self._market

    def knows(self, target: str) -> bool:
        """Whether a request of `target` (path and query) is one of these."""
        path = urlsplit(target).path
        return path in self._paths or GROUPED.fullmatch(path) is not None or self._companies.find(path) is not None

    def answer(self, target: str, authorization: str, plans: Plans, now_ms: int, base: str) -> Answer:
        """Return status and body; `base` is our own address, for `next_url`."""
        parts = urlsplit(target)
        asked = dict(parse_qsl(parts.query, keep_blank_values=True))
        key = authorization.removeprefix("Bearer ").strip() or asked.pop("apiKey", "")
        if key not in plans:
            return 401, {"status": "ERROR", "request_id": "0", "error": "Unknown API Key"}
        plan = plans[key]
        if plan is not None and "reference" not in plan:
            return 403, {"status": "NOT_AUTHORIZED", "request_id": "0", "message": "You are not entitled to this data."}
        try:
            if (question := self._companies.find(parts.path)) is not None:
                return 200, self._companies.answer(*question, asked, now_ms, base)
            found = GROUPED.fullmatch(parts.path)
            body = self._grouped(found[1], now_ms) if found else self._paths[parts.path](asked, now_ms, base)
            return 200, body
        except NotFound:
            return 404, {"status": "NOT_FOUND", "request_id": "0", "message": "Ticker not found."}
        except ValueError as error:
            return 400, {"status": "ERROR", "request_id": "0", "error": str(error)}

    def _grouped(self, on: str, now_ms: int) -> dict[str, Any]:
        asked, opens_ms = date.fromisoformat(on), _opens_ms(date.fromisoformat(on))
        open_then = opens_ms <= now_ms and STOCKS.day_of(opens_ms).start_ms == opens_ms
        rows = (
            [_row(self._market.listed, number, asked) for number in range(len(self._market.listed.symbols))] if open_then else []
        )
        body: dict[str, Any] = {"adjusted": False, "queryCount": len(rows), "resultsCount": len(rows), "status": "OK"}
        return body | ({"results": rows, "count": len(rows)} if rows else {})

    def _snapshot(self, asked: Mapping[str, str], now_ms: int, base: str) -> dict[str, Any]:
        listed, before = self._market.listed, _date_of(STOCKS.day_of(STOCKS.day_of(now_ms).start_ms - 1).start_ms)
        wanted = set(filter(None, asked.get("tickers", "").split(",")))
        tickers = []
        for number, symbol in enumerate(listed.symbols):
            if wanted and symbol not in wanted:
                continue
            day = self._market.day(number)
            row = {"ticker": symbol, "prevDay": _row(listed, number, before), "updated": now_ms * 1_000_000 if day else 0}
            row["day"] = day or {"o": 0, "h": 0, "l": 0, "c": 0, "v": 0, "vw": 0}
            tickers.append(row)
        return {"count": len(tickers), "status": "OK", "request_id": "0", "tickers": tickers}

    def _floats(self, asked: Mapping[str, str], now_ms: int, base: str) -> dict[str, Any]:
        if "cursor" in asked:
            asked = dict(parse_qsl(bytes.fromhex(asked["cursor"]).decode()))
        limit, skip = int(asked.get("limit", 100)), int(asked.get("skip", 0))
        if not 1 <= limit <= FLOATS_MAX or skip < 0:
            raise ValueError(f"limit must be from 1 to {FLOATS_MAX}")
        listed, on = self._market.listed, str(_date_of(now_ms))
        rows = [
            {"ticker": symbol, "free_float": free_float(listed, number), "effective_date": on, "free_float_percent": 80.0}
            for number, symbol in enumerate(listed.symbols[skip : skip + limit], skip)
        ]
        body: dict[str, Any] = {"results": rows, "status": "OK", "request_id": "0"}
        if skip + limit < len(listed.symbols):
            further = urlencode({"limit": limit, "skip": skip + limit})
            body["next_url"] = f"{base}{FLOATS}?cursor={further.encode().hex()}"
        return body

    def _splits(self, asked: Mapping[str, str], now_ms: int, base: str) -> dict[str, Any]:
        if "cursor" in asked:
            asked = dict(parse_qsl(bytes.fromhex(asked["cursor"]).decode()))
        limit, skip = int(asked.get("limit", 10)), int(asked.get("skip", 0))
        if not 1 <= limit <= SPLITS_MAX or skip < 0:
            raise ValueError(f"limit must be from 1 to {SPLITS_MAX}")
        since, until = asked.get("execution_date.gte", ""), asked.get("execution_date.lte", "9")
        symbols = [asked["ticker"]] if "ticker" in asked else self._market.listed.symbols
        found = [row for symbol in symbols for row in self._companies.splits_of(symbol, now_ms)]
        found = sorted((row for row in found if since <= row["execution_date"] <= until), key=lambda row: row["execution_date"])
        page = found[::-1][skip : skip + limit]
        body: dict[str, Any] = {"results": page, "status": "OK", "request_id": "0"}
        if len(found) > skip + limit:
            further = urlencode({**asked, "limit": limit, "skip": skip + limit})
            body["next_url"] = f"{base}{SPLITS}?cursor={further.encode().hex()}"
        return body


def _row(listed: Universe, number: int, on: date) -> dict[str, Any]:
    day: DayBefore = day_before(listed, number, salt_of(on))
    return {
        "T": listed.symbols[number], "o": day.open_cents / 100, "h": day.high_cents / 100, "l": day.low_cents / 100,
        "c": listed.closes_cents[number] / 100, "v": day.volume, "vw": day.vwap, "t": _opens_ms(on) + 12 * 3_600_000,
        "n": 1 + day.volume // 100,
    }  # fmt: skip


def _opens_ms(on: date) -> int:
    return round(datetime.combine(on, STOCKS.sessions[0][0], STOCKS.zone).astimezone(UTC).timestamp() * 1000)


def _date_of(ts: int) -> date:
    return datetime.fromtimestamp(ts / 1000, STOCKS.zone).date()
