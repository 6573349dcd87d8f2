"""Shows and enters the paper orders of one account of the built-in exchange, with our own key of its gateway.

Invariant: whose account it is comes from our database and never from a request. An order goes out under a key that its sender
chose; the exchange keeps it with the answer, so that one that is sent again is entered once, over restarts of everybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from scp.fleet.fleet import Fleet
from scp.problems import Problem

FILLS = 20
CONTRACTS_S, CONTROLS_S = 5.0, 1.0  # how old contracts, and whether trading is suspended, may be
UNITS = 1_000_000  # of a contract that says nothing: money units in one of the currency


class Contract(msgspec.Struct):
    """What may be traded: steps of prices and sizes as decimals, the largest order in lots, the mark."""

    symbol: str
    tick_size: str
    lot_size: str
    qty_max: int
    mark: float


class Money(msgspec.Struct):
    """An account's money in the contracts' currency; `available` is what no margin holds."""

    balance: float
    equity: float
    initial_margin: float
    available: float


class Position(msgspec.Struct):
    """Signed lots, the mean price they were entered at, the mark, and what they are worth more than they cost."""

    symbol: str
    qty: int
    entry: float
    mark: float
    profit: float


class PaperOrder(msgspec.Struct):
    """An order: `qty` of it were wanted, `filled` have traded at `average`, `left` wait. Prices of a market order are null."""

    id: str
    symbol: str
    side: str
    kind: str
    price: float | None
    qty: int
    left: int
    filled: int
    average: float
    state: str


class Fill(msgspec.Struct):
    """What was traded: lots, price, fee in the currency (a rebate when negative), ISO 8601 time, whether it rested."""

    id: str
    order: str
    symbol: str
    side: str
    qty: int
    price: float
    fee: float
    at: str
    maker: bool


class PaperLeft(msgspec.Struct):
    """An account whose owner may not trade any more: orders that were cancelled now, orders that are open, positions.

    `problem` is why they could not be cancelled or counted: the exchange is away, say.
    """

    account: int
    canceled: int
    open_orders: int
    positions: int
    problem: str = ""


class PaperDesk(msgspec.Struct):
    """Everything of one's paper account; `account` and `money` are null until it is opened. `deposit` is what it begins with."""

    account: int | None
    deposit: int
    suspended: list[str]
    contracts: list[Contract]
    money: Money | None
    positions: list[Position]
    orders: list[PaperOrder]
    fills: list[Fill]


class Paper:
    """Paper trading over one exchange. `deposit` in the contracts' currency; 0 = nobody gets an account."""

    def __init__(self, fleet: Fleet, deposit: int) -> None:
        self._fleet = fleet
        self._deposit = deposit

    def desk(self, account: int | None) -> PaperDesk:
        """Return what somebody sees.  Raises: Problem 503, naming the exchange."""
        return self._fleet.wait(self.look(account))

    async def look(self, account: int | None) -> PaperDesk:
        """The same on the loop of the calls out."""
        shared: tuple[tuple[str, dict[str, str], float], ...] = (
            ("/Instrument", {}, CONTRACTS_S),
            ("/ExchangeWideControls", {}, CONTROLS_S),
        )
        if account is None:
            contracts, controls = await self._fleet.gateway_every(*shared)
            own, fills = None, []
        else:
            try:
                contracts, controls, own, page = await self._fleet.gateway_every(
                    *shared,
                    (f"/Account/{account}", {}, 0),
                    ("/Fill", {"account": str(account), "limit": str(FILLS)}, 0),
                )
                fills = page["fills"]
            except Problem as problem:
                if problem.status != 404:
                    raise
                return await self.look(None)  # the exchange began anew, with an empty disk: it is opened again
        listed, units = {one["symbol"]: one for one in contracts}, units_of(contracts)
        return PaperDesk(
            account=account if own else None,
            deposit=self._deposit,
            suspended=controls["reasons"] if controls["suspended"] else [],
            contracts=[_contract(one) for one in contracts],
            money=_money(own, units) if own else None,
            positions=[_position(one, listed[one["symbol"]], units) for one in own["positions"] if one["qty"]] if own else [],
            orders=[order_of(one) for one in reversed(own["openOrders"])] if own else [],
            fills=[_fill(one, units) for one in fills],
        )

    def open(self, account: int) -> None:
        """Give an account its deposit, once.  Raises: Problem."""
        if not self._deposit:
            raise Problem(409, "no_paper_accounts", "Nobody gets a paper account here: SCP_PAPER_DEPOSIT is 0")
        try:
            self._fleet.gateway("GET", f"/Account/{account}")
            return
        except Problem as problem:
            if problem.status != 404:
                raise
        units = units_of(self._fleet.gateway("GET", "/Instrument").document)
        self._fleet.gateway("POST", f"/Account/{account}/Deposit", None, f"paper-{account}", {"amount": self._deposit * units})

    def place(self, account: int, order: Mapping[str, Any], key: str) -> PaperOrder:
        """Enter an order; the same key again is the same order.  Raises: Problem."""
        body = {"account": account, "clOrdID": client_id(key), **order}
        return order_of(self._fleet.gateway("POST", "/Order", None, key, body).document)

    def amend(self, account: int, name: str, changed: Mapping[str, Any], key: str) -> PaperOrder:
        """Give an open order other terms.  Raises: Problem."""
        body = {"account": account, "clOrdID": name, **changed}
        return order_of(self._fleet.gateway("PUT", "/Order", None, key, body).document)

    def cancel_all(self, account: int, key: str) -> PaperLeft:
        """Take all open orders of an account out; say what is left of it.  Raises: Problem."""
        params = {"account": str(account)}
        try:
            said = self._fleet.gateway("DELETE", "/Order/All", params, key).document
            own = self._fleet.gateway("GET", f"/Account/{account}").document
        except Problem as problem:
            if problem.status != 404:
                raise
            return PaperLeft(account, 0, 0, 0)  # the exchange does not know it: it was never opened, or began anew
        return PaperLeft(account, len(said["canceled"]), len(own["openOrders"]), sum(1 for one in own["positions"] if one["qty"]))

    def left(self, account: int) -> PaperLeft:
        """Return what an account has.  Raises: Problem."""
        try:
            own = self._fleet.gateway("GET", f"/Account/{account}").document
        except Problem as problem:
            if problem.status != 404:
                raise
            return PaperLeft(account, 0, 0, 0)
        return PaperLeft(account, 0, len(own["openOrders"]), sum(1 for one in own["positions"] if one["qty"]))

    def cancel(self, account: int, name: str, key: str) -> PaperOrder:
        """Take an open order out.  Raises: Problem."""
        said = self._fleet.gateway("DELETE", "/Order", {"account": str(account), "clOrdID": name}, key).document
        return order_of(said)


def client_id(key: str) -> str:
    """Return the name of the order that goes out under a key: the same one each time."""
    return f"paper-{hashlib.sha256(key.encode()).hexdigest()[:20]}"


def units_of(contracts: list[dict[str, Any]]) -> int:
    """Return how many of the exchange's money units are one of its currency: all contracts have the same."""
    if not contracts:
        return UNITS
    one = contracts[0]
    return int(Decimal(one["lotTickUnits"]) / (Decimal(one["tickSize"]) * Decimal(one["lotSize"])))


def order_of(said: dict[str, Any]) -> PaperOrder:
    """Return an order as people see it."""
    return PaperOrder(
        said["clOrdID"], said["symbol"], said["side"], said["ordType"], said["price"], said["orderQty"], said["leavesQty"],
        said["cumQty"], said["avgPx"], said["ordStatus"],
    )  # fmt: skip


def _contract(said: dict[str, Any]) -> Contract:
    return Contract(said["symbol"], said["tickSize"], said["lotSize"], said["orderQtyMax"], said["markPrice"])


def _money(said: dict[str, Any], units: int) -> Money:
    return Money(*(said[name] / units for name in ("balance", "equity", "initialMargin", "available")))


def _position(said: dict[str, Any], contract: dict[str, Any], units: int) -> Position:
    quantity = said["qty"]
    entry = said["entryValue"] / units / (quantity * float(contract["lotSize"]))
    return Position(said["symbol"], quantity, entry, said["markPrice"], said["unrealisedPnl"] / units)


def _fill(said: dict[str, Any], units: int) -> Fill:
    return Fill(
        f"{said['trdMatchID']}-{said['orderId']}", said["clOrdID"], said["symbol"], said["side"], said["lastQty"], said["lastPx"],
        said["execComm"] / units, said["transactTime"], said["lastLiquidityInd"] == "AddedLiquidity",
    )  # fmt: skip
