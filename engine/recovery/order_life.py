"""Tells what became of one order, from the events of the journal's records: when it came, what it traded, how it ended.

Events are fed in the journal's sequence. Nothing else of the exchange is rebuilt, so that a life costs the records it is in.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from engine.core import events as ev
from engine.core.commands import SIDE_NAMES, Instrument, PlaceOrder
from engine.core.units import PPM, iso, price

UNITS = 1_000_000  # of money, in one of the settlement currency
TAGS = {kind: str(kind.__struct_config__.tag) for kind in ev.Event.__subclasses__()}


class Step(msgspec.Struct, omit_defaults=True, rename="camel"):
    """What one event did to the order. Prices are decimals, quantities lots; `fee` is in units, a rebate is negative."""

    index: int
    time: str
    event: str
    leaves_qty: int
    sent_by: str = ""
    text: str = ""
    last_qty: int = 0
    last_px: float | None = None
    fee: int | None = None
    liquidity: str = ""
    other_order_id: str = ""
    order_qty: int | None = None
    price: float | None = None
    stop_px: float | None = None
    reason: str = ""


class OrderLife(msgspec.Struct, rename="camel"):
    """One order as it is after the last step."""

    order_id: str
    cl_ord_id: str = msgspec.field(name="clOrdID")
    account: int
    symbol: str
    side: str
    time_in_force: str
    order_qty: int
    price: float | None
    stop_px: float | None
    status: str = "open"
    cum_qty: int = 0
    leaves_qty: int = 0
    avg_px: float | None = None
    reason: str = ""
    linked: list[str] = []
    steps: list[Step] = []


class Biographer:
    """Follows one order. `instrument` makes decimals of its ticks, which are shown as they are without one."""

    def __init__(self, order_id: int, terms: PlaceOrder, instrument: Instrument | None) -> None:
        self.order_id = order_id
        self.terms = terms
        self.over = False
        self._instrument = instrument or Instrument(terms.symbol)
        self._cost_ticks = 0
        self.life = OrderLife(
            order_id=str(order_id), cl_ord_id=terms.cl_ord_id, account=terms.account, symbol=terms.symbol,
            side=SIDE_NAMES[terms.side], time_in_force=terms.time_in_force.value, order_qty=terms.size_lots,
            price=self._price(terms.price_ticks), stop_px=self._price(terms.stop_ticks), leaves_qty=terms.size_lots,
        )  # fmt: skip

    def refused(self, index: int, time_ns: int, sender: str, reason: str) -> None:
        """Note that it never was: the one step of an order that was rejected."""
        life = self.life
        life.status, life.reason, life.side, life.time_in_force, life.leaves_qty, self.over = "rejected", reason, "", "", 0, True
        life.steps.append(Step(index, iso(time_ns), TAGS[ev.OrderRejected], 0, sender, f"rejected: {reason}", reason=reason))

    def take(self, index: int, time_ns: int, events: Sequence[ev.Event]) -> None:
        """Note what one record did to the order."""
        sender = next((event.sender for event in events if isinstance(event, ev.SentBy)), "")
        for event in events:
            step = self._step(event)
            if step is not None:
                step.index, step.time, step.sent_by, step.leaves_qty = index, iso(time_ns), sender, self.life.leaves_qty
                self.life.steps.append(step)

    def _step(self, event: ev.Event) -> Step | None:
        life, own = self.life, self.order_id
        step = Step(0, "", TAGS[type(event)], 0)
        match event:
            case ev.OrderAccepted() if event.order_id == own:
                self._accepted(event, step)
            case ev.OrderStopped() if event.order_id == own:
                life.status, step.text = "waiting", "waits for its stop price"
            case ev.OrderTriggered() if event.order_id == own:
                life.status, life.stop_px, step.text = "open", None, "its stop price was traded"
            case ev.OrderRested() if event.order_id == own:
                life.status, step.text = "open", f"rests in the book with {life.leaves_qty}"
            case ev.OrderPaused() if event.order_id == own:
                step.text = "goes on trading with the next step"
            case ev.OrderAmended() if event.order_id == own:
                self._amended(event, step)
            case ev.OrderReleased() if event.order_id == own:
                life.status, life.order_qty, step.order_qty = "open", event.size_lots, event.size_lots
                life.leaves_qty = event.size_lots - life.cum_qty
                step.text = f"follows the fills of its entry: {event.size_lots} in all"
            case ev.StopsTrailed() if own in dict(event.moves):
                life.stop_px = step.stop_px = self._price(dict(event.moves)[own])
                step.text = f"its stop follows the market to {number(life.stop_px)}"
            case ev.Traded() if own in (event.maker_id, event.taker_id):
                self._traded(event, step)
            case ev.OrderCanceled() if event.order_id == own:
                life.status, life.reason, life.leaves_qty, self.over = "cancelled", event.reason.value, 0, True
                step.reason, step.text = event.reason.value, f"cancelled: {event.reason.value}"
            case ev.CancelsNoted() if own in event.order_ids:
                step.reason, step.text = event.reason.value, f"as good as cancelled: {event.reason.value}"
            case ev.CancelRejected() if (event.account, event.cl_ord_id) == (life.account, life.cl_ord_id):
                step.reason, step.text = event.reason.value, f"a cancel or an amend of it was refused: {event.reason.value}"
            case _:
                return None
        return step

    def _accepted(self, event: ev.OrderAccepted, step: Step) -> None:
        if event.link is not UNSET:
            ids = (event.link.partner, event.link.entry, *event.link.exits)
            self.life.linked = [str(one) for one in ids if one]
            self.life.status = "held" if event.link.held else self.life.status
        step.text = "accepted" + (", held until its entry trades" if self.life.status == "held" else "")

    def _amended(self, event: ev.OrderAmended, step: Step) -> None:
        life = self.life
        life.order_qty, life.leaves_qty = event.size_lots, event.size_lots - life.cum_qty
        life.price, life.stop_px = self._price(event.price_ticks), self._price(event.stop_ticks)
        step.order_qty, step.price, step.stop_px = life.order_qty, life.price, life.stop_px
        at = f" at {number(life.price)}" if life.price is not None else ""
        stop = f", stop {number(life.stop_px)}" if life.stop_px is not None else ""
        place = "" if event.kept else ", enters again"
        step.text = f"amended: {life.order_qty} in all{at}{stop}{place}"

    def _traded(self, event: ev.Traded, step: Step) -> None:
        life, took = self.life, event.taker_id == self.order_id
        self._cost_ticks += event.size_lots * event.price_ticks
        life.cum_qty += event.size_lots
        life.leaves_qty -= event.size_lots
        life.avg_px = price(self._instrument, self._cost_ticks) / life.cum_qty
        step.last_qty, step.last_px = event.size_lots, self._price(event.price_ticks)
        step.fee = event.taker_fee_units if took else event.maker_fee_units
        step.liquidity = "taker" if took else "maker"
        step.other_order_id = str(event.maker_id if took else event.taker_id)
        if not life.leaves_qty:
            life.status, self.over = "filled", True
        step.text = (
            f"traded {event.size_lots} at {number(step.last_px)} as {step.liquidity}, {life.leaves_qty} left, "
            f"fee {number(step.fee / UNITS)}, with order {step.other_order_id}"
        )

    def _price(self, ticks: int | None) -> float | None:
        return None if ticks is None else price(self._instrument, ticks)


def written(life: OrderLife, terms: PlaceOrder, read_to: int) -> str:
    """Return a life as people read it: what the order was, a line a step, what became of it."""
    about = f"order {life.order_id} (clOrdID {life.cl_ord_id!r}) of account {life.account}"
    wide = max((len(step.sent_by) for step in life.steps), default=0)
    lines = [f"  {step.index:>12}  {step.time}  {step.sent_by:{wide}}  {step.text}" for step in life.steps]
    if life.status == "rejected":
        return "\n".join([f"{about}: {life.symbol}", *lines])
    kind = f"limit {number(life.price)}" if terms.price_ticks is not None else "market"
    if terms.trail is not UNSET:
        kind += f", trailing by {f'{terms.trail.ticks} ticks' if terms.trail.ticks else f'{terms.trail.ppm / PPM:.4%}'}"
    elif terms.stop_ticks is not None:
        kind += f", stop {number(life.stop_px) if life.stop_px is not None else 'triggered'}"
    head = f"{about}: {life.side} {life.order_qty} {life.symbol}, {kind}, {life.time_in_force}"
    if life.linked:
        head += f", linked with {', '.join(life.linked)}"
    average = f" at {number(life.avg_px)} on average" if life.avg_px is not None else ""
    end = f"{life.status}{f' ({life.reason})' if life.reason else ''}: {life.cum_qty} of {life.order_qty} traded{average}"
    return "\n".join([head, *lines, f"{end}; read up to index {read_to}"])


def number(value: float | None) -> str:
    """Return a number without needless digits: 50000, 50000.5, 0.000012."""
    if value is None:
        return "-"
    text = f"{value:.8f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text
