"""Lets an order trade with the book and rest, or cancels it, by its terms.

Rules, in the order in which they are asked at every step: the taker's reduce-only, self-trade, the maker's reduce-only, whether
who trades beyond the mark can pay for it. A reduce-only order is clipped at every fill to the position it may reduce, and
cancelled when it comes to trade and there is none; an order whose account cannot pay for a fill is cancelled, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from msgspec import UNSET

from engine.core.accounts import Contract, fee_units
from engine.core.commands import BUY, SelfTrade, TimeInForce
from engine.core.events import CancelReason, Event, OrderCanceled, OrderPaused, OrderRested, Traded
from engine.core.solvency import Solvency, loss_units
from engine.core.state import Order, State
from engine.core.units import PPM

IMMEDIATE = (TimeInForce.IOC, TimeInForce.FOK)
FILL_OR_KILL_ORDERS = 500  # that a FOK may meet, refills of icebergs counted: it cannot be done in steps


class Matching:
    """Matches one order at a time. `emit` applies an event to the state and keeps it."""

    def __init__(self, state: State, emit: Callable[[Event], None], spent: Callable[[], bool]) -> None:
        self._state = state
        self._solvency = Solvency(state)
        self._emit = emit
        self._spent = spent  # whether this step has done enough
        self.due_ns = 0  # orders due by then trade no more, while some of them are still there; 0 = none are

    def enter(self, order: Order) -> None:
        """Let an order trade and rest, or cancel it, by its terms. Cost: O(fills); FOK looks at what it would trade first."""
        terms = order.terms
        if terms.post_only and order.price_ticks is not None and self.crosses(terms.symbol, terms.side, order.price_ticks):
            self.cancel(order, CancelReason.POST_ONLY)
        elif terms.time_in_force is TimeInForce.FOK and not self._fillable(order):
            self.cancel(order, CancelReason.FILL_OR_KILL)
        else:
            self.go_on(order)

    def go_on(self, order: Order) -> None:
        """Let an order that has entered trade, and rest or leave; or pause, when this step has done enough."""
        if (reason := self.overdue(order)) is not None:
            self.cancel(order, reason)
        elif not self._state.ledger.contracts[order.terms.symbol].listed:
            self.cancel(order, CancelReason.DELISTED)
        elif self._sweep(order):
            if order.price_ticks is None or order.terms.time_in_force in IMMEDIATE:
                self.cancel(order, CancelReason.UNFILLED)
            else:
                self._emit(OrderRested(order.order_id))

    def overdue(self, order: Order) -> CancelReason | None:
        """Return why an order must not trade any more, though its turn to be cancelled has not come."""
        if self._state.work.cancels and (noted := self._state.noted(order)) is not None:
            return noted
        if not self.due_ns:
            return None
        if 0 < order.expire_ns <= self.due_ns:
            return CancelReason.EXPIRED
        deadline_ns = self._state.ledger.accounts[order.terms.account].deadline_ns
        return CancelReason.TIMER if 0 < deadline_ns <= self.due_ns else None

    def cancel(self, order: Order, reason: CancelReason) -> None:
        """Cancel an open order; one that is as good as cancelled keeps its reason."""
        self._emit(OrderCanceled(order.order_id, self._state.noted(order) or reason))

    def crosses(self, symbol: str, side: int, price_ticks: int) -> bool:
        """Return whether a limit order would meet another one at once; one that is due but not yet cancelled counts."""
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
            if self._spent() and terms.time_in_force is not TimeInForce.FOK:  # that one is bounded before it enters
                if order.order_id not in state.work.entering:
                    self._emit(OrderPaused(order.order_id))
                return False
            maker = state.orders[front[1]]
            if (reason := self.overdue(maker)) is not None:
                self.cancel(maker, reason)
                continue
            # An iceberg with nobody behind it is refilled within one fill: a million lots shown one by one were as many trades.
            offered = maker.leaves_lots if book.alone(maker.order_id) else maker.shown_lots
            size = min(self._may_trade(order, order.leaves_lots), offered)
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
            unable = self._unable(order, maker, front[0], size)
            if unable is not None:
                self.cancel(unable, CancelReason.MARGIN)
                if unable is order:
                    return False
                continue
            self._trade(order, maker, front[0], size)
        return False

    def _unable(self, taker: Order, maker: Order, price_ticks: int, lots: int) -> Order | None:
        """Return the order that would lose against the mark by this fill when its account cannot pay for that."""
        mark = self._state.ledger.contracts[taker.terms.symbol].mark_ticks
        if price_ticks == mark:
            return None
        loser = taker if (taker.terms.side == BUY) == (price_ticks > mark) else maker
        account = self._state.ledger.accounts[loser.terms.account]
        return None if self._solvency.bears(account, loser.terms.symbol, loser.terms.side, lots, price_ticks) else loser

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
        if mode is not SelfTrade.OLDEST and order.order_id in self._state.orders:  # it goes with the oldest when they are a pair
            self.cancel(order, CancelReason.SELF_TRADE)
        return order.order_id not in self._state.orders

    def _trade(self, taker: Order, maker: Order, price_ticks: int, lots: int) -> None:
        contract = self._state.ledger.contracts[taker.terms.symbol]
        value = contract.value_units(lots, price_ticks)
        taker_fee = fee_units(value, contract.instrument.taker_fee_ppm)
        maker_fee = fee_units(value, contract.instrument.maker_fee_ppm)
        trade_id = self._state.trades + 1
        ids = trade_id, taker.order_id, maker.order_id
        self._emit(Traded(*ids, price_ticks, lots, taker_fee, maker_fee, taker.terms.symbol, taker.terms.side))

    def _fillable(self, order: Order) -> bool:
        """Return whether `_sweep` would fill the whole order: the same walk on paper, icebergs, clips and margin included.

        It ends with the orders that one step may meet: no more of them fill at once.
        """
        state, terms, wanted = self._state, order.terms, order.leaves_lots
        paper, left = _Paper(state, self._solvency, terms.symbol), FILL_OR_KILL_ORDERS

        for level in state.markets[terms.symbol].book.levels(1 - terms.side):
            if not self._reaches(order, level.price):
                return False
            queue = deque(
                (state.orders[order_id], shown, state.orders[order_id].leaves_lots)
                for order_id, shown in islice(level.items(), left + 1)
            )
            while queue:
                left -= 1
                if left < 0:
                    return False
                maker, shown, leaves = queue.popleft()
                if self.overdue(maker) is not None:
                    continue
                leaves = paper.left(maker, leaves)
                shown = min(shown, leaves)
                if not leaves:
                    continue
                size = min(paper.may_trade(order, wanted), shown if queue else leaves)
                if not size:
                    return False
                if maker.terms.account == terms.account:
                    if terms.self_trade is not SelfTrade.OLDEST:
                        return False
                    continue
                size = paper.may_trade(maker, size)
                if not size:
                    paper.cancel(maker)
                    continue
                if not paper.bears(order, size, level.price):
                    return False
                if not paper.bears(maker, size, level.price):
                    paper.cancel(maker)
                    continue
                paper.trade(order, maker, size, level.price)
                wanted, shown, leaves = wanted - size, max(0, shown - size), leaves - size
                if not wanted:
                    return True
                if shown:
                    queue.appendleft((maker, shown, leaves))
                elif leaves:
                    queue.append((maker, min(leaves, maker.terms.display_lots or leaves), leaves))
        return False


class _Paper:
    """Positions and money as they would be after fills that have not happened."""

    def __init__(self, state: State, solvency: Solvency, symbol: str) -> None:
        self._ledger = state.ledger
        self._solvency = solvency
        self._contract = state.ledger.contracts[symbol]
        self._lots: dict[int, int] = {}
        self._gained: dict[int, int] = {}  # against the mark, less fees
        self._taken: dict[int, int] = {}  # order id → lots that its partner traded since it was looked at
        self._canceled: set[int] = set()  # with their partners

    def may_trade(self, order: Order, lots: int) -> int:
        if not order.terms.reduce_only:
            return lots
        return min(lots, reducible_lots(self._held(order.terms.account), order.terms.side))

    def left(self, maker: Order, leaves: int) -> int:
        """Return what its partner has left of a maker that was looked at with `leaves` open."""
        return 0 if maker.order_id in self._canceled else leaves - self._taken.pop(maker.order_id, 0)

    def cancel(self, maker: Order) -> None:
        if maker.link is not UNSET:
            self._canceled.add(maker.link.partner)

    def bears(self, order: Order, lots: int, price_ticks: int) -> bool:
        """Return whether the order's account could pay for a fill, when that loses against the mark."""
        contract, number, side = self._contract, order.terms.account, order.terms.side
        if not loss_units(contract, side, lots, price_ticks):
            return True
        held, gained = self._held(number), self._gained.get(number, 0)
        return self._solvency.bears_on_paper(self._ledger.accounts[number], contract, side, lots, price_ticks, held, gained)

    def trade(self, taker: Order, maker: Order, lots: int, price_ticks: int) -> None:
        contract, terms = self._contract, self._contract.instrument
        value = contract.value_units(lots, price_ticks)
        for order, rate_ppm in ((taker, terms.taker_fee_ppm), (maker, terms.maker_fee_ppm)):
            number, bought = order.terms.account, lots if order.terms.side == BUY else -lots
            gain = contract.value_units(bought) - contract.value_units(bought, price_ticks)
            self._gained[number] = self._gained.get(number, 0) + gain - fee_units(value, rate_ppm)
            self._lots[number] = self._held(number) + bought
        if maker.link is not UNSET and maker.link.partner:
            self._taken[maker.link.partner] = self._taken.get(maker.link.partner, 0) + lots

    def _held(self, number: int) -> int:
        return self._lots[number] if number in self._lots else self._ledger.lots(number, self._contract.instrument.symbol)


def _within(price_ticks: int, limit_ticks: int, side: int) -> bool:
    return price_ticks <= limit_ticks if side == BUY else price_ticks >= limit_ticks


def reducible_lots(position_lots: int, side: int) -> int:
    """Return how many lots an order of `side` may trade without growing or turning the position."""
    return max(0, -position_lots if side == BUY else position_lots)


def in_band(contract: Contract, price_ticks: int) -> bool:
    """Return whether a price is near enough to the mark."""
    band = contract.instrument.band_ppm
    return not band or abs(price_ticks - contract.mark_ticks) * PPM <= band * contract.mark_ticks
