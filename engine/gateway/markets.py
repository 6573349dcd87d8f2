"""HTTP routes of books and contracts, and of what a feed sets: mark prices, funding, milestones."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from litestar import delete, get, put
from litestar.openapi.spec import Example
from litestar.params import Body, QueryParameter
from litestar.types import ControllerRouterHandler, Scope
from msgspec.structs import replace

from engine.core import events as ev
from engine.core import units
from engine.core.admission import MONEY_UNITS_MAX
from engine.core.commands import (
    CheckLiveness,
    CreateInstrument,
    Delist,
    Fund,
    Instrument,
    SetMark,
)  # fmt: skip
from engine.core.events import RejectReason
from engine.core.units import PPM, WHOLE_MAX, Misaligned, ppm
from engine.gateway.bodies import (
    BookView,
    FundingView,
    InstrumentBody,
    InstrumentView,
    LivenessView,
    MarkView,
)  # fmt: skip
from engine.gateway.door import caller_of
from engine.gateway.orders import OrderDesk, SymbolOrAll, SymbolQuery
from engine.gateway.problems import Refused, StrictBody, problems
from engine.gateway.views import Views
from engine.journal.sequencer import Outcome

PUBLIC_DEPTH_MAX = 100  # whole books of the public would be the exchange's time
PUBLIC: list[dict[str, list[str]]] = [{}]  # for the documentation: the rules say it
NAME_LENGTH_MAX = 64
PRICE_TICKS_MAX = 10_000_000

DepthQuery = Annotated[
    int, QueryParameter(name="depth", ge=0, le=1_000_000, description="levels a side; 0 = all; up to 100 without a key")
]
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
DelistedQuery = Annotated[bool, QueryParameter(name="delisted", description="those that are delisted, too")]
SettleQuery = Annotated[bool, QueryParameter(name="settle", description="cancel its orders, close its positions at the mark")]

INSTRUMENT = {
    "symbol": "BTC-PERP",
    "tickSize": "0.5",
    "lotSize": "0.001",
    "takerFee": 0.0005,
    "priceBand": 0.2,
    "markPrice": 100.5,
}
InstrumentData = Annotated[InstrumentBody, Body(examples=[Example(value=INSTRUMENT)])]


class InstrumentDTO(StrictBody[InstrumentBody]):
    """The body of a contract."""


def routes(views: Views, desk: OrderDesk) -> list[ControllerRouterHandler]:
    """Return the handlers of books and contracts, and of what a feed sets."""
    return [*_book_routes(views, desk), *_feed_routes(views, desk)]


def _book_routes(views: Views, desk: OrderDesk) -> list[ControllerRouterHandler]:
    @get("/OrderBook", security=PUBLIC, responses=problems(404), tags=["market"], summary="The best levels of a book")
    async def order_book(symbol: SymbolQuery, scope: Scope, depth: DepthQuery = 10) -> BookView:
        if caller_of(scope).role is None and not 0 < depth <= PUBLIC_DEPTH_MAX:
            raise Refused(401, "Unauthorized", f"Without a key a book has up to {PUBLIC_DEPTH_MAX} levels a side.")
        return views.book(symbol, depth)

    @get("/Instrument", security=PUBLIC, responses=problems(404), tags=["market"], summary="The contracts")
    async def instruments(symbol: SymbolOrAll = None, delisted: DelistedQuery = False) -> list[InstrumentView]:
        return [views.instrument(symbol)] if symbol else views.instruments(delisted)

    @put(
        "/Instrument", dto=InstrumentDTO, return_dto=None, responses=problems(409, 413, 422), tags=["market"],
        summary="List a contract; again with the same terms changes nothing",
    )  # fmt: skip
    async def create(data: InstrumentData, scope: Scope) -> InstrumentView:
        try:
            command = creation_of(data)
        except Misaligned as error:
            raise Refused(422, RejectReason.INVALID_PRICE.value, str(error)) from None
        except ValueError as error:
            raise Refused(422, RejectReason.INVALID_INSTRUMENT.value, str(error)) from None
        known = views.state.ledger.contracts.get(data.symbol)
        if known is None or not known.listed or known.instrument != command.instrument:
            return await desk.answer(caller_of(scope), command, lambda _: views.instrument(data.symbol))
        return views.instrument(data.symbol)

    @delete(
        "/Instrument", status_code=200, responses=problems(404, 409, 422), tags=["market"],
        summary="Delist a contract without orders and positions, or close them first",
    )  # fmt: skip
    async def delist(symbol: SymbolQuery, scope: Scope, settle: SettleQuery = False) -> InstrumentView:
        return await desk.answer(caller_of(scope), Delist(symbol, settle), lambda _: views.instrument(symbol))

    return [order_book, instruments, create, delist]


def _feed_routes(views: Views, desk: OrderDesk) -> list[ControllerRouterHandler]:
    @put("/MarkPrice", responses=problems(404, 422), tags=["market"], summary="Set a contract's mark price")
    async def mark_price(symbol: SymbolQuery, price: PriceQuery, scope: Scope) -> MarkView:
        instrument = views.contract(symbol).instrument
        try:
            ticks = units.ticks(instrument, price)
        except ValueError as error:
            raise Refused(422, RejectReason.INVALID_PRICE.value, str(error)) from None

        def view(outcome: Outcome) -> MarkView:
            pending = any(isinstance(event, ev.MarkSet) and event.pending for event in outcome.events)
            return MarkView(outcome.index, symbol, units.price(instrument, ticks), pending)

        return await desk.answer(caller_of(scope), SetMark(symbol, ticks), view)

    @put("/Funding", responses=problems(404, 409, 422), tags=["market"], summary="Charge funding")
    async def funding(symbol: SymbolQuery, rate: RateQuery, scope: Scope) -> FundingView:
        try:
            rate_ppm = ppm("rate", rate)
        except ValueError as error:
            raise Refused(422, RejectReason.INVALID_AMOUNT.value, str(error)) from None

        def view(outcome: Outcome) -> FundingView:
            payments = sum(len(event.payments) for event in outcome.events if isinstance(event, ev.FundingCharged))
            payments += sum(event.holders for event in outcome.events if isinstance(event, ev.FundingBegun))
            return FundingView(outcome.index, symbol, rate_ppm / PPM, payments)

        return await desk.answer(caller_of(scope), Fund(symbol, rate_ppm), view)

    @put("/LivenessCheck", responses=problems(422), tags=["market"], summary="Send a milestone through the sequence")
    async def liveness(check_id: CheckQuery, scope: Scope, source: SourceQuery = "") -> LivenessView:
        return await desk.answer(
            caller_of(scope), CheckLiveness(check_id, source), lambda outcome: LivenessView(outcome.index, check_id, source)
        )

    return [mark_price, funding, liveness]


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
        symbol=body.symbol, lot_tick_units=lot_units, maker_fee_ppm=ppm("makerFee", body.maker_fee),
        taker_fee_ppm=ppm("takerFee", body.taker_fee), initial_margin_ppm=ppm("initialMargin", body.initial_margin),
        maintenance_margin_ppm=ppm("maintenanceMargin", body.maintenance_margin),
        liquidation_fee_ppm=ppm("liquidationFee", body.liquidation_fee), band_ppm=ppm("priceBand", body.price_band),
        size_lots_max=body.order_qty_max, price_ticks_max=max(1, most), tick_size=body.tick_size, lot_size=body.lot_size,
    )  # fmt: skip
    if body.price_max is not None:
        draft = replace(draft, price_ticks_max=units.ticks(draft, body.price_max, "priceMax"))
    return CreateInstrument(draft, units.ticks(draft, body.mark_price, "markPrice"))
