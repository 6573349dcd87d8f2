"""Decides what a sequenced command does: the whole exchange without I/O, clock or dice.

`decide` applies each event while it makes it; applying the same events to an empty State gives the same digest. After every
command: no book is crossed, the money adds up, and nothing is due any more (stops, liquidations) that is not in `State.work` or
done by the next `Proceed`: a command does one step, of `STEP` events or so, and leaves the rest to those.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop
from itertools import islice
from typing import Any, Protocol

from msgspec import UNSET

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.admission import MONEY_UNITS_MAX, refuse_amend, refuse_delisting, refuse_instrument, refuse_order
from engine.core.cancels import Cancels
from engine.core.commands import BUY, SELL, STORE_REASON
from engine.core.events import CancelReason, Event, RejectReason
from engine.core.linked import Links, linked, with_legs
from engine.core.liquidation import Liquidation
from engine.core.matching import Matching
from engine.core.solvency import Solvency
from engine.core.state import Order, State
from engine.core.steps import Steps
from engine.core.trailing import stop_behind
from engine.core.units import PPM
from engine.core.unwinding import next_order
from engine.core.work import Funding

DAY_NS = 86_400 * 10**9
TIMEOUT_NS_MAX = DAY_NS
RATE_PPM_MAX = PPM  # funding of the whole value
NAME_LENGTH_MAX = 64
STORES_MAX = 64
AGE_MS_MAX = 10 * 365 * 86_400_000
STEP = 128  # events of a command, and a little: some milliseconds, with messages
STEPPING = (cm.Proceed, cm.Tick)
LOOKS = 4  # accounts whose margin is looked at cost as much as one event
EXPIRIES_MAX = 4  # that a command takes along which has something else to do


class Messages(Protocol):
    """Makes the message of one command after the other: `begin`, `apply` for each event, `finish`."""

    def begin(self, index: int, time_ns: int, command: cm.Command) -> None:
        """Start a command's message."""

    def apply(self, event: Event) -> None:
        """Apply an event to the state and note what consumers are told of it."""

    def finish(self) -> bytes:
        """Return the message, empty when the command has nothing for consumers."""


BuildMessages = Callable[[State], Messages]


class Exchange:
    """The state and the rules that change it; `messages` makes what consumers are told, from the state it is given."""

    def __init__(self, messages: BuildMessages, state: State | None = None, step: int = STEP) -> None:
        self.state = state or State()
        self.message = b""  # of the last command: its frame for consumers, made while there is a store
        self._events: list[Event] = []
        self._builder = messages(self.state)
        self._apply: Callable[[Event], None] = self.state.apply
        self._most = self._step = step
        self._enough = 0  # events of this step, one for every `LOOKS` looks included
        self._looks = 0
        self._unsettled = any(market.due_stop() is not None for market in self.state.markets.values())  # left by steps
        self._matching = Matching(self.state, self._emit, self._spent)
        self._steps = Steps(self.state, self._emit)
        self._cancels = Cancels(self.state, self._matching, self._emit)
        self._liquidation = Liquidation(self.state, self._emit, self._cancel_own)
        self._solvency = Solvency(self.state)
        self._links = Links(self.state, self._emit, self._begin)
        self._traded: dict[str, None] = {}  # symbols whose stops may be due
        self._suspects: dict[int, None] = {}  # accounts whose margin may be short
        self._deciders: dict[type, Callable[[int, int, Any], None]] = {
            cm.PlaceOrder: self._place, cm.AmendOrder: self._amend, cm.CancelOrder: self._cancel, cm.CancelAll: self._cancel_all,
            cm.CancelAllAfter: self._cancel_all_after, cm.KillSwitch: self._kill_switch, cm.Suspend: self._suspend,
            cm.Resume: self._resume, cm.SetMark: self._set_mark, cm.Fund: self._fund, cm.Tick: self._tick,
            cm.Deposit: self._deposit, cm.Withdraw: self._withdraw, cm.CreateInstrument: self._create,
            cm.CheckLiveness: self._check_liveness, cm.CreateStore: self._create_store, cm.DeleteStore: self._delete_store,
            cm.ResumeAll: self._resume_all, cm.PurgeStore: self._purge_store, cm.ConfigureStore: self._configure_store,
            cm.Proceed: self._proceed, cm.Delist: self._delist,
        }  # fmt: skip

    def decide(self, index: int, time_ns: int, command: cm.Command) -> list[Event]:
        """Return what a command does, in order; it is in the state already.

        `index` is above every index before, `time_ns` never below the last one's; both come from the sequencer. An order's id
        is the index of its command. Cost: that of one step, and O(levels); sorting the holders for marks and funding.
        """
        step = command.step if isinstance(command, cm.Proceed) else self._most
        self._events, self._looks, self._enough, self._step = [], 0, step, step
        heard = bool(self.state.stores)
        if heard:
            self._builder.begin(index, time_ns, command)
        self._apply = self._builder.apply if heard else self.state.apply
        stepping = isinstance(command, STEPPING)
        self._expire(time_ns, step if stepping else min(step, EXPIRIES_MAX))
        if stepping and self.state.work.cancels:
            self._cancels.take_out(step - len(self._events))
        self._matching.due_ns = time_ns if self.state.due(time_ns) else 0
        if (account := getattr(command, "account", None)) is not None:
            self._catch_up(account)
        self._deciders[type(command)](index, time_ns, command)
        self._settle()
        self._leave()
        self.state.ledger.check()
        if self._events and self.state.version != ev.VERSION:
            self._say_version()
        self.message = self._builder.finish() if heard and self._events else b""
        if self.message:
            self.state.message_index = index
        return self._events

    def busy(self, time_ns: int) -> bool:
        """Return whether there is something left for `Proceed`. While trading is suspended what would trade or close waits."""
        work = self.state.work
        if work.fundings or work.cancels or self.state.due(time_ns):
            return True
        return not self.state.suspended and (self._unsettled or bool(work))

    def _spent(self) -> bool:
        return len(self._events) + self._looks // LOOKS >= self._enough

    def _say_version(self) -> None:
        """Put the version before the first events that this one writes."""
        self._events.insert(0, ev.SchemaSet(ev.VERSION))
        self.state.apply(self._events[0])

    def _emit(self, event: Event) -> None:
        orders, kind = self.state.orders, type(event)
        if kind is ev.Traded:
            self._emit_trade(event, orders[event.taker_id], orders[event.maker_id])  # type: ignore[attr-defined]
            return
        order = orders[event.order_id] if kind is ev.OrderCanceled else None  # type: ignore[attr-defined]
        self._apply(event)
        self._events.append(event)
        if order is not None and order.link is not UNSET:
            self._links.canceled(order)

    def _emit_trade(self, event: Event, taker: Order, maker: Order) -> None:
        for order in (taker, maker):
            if self.state.work.fundings:
                self._steps.charge_ahead(order.terms.account)
            self._suspects[order.terms.account] = None
        self._traded[taker.terms.symbol] = None
        self._apply(event)
        self._events.append(event)
        for order in (taker, maker):
            if order.link is not UNSET:
                self._links.traded(order, event.size_lots)  # type: ignore[attr-defined]

    def _reject(self, command: cm.Command, reason: RejectReason) -> None:
        self._emit(ev.CommandRejected(type(command).__name__, reason))

    # What time brings

    def _expire(self, time_ns: int, most: int) -> None:
        """Cancel what has reached its end, and the orders of accounts that were not heard of in time, up to a number.

        What is left does not trade any more (`Matching.overdue`) and is cancelled by the next steps.
        """
        state, events = self.state, self._events
        while state.expiries and state.expiries[0][0] <= time_ns and len(events) < most:
            _, order_id = heappop(state.expiries)
            order = state.orders.get(order_id)
            if order is not None:
                self._matching.cancel(order, CancelReason.EXPIRED)
        while state.timers and state.timers[0][0] <= time_ns and len(events) < most:
            due_ns, number = heappop(state.timers)
            if state.ledger.accounts[number].deadline_ns == due_ns:
                self._run_out(number)

    def _run_out(self, number: int) -> None:
        self._cancel_own(number, "", CancelReason.TIMER)
        self._emit(ev.TimerSet(number, 0))

    def _catch_up(self, number: int) -> None:
        """Do first what an account would have to wait for: it asks for something now, of what it has.

        Of its orders that expire at one moment a step's worth goes at once.
        """
        account = self.state.ledger.accounts.get(number)
        if account is None:
            return
        if self.state.work.fundings:
            self._steps.charge_ahead(number)
        if 0 < account.deadline_ns <= self._matching.due_ns:
            self._run_out(number)
        orders = self.state.orders
        if due_ns := self._matching.due_ns:
            own = (orders[order_id] for order_id in account.orders)
            due = (order for order in own if 0 < order.expire_ns <= due_ns)
            self._cancels.each(list(islice(due, self._room())), CancelReason.EXPIRED)
        if self.state.work.cancels:
            self._cancels.first_of(number)

    def _proceed(self, index: int, time_ns: int, command: cm.Proceed) -> None:
        """Take a step of everything that is left; a funding is done first, no account is closed meanwhile."""
        work, state = self.state.work, self.state
        if work.fundings:
            self._grant()
            self._charge(next(iter(work.fundings.values())))
        if state.suspended:
            return
        self._traded.update(dict.fromkeys(state.markets))
        if work.delistings:
            self._grant()
            self._close(next(iter(work.delistings)))
        if not work.fundings:
            self._grant()
            self._look(self._step * LOOKS // 2)
        self._settle()
        self._grant()
        while work.entering and not self._spent():
            order_id = next(iter(work.entering))
            self._matching.go_on(state.orders[order_id])
        self._grant()

    def _grant(self) -> None:
        """Allow as much as a third of a step more."""
        self._enough = len(self._events) + self._looks // LOOKS + max(1, self._step // 3)

    def _charge(self, funding: Funding) -> None:
        if self._steps.charge(funding, self._step) and self.state.ledger.contracts[funding.symbol].holders:
            self._suspect_holders(funding.symbol)

    def _look(self, most: int) -> None:
        """Take those whose margin is to be looked at: who was noted, then the next ones of a review."""
        work = self.state.work
        if noted := list(islice(work.suspects, most)):
            self._emit(ev.SuspectsTaken(len(noted)))
            self._suspects.update(dict.fromkeys(noted))
        elif work.reviews:
            self._suspects.update(dict.fromkeys(self._steps.review(next(iter(work.reviews.values())), most)))

    def _tick(self, index: int, time_ns: int, command: cm.Tick) -> None:
        """Time has been looked at already; it is also when INSURANCE trades."""
        order = next_order(self.state, index)
        if order is not None:
            self._place(index, time_ns, order)

    # What follows from a command

    def _settle(self) -> None:
        """Trigger stops and liquidate until nothing is due, or this step has done enough.

        Exits follow their entries in any case: what they follow is in no event, and a crash would forget it.
        """
        links = self._links
        while (links.filled and links.follow()) or (self._due() and (self._trigger() or self._liquidate())):
            pass

    def _due(self) -> bool:
        return bool((self._traded or self._suspects) and not self.state.suspended and not self._spent())

    def _leave(self) -> None:
        """Leave to the next steps what this one had no room for."""
        if not self.state.suspended:
            if self._suspects:
                self._emit(ev.SuspectsNoted(tuple(self._suspects)))
            self._unsettled = bool(self._traded)
        self._traded.clear()
        self._suspects.clear()

    def _trigger(self) -> bool:
        """Let the first due stop enter: buys by rising stop before sells by falling, equal ones by age."""
        for symbol in list(self._traded):
            market = self.state.markets[symbol]
            if (order_id := market.due_stop()) is not None:
                self._trigger_one(self.state.orders[order_id])
                return True
            self._trail(symbol)
            del self._traded[symbol]
        return False

    def _trigger_one(self, order: Order) -> None:
        if (reason := self._matching.overdue(order)) is not None:
            self._matching.cancel(order, reason)
            return
        link = order.link
        self._emit(ev.OrderTriggered(order.order_id))
        if link is not UNSET:
            self._links.triggered(order.order_id, link)
        self._enter(order)

    def _enter(self, order: Order) -> None:
        """Let an order enter that was accepted before, if its account can pay its price now."""
        if self._solvency.may_enter(order):
            self._matching.enter(order)
        else:
            self._matching.cancel(order, CancelReason.MARGIN)

    def _trail(self, symbol: str) -> None:
        """Move the stops that the last trade moves. Cost: O(them)."""
        market, most = self.state.markets[symbol], self.state.ledger.contracts[symbol].instrument.price_ticks_max
        moves: list[tuple[int, int]] = []
        for side in (BUY, SELL):
            reached = -market.last_ticks if side == BUY else market.last_ticks
            for price, order_id in market.trailing[side] if market.last_ticks else ():
                if price > reached:
                    break
                trail = self.state.orders[order_id].terms.trail
                assert trail is not UNSET
                moves.append((order_id, stop_behind(trail, side, market.last_ticks, most)))
        if moves:
            self._emit(ev.StopsTrailed(symbol, tuple(moves)))

    def _liquidate(self) -> bool:
        """Close the first account that has to be; no account is closed while some have paid a funding and some have not."""
        while self._suspects and not self.state.work.fundings and not self._spent():
            account = self.state.ledger.accounts[next(iter(self._suspects))]
            del self._suspects[account.number]
            self._looks += 1
            if self._liquidation.due(account):
                self._suspects.update(dict.fromkeys(self._liquidation.liquidate(account, self._step)))
                return True
        return False

    # Orders

    def _place(self, index: int, time_ns: int, order: cm.PlaceOrder) -> None:
        reason = refuse_order(self.state, order, time_ns)
        if reason is None and order.post_only and not order.is_stop:
            assert order.price_ticks is not None
            if self._matching.crosses(order.symbol, order.side, order.price_ticks):
                reason = RejectReason.POST_ONLY
        if reason is not None:
            self._emit(ev.OrderRejected(order.account, order.symbol, order.cl_ord_id, reason))
            return
        assert index not in self.state.orders, f"command {index} comes twice"
        expire_ns = order.expire_ns
        if order.time_in_force is cm.TimeInForce.DAY:
            expire_ns = (time_ns // DAY_NS + 1) * DAY_NS
        if len(with_legs(order)) > 1:
            self._place_linked(index, order, expire_ns)
            return
        self._emit(ev.OrderAccepted(index, order, expire_ns))
        self._begin(self.state.orders[index])

    def _place_linked(self, index: int, order: cm.PlaceOrder, expire_ns: int) -> None:
        """Accept an order and those that come with it, then let them start one after the other."""
        orders = []
        for order_id, terms, link in linked(index, order):
            self._emit(ev.OrderAccepted(order_id, terms, 0 if link.held else expire_ns, link))
            orders.append(self.state.orders[order_id])
        for one in orders:
            if one.order_id in self.state.orders and not one.held:
                self._begin(one)

    def _begin(self, order: Order) -> None:
        """Let an order start for the first time: a trailing stop without a price gets one, of the last trade or else the mark."""
        trail, symbol = order.terms.trail, order.terms.symbol
        if trail is not UNSET and order.stop_ticks is None:
            contract = self.state.ledger.contracts[symbol]
            last = self.state.markets[symbol].last_ticks or contract.mark_ticks
            stop = stop_behind(trail, order.terms.side, last, contract.instrument.price_ticks_max)
            self._emit(ev.StopsTrailed(symbol, ((order.order_id, stop),)))
        self._start(order)

    def _start(self, order: Order) -> None:
        """Let an order wait for its stop, or enter."""
        if order.stop_ticks is None and order.terms.reduce_only and order.link is not UNSET:
            self._enter(order)  # an exit was accepted at another mark
        elif order.stop_ticks is None:
            self._matching.enter(order)
        else:
            self._emit(ev.OrderStopped(order.order_id))
            self._traded[order.terms.symbol] = None

    def _amend(self, index: int, time_ns: int, amend: cm.AmendOrder) -> None:
        order = self.state.find(amend.account, amend.cl_ord_id)
        reason = RejectReason.UNKNOWN_ORDER if order is None else refuse_amend(self.state, order, amend)
        if order is None or reason is not None:
            self._emit(ev.CancelRejected(amend.account, amend.cl_ord_id, reason or RejectReason.UNKNOWN_ORDER))
            return
        size = order.size_lots if amend.size_lots is None else amend.size_lots
        price = order.price_ticks if amend.price_ticks is None else amend.price_ticks
        stop = order.stop_ticks if amend.stop_ticks is None else amend.stop_ticks
        kept = order.held or (size <= order.size_lots and price == order.price_ticks and stop == order.stop_ticks)
        less = order.size_lots - size
        self._emit(ev.OrderAmended(order.order_id, size, price, stop, kept))
        self._links.reduced(order, less)
        if not kept:
            self._start(order)

    def _cancel(self, index: int, time_ns: int, command: cm.CancelOrder) -> None:
        order = self.state.find(command.account, command.cl_ord_id)
        if order is None:
            self._emit(ev.CancelRejected(command.account, command.cl_ord_id, RejectReason.UNKNOWN_ORDER))
        else:
            self._matching.cancel(order, CancelReason.REQUESTED)

    def _cancel_own(self, number: int, symbol: str, reason: CancelReason) -> None:
        self._cancels.own(number, symbol, reason, self._room())

    def _room(self) -> int:
        """Return how many events this step may make still, and at least some."""
        return max(EXPIRIES_MAX, self._step - len(self._events))

    def _cancel_all(self, index: int, time_ns: int, command: cm.CancelAll) -> None:
        if command.account not in self.state.ledger.accounts:
            self._reject(command, RejectReason.UNKNOWN_ACCOUNT)
        elif command.symbol is not None and command.symbol not in self.state.markets:
            self._reject(command, RejectReason.UNKNOWN_SYMBOL)
        else:
            self._cancel_own(command.account, command.symbol or "", CancelReason.REQUESTED)

    def _cancel_all_after(self, index: int, time_ns: int, command: cm.CancelAllAfter) -> None:
        if command.account not in self.state.ledger.accounts:
            self._reject(command, RejectReason.UNKNOWN_ACCOUNT)
        elif not 0 <= command.timeout_ns <= TIMEOUT_NS_MAX:
            self._reject(command, RejectReason.INVALID_EXPIRY)
        else:
            self._emit(ev.TimerSet(command.account, time_ns + command.timeout_ns if command.timeout_ns else 0))

    def _kill_switch(self, index: int, time_ns: int, command: cm.KillSwitch) -> None:
        if command.account not in self.state.ledger.accounts:
            self._reject(command, RejectReason.UNKNOWN_ACCOUNT)
            return
        self._emit(ev.KillSwitchSet(command.account, command.on))
        if command.on:
            self._cancel_own(command.account, "", CancelReason.KILLED)

    # The exchange and its money

    def _suspend(self, index: int, time_ns: int, command: cm.Suspend) -> None:
        if command.reason not in self.state.suspended:
            self._emit(ev.Suspended(command.reason))

    def _resume(self, index: int, time_ns: int, command: cm.Resume) -> None:
        """Lift a reason; a store that has caught up counts again from then on."""
        store = self.state.stores.get(command.reason.removeprefix(STORE_REASON))
        if store is not None and store.waived and command.reason.startswith(STORE_REASON):
            self._emit(ev.StoreWaived(store.store_id, False))
        self._lift([command.reason] if command.reason in self.state.suspended else [])

    def _resume_all(self, index: int, time_ns: int, command: cm.ResumeAll) -> None:
        reasons = sorted(self.state.suspended)
        for reason in reasons:
            store_id = reason.removeprefix(STORE_REASON)
            if reason.startswith(STORE_REASON) and store_id in self.state.stores:
                self._emit(ev.StoreWaived(store_id, True))
        self._lift(reasons)

    def _lift(self, reasons: list[str]) -> None:
        """Lift reasons; with the last one, process the marks that came meanwhile."""
        for reason in reasons:
            self._emit(ev.Resumed(reason))
        if reasons and not self.state.suspended:
            for symbol, market in self.state.markets.items():
                self._traded[symbol] = None
                if market.pending_mark_ticks:
                    self._emit(ev.MarkSet(symbol, market.pending_mark_ticks, False))
                self._suspect_holders(symbol)

    def _suspect_holders(self, symbol: str) -> None:
        """See to it that the margin of all holders is looked at: now, or in steps when they are many."""
        holders = self.state.ledger.contracts[symbol].holders
        if len(holders) + len(self._suspects) > self._most * LOOKS // 2 or symbol in self.state.work.reviews:
            self._steps.begin_review(symbol)
        else:
            self._suspects.update(dict.fromkeys(sorted(holders)))

    def _set_mark(self, index: int, time_ns: int, command: cm.SetMark) -> None:
        contract = self.state.ledger.contracts.get(command.symbol)
        if contract is None:
            self._reject(command, RejectReason.UNKNOWN_SYMBOL)
        elif not contract.listed:
            self._reject(command, RejectReason.DELISTED)
        elif not 0 < command.mark_ticks <= contract.instrument.price_ticks_max:
            self._reject(command, RejectReason.INVALID_PRICE)
        else:
            self._emit(ev.MarkSet(command.symbol, command.mark_ticks, bool(self.state.suspended)))
            self._suspect_holders(command.symbol)

    def _fund(self, index: int, time_ns: int, command: cm.Fund) -> None:
        contract = self.state.ledger.contracts.get(command.symbol)
        if contract is None:
            self._reject(command, RejectReason.UNKNOWN_SYMBOL)
        elif not contract.listed:
            self._reject(command, RejectReason.DELISTED)
        elif self.state.suspended:
            self._reject(command, RejectReason.SUSPENDED)
        elif abs(command.rate_ppm) > RATE_PPM_MAX:
            self._reject(command, RejectReason.INVALID_AMOUNT)
        elif command.symbol in self.state.work.fundings:
            self._reject(command, RejectReason.FUNDING_UNDER_WAY)
        elif len(contract.holders) > self._most:
            self._steps.begin_charge(command.symbol, command.rate_ppm)
        else:
            self._steps.charge_at_once(command.symbol, command.rate_ppm)
            self._suspect_holders(command.symbol)

    def _deposit(self, index: int, time_ns: int, command: cm.Deposit) -> None:
        if command.account < cm.INSURANCE:
            self._reject(command, RejectReason.UNKNOWN_ACCOUNT)
        elif not 0 < command.amount_units <= MONEY_UNITS_MAX:
            self._reject(command, RejectReason.INVALID_AMOUNT)
        else:
            self._emit(ev.Transferred(command.account, command.amount_units))

    def _withdraw(self, index: int, time_ns: int, command: cm.Withdraw) -> None:
        account = self.state.ledger.accounts.get(command.account)
        if account is None or command.account < cm.FEES:
            self._reject(command, RejectReason.UNKNOWN_ACCOUNT)
        elif command.amount_units <= 0:
            self._reject(command, RejectReason.INVALID_AMOUNT)
        elif command.amount_units > self._solvency.free_units(account):
            self._reject(command, RejectReason.MARGIN)
        else:
            self._emit(ev.Transferred(command.account, -command.amount_units))

    def _create(self, index: int, time_ns: int, command: cm.CreateInstrument) -> None:
        reason = refuse_instrument(self.state, command.instrument, command.mark_ticks)
        if reason is None:
            self._emit(ev.InstrumentCreated(command.instrument, command.mark_ticks))
        else:
            self._reject(command, reason)

    def _delist(self, index: int, time_ns: int, command: cm.Delist) -> None:
        reason = refuse_delisting(self.state, command)
        if reason is not None:
            self._reject(command, reason)
        elif command.settle:
            self._emit(ev.DelistingBegun(command.symbol))
            self._close(command.symbol)
        else:
            self._emit(ev.InstrumentDelisted(command.symbol))

    def _close(self, symbol: str) -> None:
        """Take a step of closing a contract: cancel its orders, then close its positions."""
        while not self._spent():
            room = self._enough - len(self._events)
            if due := self._steps.orders_of(symbol, room):
                self._cancels.each([one for order_id in due if (one := self.state.orders.get(order_id))], CancelReason.DELISTED)
            elif settled := self._steps.settle(symbol, room):
                self._suspects.update(dict.fromkeys(settled))
            else:
                self._emit(ev.InstrumentDelisted(symbol))
                return

    # The consumers of messages

    def _check_liveness(self, index: int, time_ns: int, command: cm.CheckLiveness) -> None:
        if not 0 < len(command.check_id) <= NAME_LENGTH_MAX or len(command.source) > NAME_LENGTH_MAX:
            self._reject(command, RejectReason.INVALID_COMBINATION)
        else:
            self._emit(ev.LivenessChecked(command.check_id, command.source))

    def _create_store(self, index: int, time_ns: int, command: cm.CreateStore) -> None:
        stores = self.state.stores
        if len(command.store_id) > NAME_LENGTH_MAX or (command.store_id not in stores and len(stores) >= STORES_MAX):
            self._reject(command, RejectReason.INVALID_STORE)
        elif command.store_id not in stores:
            self._emit(ev.StoreCreated(command.store_id, index))

    def _delete_store(self, index: int, time_ns: int, command: cm.DeleteStore) -> None:
        if self._known_store(command, command.store_id):
            self._emit(ev.StoreDeleted(command.store_id))

    def _purge_store(self, index: int, time_ns: int, command: cm.PurgeStore) -> None:
        """Purging again what is purged changes nothing; what has not been sent yet cannot be purged."""
        if not self._known_store(command, command.store_id):
            return
        if not 0 <= command.message_index < index:
            self._reject(command, RejectReason.INVALID_INDEX)
        elif command.message_index > self.state.stores[command.store_id].purged_index:
            self._emit(ev.StorePurged(command.store_id, command.message_index))

    def _configure_store(self, index: int, time_ns: int, command: cm.ConfigureStore) -> None:
        if not self._known_store(command, command.store_id):
            return
        if not 0 < command.age_ms_max <= AGE_MS_MAX:
            self._reject(command, RejectReason.INVALID_AMOUNT)
        else:
            self._emit(ev.StoreConfigured(command.store_id, command.age_ms_max))

    def _known_store(self, command: cm.Command, store_id: str) -> bool:
        if store_id not in self.state.stores:
            self._reject(command, RejectReason.UNKNOWN_STORE)
        return store_id in self.state.stores
