"""Copies a message that is not executed for another queue: the body untouched, the reasons as headers."""

from __future__ import annotations

from typing import Any

from pamqp.commands import Basic

from engine.core.units import iso
from engine.orders.message import AT, ATTEMPTS, DETAIL, KEY, REASON

PERSISTENT = 2
ROUTING = ("CC", "BCC")  # headers that would send the copy elsewhere, too


def dead_letter(properties: Basic.Properties, reason: str, detail: str, time_ns: int, failed: int = 0) -> Basic.Properties:
    """Return the properties of a dead letter: it does not expire, and says why it is one, since when, after how many attempts.

    The sender's key is left out: dead letters are read by people.
    """
    more = {REASON: reason, DETAIL: detail, AT: iso(time_ns)} | ({ATTEMPTS: failed} if failed else {})
    return _copy(properties, more, None, without=(*ROUTING, KEY))


def counted(properties: Basic.Properties, failed: int) -> Basic.Properties:
    """Return the properties of a message that is tried again after `failed` attempts."""
    return _copy(properties, {ATTEMPTS: failed}, properties.expiration)


def _copy(
    properties: Basic.Properties, more: dict[str, Any], expiration: str | None, without: tuple[str, ...] = ROUTING
) -> Basic.Properties:
    """Return persistent properties with `more` headers. The sender's user id is left out: only he himself may publish with it."""
    kept = {name: value for name, value in (properties.headers or {}).items() if name not in without}
    copied = Basic.Properties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers=kept | more,
        delivery_mode=PERSISTENT,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        expiration=expiration,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        message_type=properties.message_type,
        app_id=properties.app_id,
    )
    try:
        copied.marshal()
    except Exception:  # read, but not writable again: what RabbitMQ has taken need not be what the client library makes
        return Basic.Properties(headers=more, delivery_mode=PERSISTENT)
    return copied
