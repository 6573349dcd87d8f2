"""Answers `GET /v2/reference/news` as the vendor's REST service does, from the simulated market's own articles. Pure.

Known are `ticker`, `published_utc` (also `.gte .gt .lte .lt`), `order`, `sort=published_utc`, `limit` and `cursor`, the key as a
bearer token or `apiKey`. The whole past is there; without a bound the newest day is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from mdl.simulation.newsroom import NewsRoom

PATH = "/v2/reference/news"
LIMIT, LIMIT_MAX = 10, 1_000
DAY_MS = 86_400_000
SPAN_MS_MAX = 8 * DAY_MS  # of one question: more is the newest of it
Answer = tuple[int, dict[str, Any]]


def answer(
    room: NewsRoom, target: str, authorization: str, plans: Mapping[str, frozenset[str] | None], now_ms: int, base: str
) -> Answer:
    """Return status and body for a request of `target` (path and query); `base` is our own address, for `next_url`."""
    asked = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
    key = authorization.removeprefix("Bearer ").strip() or asked.pop("apiKey", "")
    if key not in plans:
        return 401, {"status": "ERROR", "request_id": "0", "error": "Unknown API Key"}
    plan = plans[key]
    if plan is not None and "news" not in plan:
        return 403, {
            "status": "NOT_AUTHORIZED",
            "request_id": "0",
            "message": "You are not entitled to this data.",
        }
    try:
        if "cursor" in asked:
            asked = dict(parse_qsl(bytes.fromhex(asked["cursor"]).decode()))
        return 200, _page(room, asked, now_ms, base)
    except ValueError as error:
        return 400, {"status": "ERROR", "request_id": "0", "error": str(error)}


def _page(room: NewsRoom, asked: Mapping[str, str], now_ms: int, base: str) -> dict[str, Any]:
    limit, skip = _whole(asked, "limit", LIMIT, LIMIT_MAX), _whole(asked, "skip", 0, 10**9)
    order = asked.get("order", "desc")
    if order not in ("asc", "desc") or asked.get("sort", "published_utc") != "published_utc":
        raise ValueError("order is asc or desc, sort is published_utc")
    since_ms, until_ms = _span(asked, now_ms)
    found = room.between(since_ms, until_ms)
    if "ticker" in asked:
        found = [article for article in found if asked["ticker"] in list(article["tickers"])]  # type: ignore[call-overload]
    if order == "desc":
        found.reverse()
    page = found[skip : skip + limit]
    body: dict[str, Any] = {"results": page, "status": "OK", "request_id": "0", "count": len(page)}
    if len(found) > skip + limit:
        left = {name: value for name, value in asked.items() if not name.startswith("published_utc")}
        # The end of the span stays where it is: what is published meanwhile would shift the pages of the newest first.
        left |= {"skip": str(skip + limit), "published_utc.gte": _text(since_ms), "published_utc.lt": _text(until_ms)}
        body["next_url"] = f"{base}{PATH}?cursor={urlencode(left).encode().hex()}"
    return body


def _span(asked: Mapping[str, str], now_ms: int) -> tuple[int, int]:
    """Return [since, until) in ms. Times of articles are whole seconds."""
    until_ms = now_ms
    if "published_utc" in asked:
        at = _ms(asked["published_utc"])
        return at, min(until_ms, at + (DAY_MS if len(asked["published_utc"]) == 10 else 1_000))
    for name, more_ms in (("lt", 0), ("lte", 1_000)):
        if f"published_utc.{name}" in asked:
            until_ms = min(until_ms, _ms(asked[f"published_utc.{name}"]) + more_ms)
    since_ms = until_ms - DAY_MS
    for name, more_ms in (("gte", 0), ("gt", 1_000)):
        if f"published_utc.{name}" in asked:
            since_ms = _ms(asked[f"published_utc.{name}"]) + more_ms
    return max(since_ms, until_ms - SPAN_MS_MAX), until_ms


def _ms(text: str) -> int:
    at = datetime.fromisoformat(text)
    return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


def _whole(asked: Mapping[str, str], name: str, usual: int, most: int) -> int:
    value = int(asked.get(name, usual))
    if not 0 <= value <= most:
        raise ValueError(f"{name} must be from 0 to {most}")
    return value
