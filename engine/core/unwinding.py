"""Decides how INSURANCE gets rid of the positions that liquidations left it: one order at a time, near the mark.

With every `Tick`, of the first contract in which somebody offers within the liquidation fee of the mark, INSURANCE trades what
the best level shows. It pays no more for closing than it was paid for taking over; where nobody offers that, it waits.
"""

from __future__ import annotations

from engine.core.accounts import Contract, share_units
from engine.core.commands import BUY, INSURANCE, SELL, PlaceOrder, SelfTrade, TimeInForce
from engine.core.matching import in_band
from engine.core.solvency import Solvency
from engine.core.state import State


def next_order(state: State, index: int) -> PlaceOrder | None:
    """Return INSURANCE's next order, None when it holds nothing or nobody offers.

    `index` makes its client id. Cost: O(its positions).
    """
    account = state.ledger.accounts[INSURANCE]
    if state.suspended or account.killed:
        return None
    for symbol, position in sorted(account.positions.items()):
        contract, side = state.ledger.contracts[symbol], SELL if position.lots > 0 else BUY
        level = next(state.markets[symbol].book.levels(1 - side), None)
        if level is None or not _near(contract, side, level.price):
            continue
        lots = min(abs(position.lots), sum(level.values()), contract.instrument.size_lots_max)
        if Solvency(state).affords(account, symbol, side, lots, level.price, 0):
            # Its own order, should it have one there, is cancelled: cancelling the new one instead would go on with every tick.
            return PlaceOrder(
                INSURANCE, symbol, f"unwind-{index}", side, lots, level.price, time_in_force=TimeInForce.IOC, reduce_only=True,
                self_trade=SelfTrade.OLDEST,
            )  # fmt: skip
    return None


def _near(contract: Contract, side: int, price_ticks: int) -> bool:
    """Return whether a price is no worse than the mark by more than the liquidation fee."""
    worse = price_ticks - contract.mark_ticks if side == BUY else contract.mark_ticks - price_ticks
    return worse <= share_units(contract.mark_ticks, contract.instrument.liquidation_fee_ppm) and in_band(contract, price_ticks)
