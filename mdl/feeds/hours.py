"""Knows in which session each of the vendor's markets is; trading days and holidays are those of `service/days`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from service.days.markets import ALWAYS, FOREX, FUTURES, STOCKS

Session = Literal["regular", "extended", "closed"]
MARKETS = {"crypto": ALWAYS, "forex": FOREX}  # stocks, options and indices have the hours of stocks


def session_of(market: str, wall_ns: int) -> Session:
    """Return which session `market` is in at that time.

    Stocks trade 9:30 to 16:00, and from 4:00 to 20:00 in extended hours, in which only some options and indices move.
    """
    hours = FUTURES if market.startswith("futures") else MARKETS.get(market, STOCKS)
    session = hours.session_of(wall_ns // 1_000_000)
    if session in ("pre", "post"):
        return "extended"
    return "closed" if session == "closed" else "regular"


def market_open(market: str, wall_ns: int) -> bool:
    """Return whether `market` trades at that time (extended hours count as open)."""
    return session_of(market, wall_ns) != "closed"


def eastern(wall_ns: int) -> datetime:
    """Return New York's local time."""
    return datetime.fromtimestamp(wall_ns / 1e9, STOCKS.zone)
