"""Matches an order that is in no book: it trades, is cancelled, or rests with what is left, as a list of events.

Rules, in the order in which they are asked at every step: the taker's reduce-only, self-trade, the maker's reduce-only. A
reduce-only order is clipped at every fill to the position it may reduce, and cancelled when it comes to trade and there is
none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine.core.accounts import Contract, fee_units
from engine.core.commands import BUY, SelfTrade, TimeInForce
from engine.core.events import CancelReason, Event, OrderCanceled, OrderRested, Traded
from engine.core.state import Order, State
from engine.core.units import PPM


class Matching:
    """Matches one order at a time. `emit` applies an event to the state and keeps it."""

    def __init__(self, state: State, emit: Callable[[Event], None]) -> None:
        self._state = state
        self._emit = emit

    def enter(self, order: Order) -> None:
        """Let an order trade and rest, or cancel it, by its terms. Cost: O(fills); FOK looks at what it would trade first."""
        terms = order.terms
        if terms.post_only and order.price_ticks is not None and self.crosses(terms.symbol, terms.side, order.price_ticks):
            self.cancel(order, CancelReason.POST_ONLY)
        elif terms.time_in_force is TimeInForce.FOK and not self._fillable(order):
            self.cancel(order, CancelReason.FILL_OR_KILL)
        elif self._sweep(order):
            if order.price_ticks is None or terms.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
                self.cancel(order, CancelReason.UNFILLED)
            else:
                self._emit(OrderRested(order.order_id))

    def cancel(self, order: Order, reason: CancelReason) -> None:
        """Cancel an open order."""
        self._emit(OrderCanceled(order.order_id, reason))

    def crosses(self, symbol: str, side: int, price_ticks: int) -> bool:
        """Return whether a limit order would meet another one at once."""
        front = self._state.markets[symbol].book.front(1 - side)
        return front is not None and _within(front[0], price_ticks, side)

    def _reaches(self, order: Order, price_ticks: int) -> bool:
        """Return whether the order may trade at a price; a market order ends at the price band."""
        if order.price_ticks is None:
            return in_band(self._state.ledger.contracts[order.terms.symbol], price_ticks)
        return _within(price_ticks, order.price_ticks, order.terms.side)

    def _sweep(self, order: Order) -> bool:
        """Trade until the order is done or finds nobody; return whether it is still open."""
        state, terms = self._state, order.terms
        book = state.markets[terms.symbol].book
        while order.leaves_lots:
            front = book.front(1 - terms.side)
            if front is None or not self._reaches(order, front[0]):
                return True
            maker = state.orders[front[1]]
            size = min(self._may_trade(order, order.leaves_lots), maker.shown_lots)
            if not size:
                self.cancel(order, CancelReason.REDUCE_ONLY)
                return False
            if maker.terms.account == terms.account:
                if self._prevent_self_trade(order, maker):
                    return False
                continue
            size = self._may_trade(maker, size)
            if not size:
                self.cancel(maker, CancelReason.REDUCE_ONLY)
                continue
            self._trade(order, maker, front[0], size)
        return False

    def _may_trade(self, order: Order, lots: int) -> int:
        """Return `lots`, for a reduce-only order clipped to the position it may reduce."""
        if not order.terms.reduce_only:
            return lots
        return min(lots, reducible_lots(self._state.ledger.lots(order.terms.account, order.terms.symbol), order.terms.side))

    def _prevent_self_trade(self, order: Order, maker: Order) -> bool:
        """Cancel as the entering order asks; return whether it is gone itself."""
        mode = order.terms.self_trade
        if mode is not SelfTrade.NEWEST:
            self.cancel(maker, CancelReason.SELF_TRADE)
        if mode is not SelfTrade.OLDEST:
            self.cancel(order, CancelReason.SELF_TRADE)
        return mode is not SelfTrade.OLDEST

    def _trade(self, taker: Order, maker: Order, price_ticks: int, lots: int) -> None:
        contract = self._state.ledger.contracts[taker.terms.symbol]
        value = contract.value_units(lots, price_ticks)
        taker_fee = fee_units(value, contract.instrument.taker_fee_ppm)
        maker_fee = fee_units(value, contract.instrument.maker_fee_ppm)
        trade_id = self._state.trades + 1
        ids = trade_id, taker.order_id, maker.order_id
        self._emit(Traded(*ids, price_ticks, lots, taker_fee, maker_fee, taker.terms.symbol, taker.terms.side))

    def _fillable(self, order: Order) -> bool:
        """Return whether `_sweep` would fill the whole order: the same walk on paper, icebergs and clips included."""
        state, terms, wanted = self._state, order.terms, order.leaves_lots
        held: dict[int, int] = {}  # account → position as it would be by then
        sign = 1 if terms.side == BUY else -1

        def may(of: Order, lots: int) -> int:
            position = held.setdefault(of.terms.account, state.ledger.lots(of.terms.account, terms.symbol))
            return min(lots, reducible_lots(position, of.terms.side)) if of.terms.reduce_only else lots

        for level in state.markets[terms.symbol].book.levels(1 - terms.side):
            if not self._reaches(order, level.price):
                return False
            queue = deque(
                (state.orders[order_id], shown, state.orders[order_id].leaves_lots) for order_id, shown in level.items()
            )
            while queue:
                maker, shown, leaves = queue.popleft()
                size = min(may(order, wanted), shown)
                if not size:
                    return False
                if maker.terms.account == terms.account:
                    if terms.self_trade is not SelfTrade.OLDEST:
                        return False
                    continue
                size = may(maker, size)
                if not size:
                    continue
                held[terms.account] += sign * size
                held[maker.terms.account] -= sign * size
                wanted, shown, leaves = wanted - size, shown - size, leaves - size
                if not wanted:
                    return True
                if shown:
                    queue.appendleft((maker, shown, leaves))
                elif leaves:
                    queue.append((maker, min(leaves, maker.terms.display_lots or leaves), leaves))
        return False


def _within(price_ticks: int, limit_ticks: int, side: int) -> bool:
    return price_ticks <= limit_ticks if side == BUY else price_ticks >= limit_ticks


def reducible_lots(position_lots: int, side: int) -> int:
    """Return how many lots an order of `side` may trade without growing or turning the position."""
    return max(0, -position_lots if side == BUY else position_lots)


def in_band(contract: Contract, price_ticks: int) -> bool:
    """Return whether a price is near enough to the mark."""
    band = contract.instrument.band_ppm
    return not band or abs(price_ticks - contract.mark_ticks) * PPM <= band * contract.mark_ticks
