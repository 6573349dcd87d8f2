"""Checks the stand-in's REST answers about the whole market: days, snapshot, floats in pages, splits, keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from mdl.simulation.market import Simulator
from mdl.vendor.reference import ReferenceDesk

NOW_MS = int(datetime(2026, 11, 18, 18, tzinfo=UTC).timestamp() * 1000)  # a Wednesday, 13:00 in New York
MARKET = Simulator(50, 7)
DESK = ReferenceDesk(MARKET)
PLANS = {"k": None, "some": frozenset({"T"}), "all": frozenset({"reference"})}
GROUPED = "/v2/aggs/grouped/locale/us/market/stocks/"
SNAPSHOT = "/v2/snapshot/locale/us/markets/stocks/tickers"


def ask(target: str, key: str = "k") -> tuple[int, dict[str, Any]]:
    assert DESK.knows(target)
    return DESK.answer(target, f"Bearer {key}", PLANS, NOW_MS, "http://h")


def test_a_trading_day_has_every_stock() -> None:
    """The same again for the same date, other values for another, the same closes; nothing on days without trading or to come."""
    _, tuesday = ask(f"{GROUPED}2026-11-17?adjusted=false")
    _, monday = ask(f"{GROUPED}2026-11-16")
    assert tuesday == ask(f"{GROUPED}2026-11-17")[1]
    assert tuesday["resultsCount"] == len(tuesday["results"]) == 50
    assert [row["c"] for row in tuesday["results"]] == [row["c"] for row in monday["results"]]
    assert [row["v"] for row in tuesday["results"]] != [row["v"] for row in monday["results"]]
    assert all(row["l"] <= min(row["o"], row["c"]) <= max(row["o"], row["c"]) <= row["h"] for row in tuesday["results"])
    for closed in ("2026-11-15", "2026-11-19", "2025-12-25"):
        assert "results" not in ask(GROUPED + closed)[1]
        assert ask(GROUPED + closed)[1]["resultsCount"] == 0


def test_the_snapshot_is_the_market_as_it_is() -> None:
    """What was traded so far, zeros for what was not."""
    market = Simulator(50, 7)
    desk = ReferenceDesk(market)
    assert {row["day"]["v"] for row in desk.answer(SNAPSHOT, "Bearer k", PLANS, NOW_MS, "")[1]["tickers"]} == {0}
    for second in range(3):
        market.frame(NOW_MS + second * 1_000, 500)
    _, body = desk.answer(SNAPSHOT, "Bearer k", PLANS, NOW_MS + 3_000, "")
    assert body["count"] == 50
    traded = [row for row in body["tickers"] if row["day"]["v"]]
    assert traded
    assert all(row["day"]["l"] <= row["day"]["o"] <= row["day"]["h"] and row["updated"] for row in traded)
    assert [row["ticker"] for row in desk.answer(f"{SNAPSHOT}?tickers=NVDA", "Bearer k", PLANS, 1, "")[1]["tickers"]] == ["NVDA"]


def test_floats_come_in_pages() -> None:
    """Each stock once."""
    target, found = "/stocks/vX/float?limit=20", []
    while target:
        _, body = ask(target)
        found += [row["ticker"] for row in body["results"]]
        parts = urlsplit(body.get("next_url", ""))
        target = f"{parts.path}?{parts.query}" if parts.query else ""
    assert found == MARKET.listed.symbols
    recent = "execution_date.gte=2026-09-01"
    assert ask(f"/v3/reference/splits?limit=1000&{recent}")[1]["results"] == []


@pytest.mark.parametrize(
    ("target", "key", "status"),
    [
        (SNAPSHOT, "no", 401), (SNAPSHOT, "some", 403), (SNAPSHOT, "all", 200), ("/stocks/vX/float?limit=0", "k", 400),
        ("/stocks/vX/float?cursor=zz", "k", 400), (f"{GROUPED}2026-02-30", "k", 400),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(target: str, key: str, status: int) -> None:
    """In the vendor's shapes."""
    assert ask(target, key)[0] == status
    assert not DESK.knows("/v2/reference/news")
