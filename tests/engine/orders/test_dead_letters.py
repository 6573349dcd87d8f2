"""Copies of messages: what they keep, what they say, what they must not do."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from pamqp.commands import Basic

from engine.orders.dead_letters import counted, dead_letter

SENT = Basic.Properties(
    content_type="application/json", headers={"own": 1, "CC": ["engine.orders"], "BCC": ["x"]}, delivery_mode=1, priority=3,
    correlation_id="c", reply_to="r", expiration="500", message_id="m", timestamp=datetime(2026, 11, 21, tzinfo=UTC), user_id="guest",
    app_id="desk",
)  # fmt: skip


def test_a_dead_letter_keeps_its_properties_and_says_why() -> None:
    """Persistent, without an end, not routed anywhere else, not in the sender's name; the reasons are headers."""
    made = dead_letter(SENT, "Poisoned", "three times", 1_795_227_409_123_000_000, 3)
    assert made.headers == {
        "own": 1, "x-reason": "Poisoned", "x-detail": "three times", "x-at": "2026-11-21T02:16:49.123Z", "x-attempts": 3}  # fmt: skip
    assert (made.delivery_mode, made.expiration, made.user_id) == (2, None, None)
    kept = ("content_type", "priority", "correlation_id", "reply_to", "message_id", "timestamp", "app_id")
    assert all(getattr(made, name) == getattr(SENT, name) for name in kept)
    assert "x-attempts" not in (dead_letter(SENT, "Malformed", "?", 0).headers or {})


def test_a_counted_copy_still_expires() -> None:
    """It is tried again, so that its time to live goes on to count."""
    made = counted(SENT, 2)
    assert (made.expiration, made.headers) == ("500", {"own": 1, "x-attempts": 2})


def test_properties_that_cannot_be_written_again_are_left_out() -> None:
    """The reason must reach the dead letters whatever the sender put into his headers."""
    made = dead_letter(Basic.Properties(headers={"x": Decimal("1e-300"), "y": object()}), "Malformed", "?", 0)
    assert set(made.headers or {}) == {"x-reason", "x-detail", "x-at"}
    assert made.marshal()
