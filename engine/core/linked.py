"""Links orders that belong together: pairs of which one cancels the other (OCO), and brackets, an entry with its exits.

A pair: what one trades, the other may trade no more, in the same moment: it is reduced by a partial fill, and cancelled when the
first is filled, triggered or cancelled, whoever cancels it. Both have one size; less size of one is less of the other. Where both
are on one side, their lots are counted once.

A bracket: its exits close what the entry opens, reduce-only, on the other side. They are held until the entry's first fill; with
each fill they follow it to its filled lots, as soon as its matching is over, as a new arrival at their price. They are a pair.
The first exit that trades, is triggered or cancelled cancels what is left of the entry, so that no fill is without its exits. An
entry that is cancelled before any fill takes its exits with it; after one it leaves them what is filled.

Orders of one command are named after it: the first has its index, the others follow in steps of LEG_STEP, which is above every
command index; ids stay whole numbers in every JSON reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from engine.core.commands import BUY, SELL, Leg, More, PlaceOrder, TimeInForce
from engine.core.events import CancelReason, CancelsNoted, Event, Link, OrderAmended, OrderCanceled, OrderReleased, RejectReason
from engine.core.state import LEG_STEP as LEG_STEP
from engine.core.state import Order, State

Linked = tuple[int, PlaceOrder, Link]


def group_of(order_id: int) -> int:
    """Return the index of the command that an order came with: the same for all of its group."""
    return order_id % LEG_STEP


def age_of(order_id: int) -> tuple[int, int]:
    """Return what sorts orders by when they came."""
    return order_id % LEG_STEP, order_id


def ids_of(index: int) -> tuple[int, int, int]:
    """Return the ids that the orders of a command may have."""
    return index, index + LEG_STEP, index + 2 * LEG_STEP


def canceled(events: Iterable[Event], reason: CancelReason) -> list[str]:
    """Return the ids of the orders that a command cancelled for a reason, at once or noted, and of those that went with them."""
    found: list[str] = []
    taken = False
    for event in events:
        if isinstance(event, CancelsNoted) and event.reason is reason:
            found += map(str, event.order_ids)
        if isinstance(event, OrderCanceled):
            taken = event.reason is reason or (taken and event.reason is CancelReason.LINKED)
            found += [str(event.order_id)] if taken else []
    return found


def with_legs(order: PlaceOrder) -> tuple[PlaceOrder, ...]:
    """Return the orders of a command, each with its own terms; the first one is the command itself."""
    more = order.more
    if more is UNSET:
        return (order,)
    if more.oco is not UNSET:
        return order, _leg(order, more.oco, order.side)
    exits = [leg for leg in (more.take_profit, more.stop_loss) if leg is not UNSET]
    return order, *(_exit(order, leg) for leg in exits)


def is_pair(order: PlaceOrder) -> bool:
    """Return whether a command brings a pair."""
    return order.more is not UNSET and order.more.oco is not UNSET


def _leg(order: PlaceOrder, leg: Leg, side: int) -> PlaceOrder:
    return replace(
        order, cl_ord_id=leg.cl_ord_id, side=side if leg.side is UNSET else leg.side, price_ticks=leg.price_ticks,
        stop_ticks=leg.stop_ticks, post_only=False, display_lots=0, more=UNSET if leg.trail is UNSET else More(trail=leg.trail),
    )  # fmt: skip


def _exit(order: PlaceOrder, leg: Leg) -> PlaceOrder:
    made = _leg(order, leg, 1 - order.side)
    return replace(made, reduce_only=True, time_in_force=TimeInForce.GTC, expire_ns=0)


def linked(index: int, order: PlaceOrder) -> list[Linked]:
    """Return id, terms and link of each order of a command that brings others."""
    orders = with_legs(order)
    ids = ids_of(index)[: len(orders)]
    if is_pair(order):
        links = [Link(partner=ids[1]), Link(partner=ids[0], covered=orders[1].side == order.side)]
    else:
        partners = ids[:0:-1] if len(ids) == 3 else (0,)  # of two exits each other, of one nobody
        links = [Link(exits=ids[1:]), *(Link(partner=one, entry=index, held=True) for one in partners)]
    return list(zip(ids, orders, links, strict=True))


def refuse_legs(order: PlaceOrder, orders: tuple[PlaceOrder, ...]) -> RejectReason | None:
    """Return what is wrong with the orders of a command as a group."""
    names = {one.cl_ord_id for one in orders}
    more = order.more
    assert more is not UNSET, "an order that comes alone is no group"
    exits = more.take_profit, more.stop_loss
    if len(names) < len(orders) or (is_pair(order) and exits != (UNSET, UNSET)):
        return RejectReason.INVALID_COMBINATION
    if not is_pair(order):
        return _refuse_exits(order, *exits)
    if any(one.side not in (BUY, SELL) for one in orders):
        return RejectReason.INVALID_SIDE
    # What is filled or gone at once has no use for a second one, and hidden parts would make a partial fill ambiguous.
    waits = all(one.is_stop or (one.price_ticks is not None and one.time_in_force not in _IMMEDIATE) for one in orders)
    return None if waits and not order.display_lots else RejectReason.INVALID_COMBINATION


_IMMEDIATE = (TimeInForce.IOC, TimeInForce.FOK)


def _refuse_exits(order: PlaceOrder, profit: Leg | UnsetType, loss: Leg | UnsetType) -> RejectReason | None:
    """The take-profit is a limit beyond the entry, the stop-loss a stop before it; neither chooses its side."""
    sign = 1 if order.side == BUY else -1
    if order.reduce_only or any(leg is not UNSET and leg.side is not UNSET for leg in (profit, loss)):
        return RejectReason.INVALID_COMBINATION
    limits = [] if order.price_ticks is None else [order.price_ticks]
    if profit is not UNSET:
        if profit.price_ticks is None or profit.stop_ticks is not None or profit.trail is not UNSET:
            return RejectReason.INVALID_COMBINATION
        limits.append(profit.price_ticks)
    if loss is not UNSET:
        if loss.stop_ticks is None and loss.trail is UNSET:
            return RejectReason.INVALID_COMBINATION
        if loss.stop_ticks is not None:
            limits.insert(0, loss.stop_ticks)
    rising = [sign * ticks for ticks in limits]
    return None if rising == sorted(set(rising)) else RejectReason.INVALID_PRICE


def pair_size(order: Order, size_lots: int) -> bool:
    """Return whether an amend to this size is refused: linked orders do not grow by hand, and held ones have no size yet."""
    link = order.link
    if link is UNSET or link.exits:
        return False
    return size_lots > order.size_lots or (link.held and size_lots != order.size_lots)


class Links:
    """Follows what happens to linked orders. `emit` applies an event and keeps it, `start` lets an order wait or enter."""

    def __init__(self, state: State, emit: Callable[[Event], None], start: Callable[[Order], None]) -> None:
        self._state = state
        self._emit = emit
        self._start = start
        self.filled: dict[int, tuple[int, tuple[int, ...]]] = {}  # entry → its filled lots, its exits: they follow when due

    def traded(self, order: Order, lots: int) -> None:
        """Take from the partner what a linked order has just traded; note what the exits of an entry get."""
        link = order.link
        assert link is not UNSET
        if link.exits:
            self.filled[order.order_id] = order.filled_lots, link.exits
        self._cancel(link.entry)
        if not order.leaves_lots:
            self._cancel_partner(order.order_id, link)
        elif (partner := self._partner(order.order_id, link)) is not None:
            self._resize(partner, -lots)

    def canceled(self, order: Order) -> None:
        """Cancel what may not stay without a linked order that was cancelled."""
        link = order.link
        assert link is not UNSET
        if not order.filled_lots:
            for order_id in link.exits:
                self._cancel(order_id)
        self.triggered(order.order_id, link)

    def triggered(self, order_id: int, link: Link) -> None:
        """Cancel the others of a stop that goes its own way now."""
        self._cancel(link.entry)
        self._cancel_partner(order_id, link)

    def reduced(self, order: Order, lots: int) -> None:
        """Reduce the partner of an order that was amended to less."""
        if order.link is not UNSET and lots and (partner := self._partner(order.order_id, order.link)) is not None:
            self._resize(partner, -lots)

    def follow(self) -> bool:
        """Let the exits of one entry follow its fills; return whether there was one."""
        if not self.filled:
            return False
        entry_id = next(iter(self.filled))
        filled, exits = self.filled.pop(entry_id)
        due = [order for one in exits if (order := self._state.orders.get(one)) is not None and order.link is not UNSET]
        for order in due:
            self._emit(OrderReleased(order.order_id, filled))
        for order in due:
            if order.order_id in self._state.orders:  # the first may have traded it away
                self._start(order)
        return True

    def _partner(self, order_id: int, link: Link) -> Order | None:
        """Return the open order that shares its size with this one."""
        partner = self._state.orders.get(link.partner)
        if partner is None or partner.link is UNSET or partner.link.partner != order_id:
            return None
        return partner

    def _cancel_partner(self, order_id: int, link: Link) -> None:
        if (partner := self._partner(order_id, link)) is not None:
            self._emit(OrderCanceled(partner.order_id, CancelReason.LINKED))

    def _cancel(self, order_id: int) -> None:
        if order_id in self._state.orders:
            self._emit(OrderCanceled(order_id, CancelReason.LINKED))

    def _resize(self, order: Order, lots: int) -> None:
        self._emit(OrderAmended(order.order_id, order.size_lots + lots, order.price_ticks, order.stop_ticks, True))
