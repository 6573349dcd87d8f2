"""Ranks the quotes of a whole market, plainly: every symbol on every board, sorted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.days.quote import percent
from tests.days.windows import Windows

ROWS = 500


def boards(
    quotes: dict[str, dict[str, Any]], windows: dict[str, Windows], halted: dict[str, int], slice_ms: int
) -> dict[str, tuple[list[str], dict[str, Any]]]:  # fmt: skip
    """Return board → (its symbols in order, their rows)."""
    rows = {name: _row(name, quote) for name, quote in quotes.items() if quote["last"] is not None}
    ranks: dict[str, dict[str, float]] = {name: {} for name in NAMES}
    for name, row in rows.items():
        for board, value in _ranks(row, quotes[name], windows[name], slice_ms).items():
            if value is not None and value > 0:
                ranks[board][name] = value
        if name in halted:
            ranks["halted"][name] = halted[name]
    found = {}
    for board, values in ranks.items():
        order = sorted(values, key=lambda name: (-values[name], name))[:ROWS]
        found[board] = order, {name: rows[name] for name in order}
    return found


NAMES = (
    "volume", "gainers", "losers", "gappers", "rel_volume", "dollar_volume", "range", "open_gainers", "trades_1m", "trades_5m",
    "trades_60m", "unusual", "halted",
)  # fmt: skip


def _row(name: str, quote: dict[str, Any]) -> dict[str, Any]:
    vwap = quote["vwap"]
    return {
        "sym": name, "gap_pct": percent(quote["open"], quote["prev_close"]), "open_change_pct": percent(quote["last"], quote["open"]),
        "dollar_volume": None if vwap is None else round(vwap * quote["volume"], 2), "news_ts": None,
        **{field: quote[field] for field in ("last", "change", "change_pct", "volume", "rel_volume", "float", "trades")},
    }  # fmt: skip


def _ranks(row: dict[str, Any], quote: dict[str, Any], windows: Windows, slice_ms: int) -> dict[str, float | None]:
    change = row["change_pct"]
    minutes, hour = windows.usual(slice_ms)
    minute = sum((one.size for one in windows.last(1, slice_ms)), Decimal(0))
    times = float(minute * minutes / hour) if minutes >= 10 else 0.0
    return {
        "volume": row["volume"], "gainers": change, "losers": None if change is None else -change,
        "gappers": abs(row["gap_pct"] or 0), "rel_volume": row["rel_volume"], "dollar_volume": row["dollar_volume"],
        "range": percent(quote["high"], quote["low"]), "open_gainers": row["open_change_pct"],
        "trades_1m": len(windows.last(1, slice_ms)), "trades_5m": len(windows.last(5, slice_ms)),
        "trades_60m": len(windows.last(60, slice_ms)), "unusual": round(times, 4) if times >= 3 else None,
    }  # fmt: skip
