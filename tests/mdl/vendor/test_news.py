"""Checks the stand-in's REST news: spans, orders, pages, keys."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from mdl.simulation.newsroom import NewsRoom
from mdl.simulation.universe import universe
from mdl.vendor.news import answer

NOW_MS = 1_790_000_000_000  # 2026-09-21T14:13:20Z
ROOM = NewsRoom(universe(20, 7), 7, 2)
PLANS = {"k": None, "some": frozenset({"T"}), "news": frozenset({"news"})}


def ask(query: str, key: str = "k", now_ms: int = NOW_MS) -> tuple[int, dict[str, Any]]:
    return answer(ROOM, f"/v2/reference/news?{query}", f"Bearer {key}" if key else "", PLANS, now_ms, "http://h")


def pages(query: str) -> list[dict[str, Any]]:
    found, now_ms = [], NOW_MS
    while True:
        status, body = ask(query, now_ms=now_ms)
        assert status == 200
        assert body["count"] == len(body["results"])
        found += body["results"]
        if "next_url" not in body:
            return found
        query, now_ms = urlsplit(body["next_url"]).query, now_ms + 60_000


def test_pages_hold_a_span_once() -> None:
    """Either way round, also while further articles are published."""
    wanted = ROOM.between(NOW_MS - 3_600_000, NOW_MS)
    span = "published_utc.gte=2026-09-21T13:13:20Z&limit=7"
    assert len(wanted) > 100
    assert pages(f"{span}&order=asc") == wanted
    assert pages(f"{span}&order=desc") == wanted[::-1]
    assert ask("")[1]["results"] == wanted[:-11:-1]


def test_bounds_and_tickers_are_obeyed() -> None:
    """gt and lt leave their second out, gte and lte do not."""
    at, (first, *_, last) = "published_utc", ROOM.between(NOW_MS - 3_600_000, NOW_MS)
    span = pages(f"order=asc&limit=1000&{at}.gt={first[at]}&{at}.lt={last[at]}")
    wider = pages(f"order=asc&limit=1000&{at}.gte={first[at]}&{at}.lte={last[at]}")
    assert (first in span, last in span, first in wider, last in wider) == (False, False, True, True)
    ticker = universe(20, 7).symbols[0]
    found = pages(f"ticker={ticker}&{at}.gte=2026-09-21T13:13:20Z")
    assert found
    assert all(ticker in article["tickers"] for article in found)


@pytest.mark.parametrize(
    ("query", "key", "status"),
    [
        ("", "", 401), ("", "no", 401), ("", "some", 403), ("", "news", 200), ("apiKey=k", "", 200),
        ("limit=1001", "k", 400), ("limit=x", "k", 400), ("order=up", "k", 400), ("sort=title", "k", 400),
        ("published_utc.gte=yesterday", "k", 400), ("cursor=zz", "k", 400), ("cursor=00ff", "k", 400),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(query: str, key: str, status: int) -> None:
    """In the vendor's shapes: an unknown key, a plan without news, a bad question."""
    found, body = ask(query, key)
    assert found == status
    assert body["status"] == {401: "ERROR", 403: "NOT_AUTHORIZED", 400: "ERROR", 200: "OK"}[status]
