"""Checks what is asked for a trading day, and that pages lead nowhere else."""

from __future__ import annotations

from datetime import UTC, date, datetime

from mdp.enrich.questions import DAYS, Question, first_questions, next_page, order_for, split_bounds
from service.days.markets import STOCKS


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_the_days_before_are_trading_days() -> None:
    """Thirty of them, the newest first, without weekends and holidays; by the market's own date."""
    monday = STOCKS.day_of(ms("2026-11-30T18:00:00")).start_ms
    order = order_for(STOCKS, monday, monday + 3_600_000, 8)
    assert (order.day, order.live, order.today) == ("2026-11-30", True, True)
    assert order.dates[:4] == ("2026-11-27", "2026-11-25", "2026-11-24", "2026-11-23")  # Thanksgiving is none
    assert len(order.dates) == len(set(order.dates)) == DAYS
    assert split_bounds(order) == (date.fromisoformat(order.dates[-1]), date(2026, 11, 30))


def test_few_calls_hold_a_market() -> None:
    """What many look at comes first: splits, the day before, the snapshot; then the average, then floats."""
    order = order_for(STOCKS, STOCKS.day_of(ms("2026-11-30T18:00:00")).start_ms, ms("2026-11-30T18:00:00"), 8)
    asked = first_questions(order)
    assert [str(one) for one in asked[:4]] == ["splits", "day 0", "snapshot", "day 1"]
    assert (len(asked), str(asked[-1])) == (33, "floats")


def test_a_tape_of_another_day_is_not_asked_for_what_is_of_today() -> None:
    """Neither snapshot nor floats: the vendor's are of now."""
    order = order_for(STOCKS, STOCKS.day_of(ms("2021-05-10T18:00:00")).start_ms, ms("2026-11-30T18:00:00"), 8)
    assert {one.kind for one in first_questions(order)} == {"splits", "day"}
    assert order.dates[0] == "2021-05-07"


def test_only_the_query_of_a_next_page_counts() -> None:
    """The key goes to no host that an answer names; a page that leads to itself ends."""
    page = next_page(Question("floats"), "https://elsewhere.example/stocks/vX/float?cursor=abc&limit=5000")
    assert page == Question("floats", 1, (("cursor", "abc"), ("limit", "5000")))
    assert next_page(page, "http://h/?cursor=abc&limit=5000") is None
    assert next_page(page, None) is None
    assert next_page(page, "http://h/x") is None
