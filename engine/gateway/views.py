"""Questions about books, contracts and accounts in, views out; and what operators and feeds set: marks, funding, money."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice
from typing import Annotated

from litestar import get, post, put
from litestar.openapi.spec import Example
from litestar.params import Body, PathParameter, QueryParameter
from litestar.types import ControllerRouterHandler
from msgspec.structs import replace

from engine.core import events as ev
from engine.core import units
from engine.core.accounts import Account, Contract
from engine.core.admission import MONEY_UNITS_MAX
from engine.core.book import Book
from engine.core.commands import (
    BUY,
    SELL,
    CheckLiveness,
    CreateInstrument,
    Deposit,
    Fund,
    Instrument,
    Resume,
    SetMark,
    Suspend,
    Withdraw,
)  # fmt: skip
from engine.core.events import RejectReason
from engine.core.solvency import Solvency
from engine.core.state import State
from engine.core.units import PPM, WHOLE_MAX, Misaligned
from engine.gateway.bodies import (
    AccountSummary,
    AccountView,
    AmountBody,
    BookView,
    ControlsView,
    FundingView,
    InstrumentBody,
    InstrumentView,
    LevelView,
    LivenessView,
    MarkView,
    PositionView,
    TransferView,
)  # fmt: skip
from engine.gateway.order_bodies import SYMBOL_LENGTH_MAX
from engine.gateway.orders import OrderDesk, SymbolQuery
from engine.gateway.problems import Refused, StrictBody, problems, rejected
from engine.journal.sequencer import Sequencer
from engine.stores.message_log import MessageLog
from engine.stores.rules import MANUAL
from service.clock import Clock

NAME_LENGTH_MAX = 64
ACCOUNTS_MAX = 1_000
PRICE_TICKS_MAX = 10_000_000
RATE_DIGITS = 9

DepthQuery = Annotated[int, QueryParameter(name="depth", ge=0, le=1_000_000, description="levels a side; 0 = all")]
SymbolOrAll = Annotated[str | None, QueryParameter(name="symbol", max_length=SYMBOL_LENGTH_MAX, description="all without it")]
PriceQuery = Annotated[
    Decimal, QueryParameter(name="price", description="a multiple of the tick size", examples=[Example(value="100.5")])
]
RateQuery = Annotated[
    Decimal,
    QueryParameter(
        name="rate", description="fraction of the value that longs pay to shorts, six digits", examples=[Example(value="0.0001")]
    ),
]
CheckQuery = Annotated[
    str, QueryParameter(name="checkId", min_length=1, max_length=NAME_LENGTH_MAX, description="names the milestone")
]
SourceQuery = Annotated[str, QueryParameter(name="source", max_length=NAME_LENGTH_MAX, description="the service that sends it")]
AccountPath = Annotated[int, PathParameter(ge=-1, le=WHOLE_MAX, description="account number")]
AfterQuery = Annotated[int, QueryParameter(name="after", ge=-2, le=WHOLE_MAX, description="only accounts above this number")]
LimitQuery = Annotated[int, QueryParameter(name="limit", ge=1, le=ACCOUNTS_MAX, description="at most so many")]

INSTRUMENT = {
    "symbol": "BTC-PERP",
    "tickSize": "0.5",
    "lotSize": "0.001",
    "takerFee": 0.0005,
    "priceBand": 0.2,
    "markPrice": 100.5,
}
AmountData = Annotated[AmountBody, Body(examples=[Example(value={"amount": 1_000_000})])]
InstrumentData = Annotated[InstrumentBody, Body(examples=[Example(value=INSTRUMENT)])]


class AmountDTO(StrictBody[AmountBody]):
    """The body of a transfer."""


class InstrumentDTO(StrictBody[InstrumentBody]):
    """The body of a contract."""


class Counter:
    """What the exchange's books, contracts and accounts look like, and the commands that change them."""

    def __init__(self, sequencer: Sequencer, log: MessageLog, desk: OrderDesk, clock: Clock) -> None:
        self._sequencer = sequencer
        self._log = log
        self._clock = clock
        self.desk = desk

    @property
    def state(self) -> State:
        return self._sequencer.state

    @property
    def index(self) -> int:
        return self._sequencer.committed_index

    def contract(self, symbol: str) -> Contract:
        """Raises: Refused."""
        contract = self.state.ledger.contracts.get(symbol)
        if contract is None:
            raise rejected(RejectReason.UNKNOWN_SYMBOL)
        return contract

    def book(self, symbol: str, depth: int) -> BookView:
        """Return the best levels.  Raises: Refused. Cost: O(levels × their orders)."""
        contract = self.contract(symbol)
        market, instrument = self.state.markets[symbol], contract.instrument
        last = units.price(instrument, market.last_ticks) if market.last_ticks else None
        at = units.iso(self._log.time_ns or self._clock.wall_ns())
        bids, asks = (_levels(market.book, side, depth, instrument) for side in (BUY, SELL))
        return BookView(symbol, self.index, at, bids, asks, last, units.price(instrument, contract.mark_ticks))

    def account(self, number: int) -> AccountView:
        """Return an account with its positions and open orders.  Raises: Refused."""
        account = self.state.ledger.accounts.get(number)
        if account is None:
            raise rejected(RejectReason.UNKNOWN_ACCOUNT)
        summary, orders = self.summary(account), self.state.orders
        shown = [self.desk.open_view(orders[order_id]) for order_id in account.orders]
        return AccountView(
            account=number, balance=summary.balance, equity=summary.equity, initial_margin=summary.initial_margin,
            maintenance_margin=summary.maintenance_margin, available=summary.available, kill_switch=summary.kill_switch,
            message_index=self.index, deadline=units.iso(account.deadline_ns) if account.deadline_ns else None,
            positions=self._positions(account), open_orders=shown,
        )  # fmt: skip

    def summary(self, account: Account) -> AccountSummary:
        """Return an account's money."""
        ledger = self.state.ledger
        return AccountSummary(
            account=account.number, balance=account.balance_units, equity=ledger.equity_units(account),
            initial_margin=ledger.initial_units(account), maintenance_margin=ledger.maintenance_units(account),
            available=max(0, Solvency(self.state).free_units(account)), kill_switch=account.killed,
        )  # fmt: skip

    def summaries(self, after: int, limit: int) -> list[AccountSummary]:
        """Return accounts by rising number. Cost: O(accounts)."""
        accounts = self.state.ledger.accounts
        numbers = sorted(number for number in accounts if number > after)
        return [self.summary(accounts[number]) for number in islice(numbers, limit)]

    def controls(self, index: int) -> ControlsView:
        """Return why trading is suspended."""
        return ControlsView(index, bool(self.state.suspended), sorted(self.state.suspended))

    def _positions(self, account: Account) -> list[PositionView]:
        found = []
        for symbol, position in sorted(account.positions.items()):
            contract = self.state.ledger.contracts[symbol]
            mark, profit = units.price(contract.instrument, contract.mark_ticks), contract.value_units(position.lots)
            found.append(PositionView(symbol, position.lots, position.cost_units, mark, profit - position.cost_units))
        return found


def _levels(book: Book, side: int, depth: int, instrument: Instrument) -> list[LevelView]:
    levels = book.levels(side)
    return [
        LevelView(units.price(instrument, level.price), sum(level.values()), len(level))
        for level in (islice(levels, depth) if depth else levels)
    ]


def instrument_view(contract: Contract) -> InstrumentView:
    """Return a contract and its mark."""
    one = contract.instrument
    return InstrumentView(
        symbol=one.symbol, tick_size=one.tick_size, lot_size=one.lot_size, lot_tick_units=one.lot_tick_units,
        maker_fee=one.maker_fee_ppm / PPM, taker_fee=one.taker_fee_ppm / PPM, initial_margin=one.initial_margin_ppm / PPM,
        maintenance_margin=one.maintenance_margin_ppm / PPM, liquidation_fee=one.liquidation_fee_ppm / PPM,
        price_band=one.band_ppm / PPM, order_qty_max=one.size_lots_max, price_max=units.price(one, one.price_ticks_max),
        mark_price=units.price(one, contract.mark_ticks),
    )  # fmt: skip


def creation_of(body: InstrumentBody) -> CreateInstrument:
    """Return the command that lists a contract.  Raises: ValueError, Misaligned."""
    tick, lot = units.scale(body.tick_size), units.scale(body.lot_size)
    lot_units = body.lot_tick_units
    if lot_units is None:
        lot_units, rest = divmod(tick[0] * lot[0] * PPM, tick[1] * lot[1])
        if rest or not 0 < lot_units <= WHOLE_MAX:
            raise ValueError("one lot times one tick is no whole number of money units; give lotTickUnits, or other sizes")
    most = min(PRICE_TICKS_MAX, MONEY_UNITS_MAX // (lot_units * body.order_qty_max))
    draft = Instrument(
        symbol=body.symbol, lot_tick_units=lot_units, maker_fee_ppm=_ppm("makerFee", body.maker_fee),
        taker_fee_ppm=_ppm("takerFee", body.taker_fee), initial_margin_ppm=_ppm("initialMargin", body.initial_margin),
        maintenance_margin_ppm=_ppm("maintenanceMargin", body.maintenance_margin),
        liquidation_fee_ppm=_ppm("liquidationFee", body.liquidation_fee), band_ppm=_ppm("priceBand", body.price_band),
        size_lots_max=body.order_qty_max, price_ticks_max=max(1, most), tick_size=body.tick_size, lot_size=body.lot_size,
    )  # fmt: skip
    if body.price_max is not None:
        draft = replace(draft, price_ticks_max=units.ticks(draft, body.price_max, "priceMax"))
    return CreateInstrument(draft, units.ticks(draft, body.mark_price, "markPrice"))


def _ppm(field: str, rate: Decimal) -> int:
    """Return a rate as parts per million.  Raises: ValueError between two of them."""
    if not rate.is_finite() or (rate and not -RATE_DIGITS <= rate.adjusted() < RATE_DIGITS):
        raise ValueError(f"{field} must be a fraction, like 0.0005")
    if len(rate.as_tuple().digits) > units.DIGITS_MAX:
        raise ValueError(f"{field} has too many digits")
    if not rate:
        return 0
    over, under = rate.as_integer_ratio()
    ppm, rest = divmod(over * PPM, under)
    if rest:
        raise ValueError(f"{field} has more than six digits behind the point")
    return ppm


def routes(counter: Counter) -> list[ControllerRouterHandler]:
    """Return the handlers of everything that is no order and no message store."""
    return [*_book_routes(counter), *_account_routes(counter), *_feed_routes(counter), *_control_routes(counter)]


def _book_routes(counter: Counter) -> list[ControllerRouterHandler]:
    @get("/OrderBook", responses=problems(404), tags=["market"], summary="The best levels of a book")
    async def order_book(symbol: SymbolQuery, depth: DepthQuery = 10) -> BookView:
        return counter.book(symbol, depth)

    @get("/Instrument", responses=problems(404), tags=["market"], summary="The contracts")
    async def instruments(symbol: SymbolOrAll = None) -> list[InstrumentView]:
        contracts = counter.state.ledger.contracts
        return [instrument_view(counter.contract(one)) for one in ([symbol] if symbol else sorted(contracts))]

    @put(
        "/Instrument", dto=InstrumentDTO, return_dto=None, responses=problems(409, 413, 422), tags=["market"],
        summary="List a contract; again with the same terms changes nothing",
    )  # fmt: skip
    async def create(data: InstrumentData) -> InstrumentView:
        try:
            command = creation_of(data)
        except Misaligned as error:
            raise Refused(422, RejectReason.INVALID_PRICE.value, str(error)) from None
        except ValueError as error:
            raise Refused(422, RejectReason.INVALID_INSTRUMENT.value, str(error)) from None
        known = counter.state.ledger.contracts.get(data.symbol)
        if known is None or known.instrument != command.instrument:
            await counter.desk.carry_out(command)
        return instrument_view(counter.contract(data.symbol))

    return [order_book, instruments, create]


def _account_routes(counter: Counter) -> list[ControllerRouterHandler]:
    @get("/Account", responses=problems(), tags=["accounts"], summary="The accounts' money, by number")
    async def accounts(after: AfterQuery = -2, limit: LimitQuery = ACCOUNTS_MAX) -> list[AccountSummary]:
        return counter.summaries(after, limit)

    @get(
        "/Account/{account:int}", responses=problems(404), tags=["accounts"], summary="An account, its positions and open orders"
    )
    async def account_of(account: AccountPath) -> AccountView:
        return counter.account(account)

    @post(
        "/Account/{account:int}/Deposit", status_code=200, dto=AmountDTO, return_dto=None, responses=problems(404, 413, 422),
        tags=["accounts"], summary="Bring money in; the first deposit opens the account",
    )  # fmt: skip
    async def deposit(account: AccountPath, data: AmountData) -> TransferView:
        outcome = await counter.desk.carry_out(Deposit(account, data.amount))
        return TransferView(outcome.index, account, data.amount, counter.state.ledger.accounts[account].balance_units)

    @post(
        "/Account/{account:int}/Withdraw", status_code=200, dto=AmountDTO, return_dto=None, responses=problems(404, 413, 422),
        tags=["accounts"], summary="Take money out that is not needed as margin",
    )  # fmt: skip
    async def withdraw(account: AccountPath, data: AmountData) -> TransferView:
        outcome = await counter.desk.carry_out(Withdraw(account, data.amount))
        return TransferView(outcome.index, account, -data.amount, counter.state.ledger.accounts[account].balance_units)

    return [accounts, account_of, deposit, withdraw]


def _feed_routes(counter: Counter) -> list[ControllerRouterHandler]:
    @put("/MarkPrice", responses=problems(404, 422), tags=["market"], summary="Set a contract's mark price")
    async def mark_price(symbol: SymbolQuery, price: PriceQuery) -> MarkView:
        instrument = counter.contract(symbol).instrument
        try:
            ticks = units.ticks(instrument, price)
        except ValueError as error:
            raise Refused(422, RejectReason.INVALID_PRICE.value, str(error)) from None
        outcome = await counter.desk.carry_out(SetMark(symbol, ticks))
        pending = any(isinstance(event, ev.MarkSet) and event.pending for event in outcome.events)
        return MarkView(outcome.index, symbol, units.price(instrument, ticks), pending)

    @put("/Funding", responses=problems(404, 422), tags=["market"], summary="Charge funding")
    async def funding(symbol: SymbolQuery, rate: RateQuery) -> FundingView:
        try:
            ppm = _ppm("rate", rate)
        except ValueError as error:
            raise Refused(422, RejectReason.INVALID_AMOUNT.value, str(error)) from None
        outcome = await counter.desk.carry_out(Fund(symbol, ppm))
        payments = sum(len(event.payments) for event in outcome.events if isinstance(event, ev.FundingCharged))
        return FundingView(outcome.index, symbol, ppm / PPM, payments)

    @put("/LivenessCheck", responses=problems(422), tags=["market"], summary="Send a milestone through the sequence")
    async def liveness(check_id: CheckQuery, source: SourceQuery = "") -> LivenessView:
        outcome = await counter.desk.carry_out(CheckLiveness(check_id, source))
        return LivenessView(outcome.index, check_id, source)

    return [mark_price, funding, liveness]


def _control_routes(counter: Counter) -> list[ControllerRouterHandler]:
    @get("/ExchangeWideControls", responses=problems(), tags=["controls"], summary="Whether trading is suspended, and why")
    async def controls() -> ControlsView:
        return counter.controls(counter.index)

    @put("/ExchangeWideControls/SuspendTrading", responses=problems(), tags=["controls"], summary="Suspend trading by hand")
    async def suspend() -> ControlsView:
        return counter.controls((await counter.desk.carry_out(Suspend(MANUAL))).index)

    @put(
        "/ExchangeWideControls/ResumeTrading", responses=problems(), tags=["controls"],
        summary="Lift the suspension by hand; stores that are behind keep theirs",
    )  # fmt: skip
    async def resume() -> ControlsView:
        return counter.controls((await counter.desk.carry_out(Resume(MANUAL))).index)

    return [controls, suspend, resume]
