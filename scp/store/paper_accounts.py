"""Keeps which account of the exchange is whose for paper trading: one a person, with a number drawn at random.

One that was counted up would come again with another database on the same exchange, and with it a stranger's positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scp.store.database import ask

FIRST, COUNT = 1_000_000_000, 8_000_000_000  # ten digits, above what people choose for accounts of their own


def find(db: Any, user_id: int) -> int | None:
    """Return somebody's account, None while they have none."""
    rows = ask(db, "SELECT account FROM paper_account WHERE user_id = ?", user_id)
    return int(rows[0][0]) if rows else None


def keep(db: Any, user_id: int, draw: Callable[[int], int], now_ms: int) -> int:
    """Return somebody's account, a new one where they had none; two who ask at once get the same. `draw(n)`: 0 to n - 1."""
    number = FIRST + draw(COUNT)
    text = (
        "INSERT INTO paper_account (user_id, account, opened_ms) VALUES (?, ?, ?) ON CONFLICT (user_id) DO NOTHING RETURNING id"
    )
    ask(db, text, user_id, number, now_ms)
    found = find(db, user_id)
    assert found is not None
    return found
