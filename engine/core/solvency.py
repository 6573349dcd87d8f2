"""Decides whether an account can pay for what it asks for: each of its orders executed at that order's own price.

A mark says what a position is worth; a price beyond it (a buy above, a sale below) loses the difference the moment it is
executed, and somebody else gains it. So an order is accepted only when equity covers the margin, the fees and these losses of
all open orders together, and while it executes each fill beyond the mark is looked at again: the mark, or the account's
money, may have moved since. Reads the state, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.core.accounts import Account, Contract, fee_units, share_units
from engine.core.book import Book
from engine.core.commands import BUY, INSURANCE, SELL
from engine.core.state import Order, State
from engine.core.units import PPM

NONE = (0, 0)
ROUNDING = 4  # units that rounding up may add, of some parts of a sum


class Solvency:
    """What the accounts of `state` can carry."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._ledger = state.ledger

    def affords(
        self,
        account: Account,
        symbol: str,
        side: int,
        lots: int,
        price_ticks: int | None,
        more_lots: int,
        instead: Order | None = None,
        besides_units: int = 0,
    ) -> bool:
        """Return whether an order of `lots` may be open, `more_lots` of which are not reserved yet.

        `price_ticks` None: of a market order or a stop, whose price shows when it executes. `instead` is the order that it
        replaces, `besides_units` what the one needs that comes with it. An order that only closes needs no margin: it is enough
        that what remains is maintained afterwards.
        Cost: O(positions); O(own orders) while somebody's order rests beyond the mark.
        """
        contract, ledger = self._ledger.contracts[symbol], self._ledger
        if more_lots == lots and not account.special and self._surely(account, symbol, side, lots, price_ticks, besides_units):
            return True
        more = ledger.margin_more_units(account, symbol, side, more_lots)
        loss = 0 if price_ticks is None else loss_units(contract, side, lots, price_ticks)
        if more <= 0 and not loss:
            return True
        without = ledger.margin_more_units(account, symbol, side, more_lots - lots)
        losses = loss + self._losses(account, instead) + besides_units
        if more <= without:
            return self.bears(account, symbol, side, lots, contract.mark_ticks, losses)
        fees = _fee(contract, max(0, more_lots)) + self._open_fees(account)
        return ledger.initial_units(account) + more + fees + losses <= ledger.equity_units(account)

    def _surely(self, account: Account, symbol: str, side: int, lots: int, price_ticks: int | None, besides_units: int) -> bool:
        """Return whether equity covers more than a new order and all that is open could ever need; False says nothing.

        One pass over the account's contracts, none over its orders: those beyond the mark are taken at the best price of their
        side, which is the worst for them. The margin of what an order only closes is within what it is held to here.
        """
        need, equity = besides_units, account.balance_units
        positions, open_lots = account.positions, account.open_lots
        for one in {symbol: None} | positions | open_lots:
            contract = self._ledger.contracts[one]
            terms, mark = contract.instrument, contract.mark_ticks
            unit = mark * terms.lot_tick_units
            buys, sells = open_lots.get(one, NONE)
            if one == symbol:
                buys, sells = (buys + lots, sells) if side == BUY else (buys, sells + lots)
            held = 0
            if (position := positions.get(one)) is not None:
                held = position.lots
                equity += held * unit - position.cost_units
            most = max(held + buys, sells - held, 0)
            fee_ppm = max(0, terms.taker_fee_ppm, terms.maker_fee_ppm)
            need += (most * terms.initial_margin_ppm + (buys + sells) * fee_ppm) * unit // PPM + ROUNDING
            if buys or sells:
                bid, ask = self._worst_prices(one, mark)
                if one == symbol and price_ticks is not None:
                    bid, ask = max(bid, price_ticks), min(ask, price_ticks)
                lost = (buys * (bid - mark) + sells * (mark - ask)) * terms.lot_tick_units
                need += lost + lost * fee_ppm // PPM + ROUNDING
        return need + len(account.orders) <= equity

    def _worst_prices(self, symbol: str, mark_ticks: int) -> tuple[int, int]:
        """Return the highest price at which anybody buys, or else the mark, and the lowest at which anybody sells."""
        book = self._state.markets[symbol].book
        bid, ask = book.best(BUY), book.best(SELL)
        return max(bid or mark_ticks, mark_ticks), min(ask or mark_ticks, mark_ticks)

    def needs_units(self, symbol: str, side: int, more_lots: int, price_ticks: int | None) -> int:
        """Return what an order loses against the mark and pays in fees, apart from margin."""
        contract = self._ledger.contracts[symbol]
        loss = 0 if price_ticks is None else loss_units(contract, side, more_lots, price_ticks)
        return loss + _fee(contract, more_lots)

    def may_enter(self, order: Order) -> bool:
        """Return whether a triggered stop can be paid at its own price, when it has one."""
        terms, price = order.terms, order.price_ticks
        account, lots = self._ledger.accounts[terms.account], order.leaves_lots
        if price is None or not loss_units(self._ledger.contracts[terms.symbol], terms.side, lots, price):
            return True
        return self.bears(account, terms.symbol, terms.side, lots, price, self._losses(account, None))

    def bears(self, account: Account, symbol: str, side: int, lots: int, price_ticks: int, losses_units: int = 0) -> bool:
        """Return whether an account maintains what it holds after `lots` at a price, and other losses of `losses_units`."""
        held = self._ledger.lots(account.number, symbol)
        return self.bears_on_paper(account, self._ledger.contracts[symbol], side, lots, price_ticks, held, -losses_units)

    def bears_on_paper(
        self, account: Account, contract: Contract, side: int, lots: int, price_ticks: int, held_lots: int, gained_units: int
    ) -> bool:
        """The same after fills that have not happened: they made the position `held_lots` and gained `gained_units`."""
        lost = loss_units(contract, side, lots, price_ticks) + _fee(contract, lots)
        after = held_lots + (lots if side == BUY else -lots)
        return self._ledger.equity_units(account) + gained_units - lost >= self._maintained(account, contract, after)

    def free_units(self, account: Account) -> int:
        """Return what may be withdrawn: no unrealised profit, and nothing that positions and open orders need.

        Of a mark and one that waits until trading resumes, the worse counts.
        """
        pending = {
            symbol: market.pending_mark_ticks for symbol, market in self._state.markets.items() if market.pending_mark_ticks
        }
        equity, margin = self._worst(account, pending)
        return min(account.balance_units, equity) - margin - self._open_fees(account) - self._losses(account, None)

    def _worst(self, account: Account, pending: Mapping[str, int]) -> tuple[int, int]:
        """Return equity and initial margin at the worse of both marks, symbol by symbol."""
        ledger = self._ledger
        equity, margin = ledger.equity_units(account), ledger.initial_units(account)
        for symbol, ticks in pending.items():
            contract, position = ledger.contracts[symbol], account.positions.get(symbol)
            if position is not None:
                equity += min(0, contract.value_units(position.lots, ticks) - contract.value_units(position.lots))
            exposed = ledger.exposed_lots(account, symbol)
            rate = contract.instrument.initial_margin_ppm
            now, then = (share_units(contract.value_units(exposed, at), rate) for at in (contract.mark_ticks, ticks))
            margin += max(0, then - now)
        return equity, margin

    def _maintained(self, account: Account, contract: Contract, lots: int) -> int:
        """Return the maintenance margin of an account with this position in one contract; INSURANCE needs none."""
        if account.number <= INSURANCE:
            return 0
        rate, held = contract.instrument.maintenance_margin_ppm, self._ledger.lots(account.number, contract.instrument.symbol)
        now, then = (share_units(abs(contract.value_units(one)), rate) for one in (held, lots))
        return self._ledger.maintenance_units(account) - now + then

    def _open_fees(self, account: Account) -> int:
        contracts = self._ledger.contracts
        return sum(_fee(contracts[symbol], sum(lots)) for symbol, lots in account.open_lots.items())

    def _losses(self, account: Account, without: Order | None) -> int:
        """Return what the account's resting orders beyond the marks lose when they execute, with `without` left out."""
        markets, contracts = self._state.markets, self._ledger.contracts
        beyond = {
            symbol
            for symbol in account.open_lots.keys() | account.positions.keys()
            if _beyond(contracts[symbol], markets[symbol].book)
        }
        if not beyond:
            return 0
        total, noted = 0, self._state.noted
        for order_id in account.orders:
            order = self._state.orders[order_id]
            if order.resting and order is not without and order.terms.symbol in beyond and not noted(order):
                assert order.price_ticks is not None
                total += loss_units(contracts[order.terms.symbol], order.terms.side, order.leaves_lots, order.price_ticks)
        return total


def loss_units(contract: Contract, side: int, lots: int, price_ticks: int) -> int:
    """Return what `lots` executed at a price lose against the mark at once, with the fee for the difference; 0 when they gain."""
    beyond = price_ticks - contract.mark_ticks if side == BUY else contract.mark_ticks - price_ticks
    if beyond <= 0:
        return 0
    lost = contract.value_units(lots, beyond)
    return lost + (_fee_of(contract, lost) if side == BUY else 0)


def _fee(contract: Contract, lots: int) -> int:
    return _fee_of(contract, contract.value_units(lots))


def _fee_of(contract: Contract, value_units: int) -> int:
    terms = contract.instrument
    return fee_units(value_units, max(0, terms.taker_fee_ppm, terms.maker_fee_ppm))


def _beyond(contract: Contract, book: Book) -> bool:
    """Return whether anybody's order rests beyond the mark."""
    bid, ask = book.front(BUY), book.front(SELL)
    return (bid is not None and bid[0] > contract.mark_ticks) or (ask is not None and ask[0] < contract.mark_ticks)
