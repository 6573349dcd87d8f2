"""Finds the big prints of a market: trades that are worth many times what the symbol's usual trade is worth.

`ownlog:big_prints:SYMBOL` has each of them, `own:big_prints:SYMBOL` how many there were and what part of the traded value they
are, and `board:big_prints` ranks the symbols by that part.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mdp.plugin import VOLUME, AnyTrade, Plugin

TIMES = 10.0  # from so many times the average on a trade is big
TRADES_MIN = 20  # of a symbol, before anything is usual


class Usual(msgspec.Struct):
    """What is remembered of a symbol. `value` = price times size, summed over all trades."""

    trades: int = 0
    value: float = 0.0
    big: int = 0
    big_value: float = 0.0
    largest: float = 0.0
    ts: int = 0


class BigPrints(Plugin):
    """One partition's big prints."""

    State = Usual
    boards = ("big_prints",)

    def on_trade(self, state: Usual, trade: AnyTrade, effect: int) -> None:
        """Compare the trade with the usual one before it counts itself; one that has no volume (a cancel) is none."""
        if not effect & VOLUME:
            return
        value = trade.price * trade.size
        usual = state.value / state.trades if state.trades else 0.0
        if state.trades >= TRADES_MIN and value >= TIMES * usual:
            state.big += 1
            state.big_value += value
            state.largest = max(state.largest, value)
            self._tell(trade, value / usual)
        state.trades += 1
        state.value += value
        state.ts = trade.ts

    def _tell(self, trade: AnyTrade, times: float) -> None:
        quote = self.quote(trade.symbol)
        vwap = quote.vwap if quote is not None else None
        gap_pct = None if not vwap else round(100 * (trade.price - vwap) / vwap, 4)
        said = {"price": trade.price, "size": trade.size, "times": round(times, 2), "vwap_gap_pct": gap_pct, "ts": trade.ts}
        self.report(trade.ts, said)

    def document(self, symbol: str, state: Usual) -> dict[str, Any]:
        """Return the totals."""
        return {"big": state.big, "part": _part(state), "largest": state.largest, "trades": state.trades, "ts": state.ts}

    def rank(self, board: str, symbol: str, state: Usual) -> float | None:
        """Rank by the part of the value; who had no big print is not on the board."""
        return _part(state) if state.big else None

    def columns(self, board: str, symbol: str, state: Usual) -> dict[str, Any]:
        """Add the board's own two columns."""
        return {"big": state.big, "part": _part(state)}


def _part(state: Usual) -> float:
    return round(state.big_value / state.value, 4) if state.value else 0.0
