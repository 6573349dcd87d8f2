"""Takes large work in steps: funding of many holders, and a look at the margin of many holders after a mark.

A step changes as much as its caller allows and says in an event how far it came. A holder who would change his position or money
before his turn is charged first, by what he held when the funding began; who opened a position since pays nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import islice

from engine.core import events as ev
from engine.core.accounts import Contract
from engine.core.commands import CLEARING, INSURANCE
from engine.core.events import Event, MoveReason, PositionMoved
from engine.core.state import State
from engine.core.units import PPM
from engine.core.work import LOWEST, Funding, Review


class Steps:
    """The steps of `state.work` that are about holders. `emit` applies an event to the state and keeps it."""

    def __init__(self, state: State, emit: Callable[[Event], None]) -> None:
        self._state = state
        self._emit = emit
        self._sorted: dict[str, list[int]] = {}  # holders (or orders) when what is at hand began, by number

    # Funding

    def charge_at_once(self, symbol: str, rate_ppm: int) -> None:
        """Charge few holders in one event."""
        contract = self._state.ledger.contracts[symbol]
        payments = self._payments(contract, rate_ppm, contract.mark_ticks, sorted(contract.holders))
        self._emit(ev.FundingCharged(symbol, rate_ppm, payments))

    def begin_charge(self, symbol: str, rate_ppm: int) -> None:
        """Begin to charge many holders."""
        contract = self._state.ledger.contracts[symbol]
        self._emit(ev.FundingBegun(symbol, rate_ppm, contract.mark_ticks, len(contract.holders)))

    def charge(self, funding: Funding, most: int) -> bool:
        """Charge the next `most` holders; return whether all are done then."""
        symbol, contract = funding.symbol, self._state.ledger.contracts[funding.symbol]
        numbers = self._next(f"funding {symbol}", contract, funding.after, most)
        if not numbers:
            del self._sorted[f"funding {symbol}"]
            self._emit(ev.FundingEnded(symbol, funding.held_units))
            return True
        due = [number for number in numbers if number not in funding.ahead]
        payments = self._payments(contract, funding.rate_ppm, funding.mark_ticks, due)
        self._emit(ev.FundingStepped(symbol, funding.rate_ppm, funding.mark_ticks, payments, numbers[-1]))
        return False

    def charge_ahead(self, number: int) -> None:
        """Charge an account before its turn: it is about to change what it holds."""
        for funding in self._state.work.fundings.values():
            if number > funding.after and number not in funding.ahead:
                contract = self._state.ledger.contracts[funding.symbol]
                payments = self._payments(contract, funding.rate_ppm, funding.mark_ticks, [number])
                terms = funding.symbol, funding.rate_ppm, funding.mark_ticks
                self._emit(ev.FundingStepped(*terms, payments, funding.after, (number,)))

    @staticmethod
    def _payments(contract: Contract, rate_ppm: int, mark_ticks: int, numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
        holders = contract.holders
        due = (
            (number, -(-contract.value_units(holders[number].lots, mark_ticks) * rate_ppm // PPM))
            for number in numbers
            if number in holders and number != INSURANCE
        )
        return tuple((number, units) for number, units in due if units)

    # The end of a contract

    def orders_of(self, symbol: str, most: int) -> list[int]:
        """Return the next orders of a contract that takes no new ones. Cost: O(all orders) the first time, then O(`most`)."""
        name = f"orders {symbol}"
        if name not in self._sorted:
            orders = self._state.orders.items()
            self._sorted[name] = sorted((order_id for order_id, order in orders if order.terms.symbol == symbol), reverse=True)
        left = self._sorted[name]
        return [left.pop() for _ in range(min(most, len(left)))]

    def settle(self, symbol: str, most: int) -> list[int]:
        """Close the positions of the next holders at the mark; return whose. CLEARING takes them, and ends with none."""
        contract, name = self._state.ledger.contracts[symbol], f"settlement {symbol}"
        holders = contract.holders
        if name not in self._sorted:
            self._sorted[name] = sorted((n for n in holders if n not in (INSURANCE, CLEARING)), reverse=True)
        left = self._sorted[name]
        numbers = [INSURANCE] if INSURANCE in holders else []  # it may take over a position at any time
        while left and len(numbers) < most:
            numbers += [number] if (number := left.pop()) in holders else []
        for number in numbers:
            lots = holders[number].lots
            terms = lots, contract.value_units(lots), MoveReason.SETTLEMENT
            self._emit(PositionMoved(symbol, number, CLEARING, *terms))
        return numbers

    # Margin

    def begin_review(self, symbol: str) -> None:
        """Begin to look at the margin of all holders, or begin again where a look is under way."""
        self._sorted.pop(f"review {symbol}", None)
        self._emit(ev.ReviewBegun(symbol))

    def review(self, review: Review, most: int) -> list[int]:
        """Return the next `most` holders to look at; none when that was all."""
        symbol, contract = review.symbol, self._state.ledger.contracts[review.symbol]
        numbers, wrapped = self._next(f"review {symbol}", contract, review.after, most), review.wrapped
        if not numbers and not wrapped:
            numbers, wrapped = self._next(f"review {symbol}", contract, LOWEST, most), True
        if wrapped:
            numbers = [number for number in numbers if number <= review.until]
        if not numbers:
            del self._sorted[f"review {symbol}"]
            self._emit(ev.ReviewEnded(symbol))
        else:
            self._emit(ev.ReviewStepped(symbol, numbers[-1], wrapped))
        return numbers

    def _next(self, name: str, contract: Contract, after: int, most: int) -> list[int]:
        """Return the next holders above a number. Cost: O(holders) the first time, then O(`most`)."""
        if name not in self._sorted:
            self._sorted[name] = sorted(contract.holders)
        numbers = self._sorted[name]
        at = bisect_right(numbers, after)
        return list(islice(numbers, at, at + most))
