"""What the exchange decides about orders' lives, limits, suspension and time, one rule a test."""

from __future__ import annotations

import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.admission import CLIENT_ID_LENGTH_MAX, MONEY_UNITS_MAX
from engine.core.commands import BUY, SELL, AmendOrder, PlaceOrder, SelfTrade, TimeInForce
from engine.core.events import CancelReason, RejectReason
from engine.core.exchange import DAY_NS, Exchange
from engine.core.state import ORDERS_MAX, State
from engine.stores.message_builder import MessageBuilder

X = "XPERP"


class Desk:
    """An exchange with one contract and rich accounts 1 to 3; keeps every event."""

    def __init__(self, **terms: int) -> None:
        self.exchange, self.index, self.now_ns = Exchange(MessageBuilder), 0, 0
        self.events: list[ev.Event] = []
        self.do(cm.CreateInstrument(cm.Instrument(X, **terms), 100))
        for account in (1, 2, 3):
            self.do(cm.Deposit(account, 1_000_000))

    def do(self, command: cm.Command, now_ns: int | None = None) -> list[ev.Event]:
        self.index += 1
        self.now_ns = self.now_ns if now_ns is None else now_ns
        events = self.exchange.decide(self.index, self.now_ns, command)
        self.exchange.state.ledger.audit()
        self.events += events
        return events

    def place(self, account: int, side: int, size: int, price: int | None, **terms: object) -> list[ev.Event]:
        name = str(terms.pop("name", self.index))
        if more := {key: terms.pop(key) for key in ("trail", "oco", "take_profit", "stop_loss") if key in terms}:
            terms["more"] = cm.More(**more)  # type: ignore[arg-type]
        return self.do(PlaceOrder(account, X, name, side, size, price, **terms))  # type: ignore[arg-type]

    def refusal(self, command: cm.Command) -> RejectReason:
        """Return why a command is refused; the state is untouched then."""
        before = self.exchange.state.digest()
        (event,) = self.do(command)
        assert isinstance(event, ev.OrderRejected | ev.CancelRejected | ev.CommandRejected)
        assert self.exchange.state.digest() == before
        return event.reason

    def queue(self, side: int) -> list[tuple[int, int]]:
        """Return (price, shown lots) of a side's orders in the order in which they would trade."""
        return [(lv.price, lots) for lv in self.exchange.state.markets[X].book.levels(side) for lots in lv.values()]


def trades(events: list[ev.Event]) -> list[tuple[int, int]]:
    return [(event.price_ticks, event.size_lots) for event in events if isinstance(event, ev.Traded)]


def reasons(events: list[ev.Event]) -> list[CancelReason]:
    return [event.reason for event in events if isinstance(event, ev.OrderCanceled)]


GOOD = PlaceOrder(1, X, "new", BUY, 5, 100)
REFUSED = {
    "symbol": (PlaceOrder(1, "NONE", "a", BUY, 5, 100), RejectReason.UNKNOWN_SYMBOL),
    "account": (PlaceOrder(9, X, "a", BUY, 5, 100), RejectReason.UNKNOWN_ACCOUNT),
    "house account": (PlaceOrder(cm.FEES, X, "a", BUY, 5, 100), RejectReason.UNKNOWN_ACCOUNT),
    "side": (PlaceOrder(1, X, "a", 2, 5, 100), RejectReason.INVALID_SIDE),
    "zero size": (PlaceOrder(1, X, "a", BUY, 0, 100), RejectReason.INVALID_SIZE),
    "negative size": (PlaceOrder(1, X, "a", BUY, -5, 100), RejectReason.INVALID_SIZE),
    "huge size": (PlaceOrder(1, X, "a", BUY, 10**30, 100), RejectReason.INVALID_SIZE),
    "shows more than all": (PlaceOrder(1, X, "a", BUY, 5, 100, display_lots=6), RejectReason.INVALID_SIZE),
    "shows too little": (PlaceOrder(1, X, "a", BUY, 501, 100, display_lots=5), RejectReason.INVALID_SIZE),
    "zero price": (PlaceOrder(1, X, "a", BUY, 5, 0), RejectReason.INVALID_PRICE),
    "huge price": (PlaceOrder(1, X, "a", BUY, 5, 10**30), RejectReason.INVALID_PRICE),
    "negative stop": (PlaceOrder(1, X, "a", BUY, 5, None, -1), RejectReason.INVALID_PRICE),
    "post-only market": (PlaceOrder(1, X, "a", BUY, 5, None, post_only=True), RejectReason.INVALID_COMBINATION),
    "iceberg IOC": (PlaceOrder(1, X, "a", BUY, 5, 9, None, TimeInForce.IOC, display_lots=1), RejectReason.INVALID_COMBINATION),
    "no client id": (PlaceOrder(1, X, "", BUY, 5, 100), RejectReason.INVALID_COMBINATION),
    "long client id": (PlaceOrder(1, X, "a" * (CLIENT_ID_LENGTH_MAX + 1), BUY, 5, 100), RejectReason.INVALID_COMBINATION),
    "GTD without an end": (PlaceOrder(1, X, "a", BUY, 5, 100, None, TimeInForce.GTD), RejectReason.INVALID_EXPIRY),
    "GTC with an end": (PlaceOrder(1, X, "a", BUY, 5, 100, expire_ns=10**18), RejectReason.INVALID_EXPIRY),
    "margin": (PlaceOrder(1, X, "a", BUY, 100_001, 100), RejectReason.MARGIN),
    "nothing to reduce": (PlaceOrder(1, X, "a", BUY, 5, 100, reduce_only=True), RejectReason.REDUCE_ONLY),
    "cancel of nothing": (cm.CancelOrder(1, "a"), RejectReason.UNKNOWN_ORDER),
    "amend of nothing": (AmendOrder(9, "a", 1), RejectReason.UNKNOWN_ORDER),
    "cancel all of nobody": (cm.CancelAll(9), RejectReason.UNKNOWN_ACCOUNT),
    "cancel all of nothing": (cm.CancelAll(1, "NONE"), RejectReason.UNKNOWN_SYMBOL),
    "long timer": (cm.CancelAllAfter(1, DAY_NS + 1), RejectReason.INVALID_EXPIRY),
    "timer of nobody": (cm.CancelAllAfter(9, 1), RejectReason.UNKNOWN_ACCOUNT),
    "kill nobody": (cm.KillSwitch(9, True), RejectReason.UNKNOWN_ACCOUNT),
    "mark of nothing": (cm.SetMark("NONE", 1), RejectReason.UNKNOWN_SYMBOL),
    "mark of zero": (cm.SetMark(X, 0), RejectReason.INVALID_PRICE),
    "funding of nothing": (cm.Fund("NONE", 1), RejectReason.UNKNOWN_SYMBOL),
    "funding beyond all": (cm.Fund(X, 10**7), RejectReason.INVALID_AMOUNT),
    "negative deposit": (cm.Deposit(1, -1), RejectReason.INVALID_AMOUNT),
    "huge deposit": (cm.Deposit(1, MONEY_UNITS_MAX + 1), RejectReason.INVALID_AMOUNT),
    "deposit to fees": (cm.Deposit(cm.FEES, 1), RejectReason.UNKNOWN_ACCOUNT),
    "withdrawal by nobody": (cm.Withdraw(9, 1), RejectReason.UNKNOWN_ACCOUNT),
    "withdrawal of nothing": (cm.Withdraw(1, 0), RejectReason.INVALID_AMOUNT),
    "withdrawal of too much": (cm.Withdraw(1, 1_000_001), RejectReason.MARGIN),
    "listed twice": (cm.CreateInstrument(cm.Instrument(X), 1), RejectReason.DUPLICATE_SYMBOL),
    "bad margins": (cm.CreateInstrument(cm.Instrument("Y", initial_margin_ppm=1), 1), RejectReason.INVALID_INSTRUMENT),
    "rebates above fees": (cm.CreateInstrument(cm.Instrument("Y", maker_fee_ppm=-1), 1), RejectReason.INVALID_INSTRUMENT),
    "a tick that is no number": (cm.CreateInstrument(cm.Instrument("Y", tick_size="x"), 1), RejectReason.INVALID_INSTRUMENT),
    "a lot of nothing": (cm.CreateInstrument(cm.Instrument("Y", lot_size="0"), 1), RejectReason.INVALID_INSTRUMENT),
    "values beyond 64 bits": (cm.CreateInstrument(cm.Instrument("Y", 10**9), 1), RejectReason.INVALID_INSTRUMENT),
    "no first mark": (cm.CreateInstrument(cm.Instrument("Y"), 0), RejectReason.INVALID_PRICE),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_command_leaves_the_state_untouched(what: str) -> None:
    """The answer is one event with a reason."""
    command, reason = REFUSED[what]
    assert Desk().refusal(command) == reason


def test_a_client_id_is_used_once() -> None:
    """Also after its order is gone, and after a restart from the events; another account may use it."""
    desk = Desk()
    desk.do(GOOD)
    assert desk.refusal(GOOD) == RejectReason.DUPLICATE_CL_ORD_ID
    desk.do(cm.CancelOrder(1, "new"))
    state = State()
    for event in desk.events:
        state.apply(event)
    assert state.digest() == desk.exchange.state.digest()
    (again,) = Exchange(MessageBuilder, state).decide(99, 0, GOOD)
    assert isinstance(again, ev.OrderRejected)
    assert again.reason == RejectReason.DUPLICATE_CL_ORD_ID
    assert isinstance(desk.place(2, BUY, 5, 100, name="new")[0], ev.OrderAccepted)


def test_prices_stay_within_the_band() -> None:
    """Limits outside are refused, market orders stop at its edge, a new mark moves it."""
    desk = Desk(band_ppm=50_000)
    assert desk.refusal(PlaceOrder(1, X, "a", SELL, 1, 106)) == RejectReason.PRICE_BAND
    desk.place(1, SELL, 1, 104)
    desk.place(1, SELL, 1, 105)
    desk.do(cm.SetMark(X, 99))
    events = desk.place(2, BUY, 2, None)
    assert trades(events) == []
    desk.do(cm.SetMark(X, 100))
    assert trades(desk.place(2, BUY, 2, None)) == [(104, 1), (105, 1)]


def test_less_size_keeps_priority_and_anything_else_loses_it() -> None:
    """A new price that crosses trades at the maker's price."""
    desk = Desk()
    for name in ("a", "b"):
        desk.place(1, BUY, 10, 99, name=name)
    desk.do(AmendOrder(1, "a", 4))
    assert desk.queue(BUY) == [(99, 4), (99, 10)]
    desk.do(AmendOrder(1, "a", 5))
    assert desk.queue(BUY) == [(99, 10), (99, 5)]
    desk.place(2, SELL, 3, 101)
    assert trades(desk.do(AmendOrder(1, "b", price_ticks=105))) == [(101, 3)]
    assert desk.queue(BUY) == [(105, 7), (99, 5)]
    assert desk.refusal(AmendOrder(1, "b", 3)) == RejectReason.INVALID_SIZE
    assert desk.refusal(AmendOrder(1, "b", 1_000_000)) == RejectReason.MARGIN
    assert desk.refusal(AmendOrder(1, "b", stop_ticks=5)) == RejectReason.INVALID_COMBINATION


def test_an_iceberg_is_met_in_few_trades() -> None:
    """The least that it may show makes a hundred trades with somebody else at its price, and one without."""
    desk = Desk()
    desk.place(1, SELL, 10_000, 100, display_lots=100, name="ice")
    assert trades(desk.place(3, BUY, 9_950, 100)) == [(100, 9_950)]
    assert desk.queue(SELL) == [(100, 50)]
    assert desk.refusal(AmendOrder(1, "ice", size_lots=10_001)) == RejectReason.INVALID_SIZE
    desk = Desk()
    for account in (1, 2):
        desk.place(account, SELL, 10_000, 100, display_lots=100)
    events = desk.place(3, BUY, 10_000, 100)
    assert len(trades(events)) == 100
    assert desk.queue(SELL) == [(100, 100), (100, 100)]


def test_an_iceberg_shows_its_next_part_at_the_end_of_the_queue() -> None:
    """What others see is the shown part only; all of it trades."""
    desk = Desk()
    desk.place(1, SELL, 10, 100, display_lots=4)
    desk.place(2, SELL, 5, 100)
    assert desk.queue(SELL) == [(100, 4), (100, 5)]
    assert trades(desk.place(3, BUY, 6, 100)) == [(100, 4), (100, 2)]
    assert desk.queue(SELL) == [(100, 3), (100, 4)]
    assert trades(desk.place(3, BUY, 9, 100)) == [(100, 3), (100, 6)]  # alone at its price it is refilled within one fill
    assert desk.queue(SELL) == []


def test_stops_cascade_within_one_command() -> None:
    """Each trade of one may release the next; the order is buys by rising stop, then sells by falling."""
    desk = Desk()
    for price in (100, 101, 102, 103):
        desk.place(1, SELL, 1, price)
    for stop in (102, 101, 100):
        desk.place(2, BUY, 1, None, stop_ticks=stop)
    events = desk.place(3, BUY, 1, 100)
    assert trades(events) == [(100, 1), (101, 1), (102, 1), (103, 1)]
    assert [event.order_id for event in events if isinstance(event, ev.OrderTriggered)] == [11, 10, 9]


def test_a_stop_that_is_due_enters_at_once() -> None:
    """The last trade counts, also one before the stop came."""
    desk = Desk()
    desk.place(1, SELL, 2, 100)
    desk.place(2, BUY, 1, 100)
    events = desk.place(2, BUY, 1, 100, stop_ticks=100)
    assert [type(event) for event in events] == [ev.OrderAccepted, ev.OrderStopped, ev.OrderTriggered, ev.Traded]


@pytest.mark.parametrize("taker_side", [BUY, SELL])
def test_a_trade_names_its_contract_and_the_takers_side(taker_side: int) -> None:
    """Who is told of it needs no orders to understand it."""
    desk = Desk()
    desk.place(1, 1 - taker_side, 1, 100)
    (trade,) = [event for event in desk.place(2, taker_side, 1, 100) if isinstance(event, ev.Traded)]
    assert (trade.symbol, trade.taker_side, trade.taker_id, trade.maker_id) == (X, taker_side, 6, 5)


def test_fill_or_kill_fills_all_or_nothing() -> None:
    """Own orders and what a reduce-only maker may not trade do not count."""
    desk = Desk()
    desk.place(1, SELL, 5, 100)
    desk.place(2, SELL, 5, 101)
    fok = {"time_in_force": TimeInForce.FOK}
    assert reasons(desk.place(3, BUY, 11, 101, **fok)) == [CancelReason.FILL_OR_KILL]
    assert reasons(desk.place(2, BUY, 6, 101, self_trade=SelfTrade.OLDEST, **fok)) == [CancelReason.FILL_OR_KILL]
    assert trades(desk.place(3, BUY, 10, 101, **fok)) == [(100, 5), (101, 5)]


def test_reduce_only_never_turns_a_position() -> None:
    """It is clipped at the fill, whoever is the taker, and cancelled when there is nothing left."""
    desk = Desk()
    desk.place(1, SELL, 3, 100)
    desk.place(2, BUY, 3, 100)
    desk.place(2, SELL, 9, 101, reduce_only=True)
    events = desk.place(3, BUY, 9, 101)
    assert trades(events) == [(101, 3)]
    assert reasons(events) == [CancelReason.REDUCE_ONLY]
    assert desk.exchange.state.ledger.lots(2, X) == 0
    assert trades(desk.place(1, BUY, 3, 101, reduce_only=True)) == []


@pytest.mark.parametrize(("mode", "left"), [(SelfTrade.NEWEST, [(100, 5)]), (SelfTrade.OLDEST, []), (SelfTrade.BOTH, [])])
def test_nobody_trades_with_himself(mode: SelfTrade, left: list[tuple[int, int]]) -> None:
    """The entering order says which of the two goes."""
    desk = Desk()
    desk.place(1, SELL, 5, 100)
    events = desk.place(1, BUY, 3, 100, self_trade=mode)
    assert trades(events) == []
    assert desk.queue(SELL) == left
    assert desk.queue(BUY) == ([(100, 3)] if mode is SelfTrade.OLDEST else [])


def test_orders_expire_when_their_time_comes() -> None:
    """GTD at its nanosecond, Day at midnight UTC, at the next command of any kind and before it."""
    desk = Desk()
    desk.place(1, SELL, 1, 100, time_in_force=TimeInForce.GTD, expire_ns=50)
    desk.place(1, SELL, 1, 101, time_in_force=TimeInForce.DAY)
    assert desk.do(cm.Tick(), 49) == []
    assert reasons(desk.do(PlaceOrder(2, X, "a", BUY, 1, 100), 50)) == [CancelReason.EXPIRED]
    assert desk.queue(BUY) == [(100, 1)]
    assert reasons(desk.do(cm.Tick(), DAY_NS)) == [CancelReason.EXPIRED]


def test_cancel_all_after_waits_for_a_sign_of_life() -> None:
    """Each call moves the deadline, 0 disarms it."""
    desk = Desk()
    desk.place(1, SELL, 1, 100)
    desk.do(cm.CancelAllAfter(1, 10), 0)
    desk.do(cm.CancelAllAfter(1, 10), 5)
    assert desk.do(cm.Tick(), 14) == []
    assert reasons(desk.do(cm.Tick(), 15)) == [CancelReason.TIMER]
    desk.place(1, SELL, 1, 100)
    desk.do(cm.CancelAllAfter(1, 10), 20)
    desk.do(cm.CancelAllAfter(1, 0), 21)
    assert desk.do(cm.Tick(), 99) == []


def test_the_kill_switch_clears_an_account() -> None:
    """Its orders go, new ones are refused until it is off; others trade on."""
    desk = Desk()
    desk.place(1, SELL, 1, 100)
    desk.place(1, BUY, 1, None, stop_ticks=200)
    assert reasons(desk.do(cm.KillSwitch(1, True))) == [CancelReason.KILLED] * 2
    assert desk.refusal(GOOD) == RejectReason.KILLED
    desk.place(2, BUY, 1, 100)
    desk.do(cm.KillSwitch(1, False))
    assert trades(desk.place(1, SELL, 1, 100)) == [(100, 1)]


def test_cancel_all_may_spare_other_symbols() -> None:
    """With a symbol only its orders go."""
    desk = Desk()
    desk.do(cm.CreateInstrument(cm.Instrument("Y"), 10))
    desk.place(1, SELL, 1, 100)
    desk.do(PlaceOrder(1, "Y", "y", SELL, 1, 10))
    assert len(reasons(desk.do(cm.CancelAll(1, X)))) == 1
    assert len(reasons(desk.do(cm.CancelAll(1)))) == 1


def test_suspension_holds_a_set_of_reasons() -> None:
    """New orders and amends are refused, cancels done, marks kept; lifting one reason does not lift another."""
    desk = Desk()
    desk.place(1, SELL, 1, 100, name="a")
    desk.do(cm.Suspend("manual"))
    desk.do(cm.Suspend("store oms"))
    assert desk.do(cm.Suspend("manual")) == []
    assert desk.refusal(GOOD) == RejectReason.SUSPENDED
    assert desk.refusal(AmendOrder(1, "a", price_ticks=99)) == RejectReason.SUSPENDED
    assert desk.refusal(cm.Fund(X, 1)) == RejectReason.SUSPENDED
    desk.do(cm.SetMark(X, 120))
    desk.do(cm.Resume("store oms"))
    assert desk.refusal(GOOD) == RejectReason.SUSPENDED
    assert desk.exchange.state.ledger.contracts[X].mark_ticks == 100
    assert len(desk.do(cm.CancelOrder(1, "a"))) == 1
    assert desk.do(cm.Resume("manual"))[-1] == ev.MarkSet(X, 120, False)
    assert desk.exchange.state.ledger.contracts[X].mark_ticks == 120


def test_open_orders_of_an_account_are_bounded() -> None:
    """The next one after a thousand is refused."""
    desk = Desk()
    for _ in range(ORDERS_MAX):
        desk.place(1, BUY, 1, 10)
    assert desk.refusal(GOOD) == RejectReason.TOO_MANY_ORDERS
