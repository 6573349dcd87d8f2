"""Reads the order queue and sees each message through: submitted, answered, acknowledged, or put among the dead letters.

Every message ends in the journal or, with its reason, among the dead letters, and only then is it acknowledged: whatever
happens in between, it is redelivered. Commands are submitted in the order of arrival, a group commit settles many at once, and
one acknowledgement covers them. While the engine takes no commands, messages are held, in order, and not put back.

A redelivered message is looked at first. What this process has under way or has done under its message id is not done
again; an order that the state knows is done. What another process held when it died may be what killed it: a confirmed copy
with a count goes to the retry queue, and that one is handled with nothing else under way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import Coroutine
from functools import partial
from hashlib import blake2b
from typing import Literal

import aiormq
import msgspec
import structlog
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from engine.access.keys import Caller, Role
from engine.access.register import Register, Unknown
from engine.core.commands import Command, PlaceOrder
from engine.journal.sequencer import Asked, EngineBusy, EngineUnavailable, Outcome, Sequencer
from engine.orders import message as om
from engine.orders.answers import Answers
from engine.orders.dead_letters import counted, dead_letter
from engine.orders.delivery import Delivery, Key, Settled, hold
from engine.orders.requeued import BY_OPERATOR, Requeued
from engine.orders.risk_ahead import RiskAhead
from engine.orders.topology import BOUND, DEAD, DEAD_EXCHANGE, EXPIRED, ORDERS, PREFETCH, QUEUES, RETRY
from engine.risk.checker import RiskChecker
from engine.risk.rules import URL_SETTING
from mdq.broker import BrokerUnavailable
from mdq.rabbit_calls import broker_errors, in_time
from mdq.rabbit_link import RabbitLink, Wire, publish, text
from service import metrics
from service.clock import Clock, SystemClock
from service.errors import OperatorError

BURST = 256  # messages submitted before the loop is the sequencer's and others'
# A turn in so long at the most: the broker hands over by threes, and every turn costs a disk write and an acknowledgement.
# A backlog of 10,000 passed at 3,900 to 5,400/s without a pause, at 10,200 to 13,000/s with this one.
TURN_S = 0.003
BUSY_PAUSE_S = 0.01
UNAVAILABLE_PAUSE_S = 0.1
UNSETTLED_PAUSE_S = 0.005
DRAIN_S_MAX = 5.0
REMEMBERED = 8  # times the prefetch: messages known again when they come again
EXPIRED_PREFETCH = 50
BY_BROKER = Caller("queue", Role.OPERATOR)  # who it is stands in the journal as this, when messages show no keys
KEY_LENGTH_MAX = 128  # of a message id, as a key; the rest of a longer one is in the body's hash or nowhere

log = structlog.get_logger()
Step = Literal["go", "wait", "suspect"]


class OrdersQueue:
    """Reads the order queue from `start` to `close`; survives every loss of the broker and of the disk."""

    def __init__(
        self,
        url: str,
        sequencer: Sequencer,
        risk: RiskChecker | None = None,
        prefetch: int = PREFETCH,
        clock: Clock | None = None,
        register: Register | None = None,
        requeued: Requeued | None = None,
    ) -> None:
        """With `register` every message shows a key; without one, whoever the broker lets write to the queue is an operator.

        `requeued` knows what an operator has given back from the dead letters.
        """
        self._link = RabbitLink(url, "tapeline-engine-orders", self._serve, URL_SETTING)
        self._answers = Answers(url)
        self._sequencer = sequencer
        self._risk = RiskAhead(risk, self._woken)
        self._register = register
        self._requeued = requeued
        self._prefetch = prefetch
        self._clock = clock or SystemClock()
        self._recent: OrderedDict[Key, Settled | None] = OrderedDict()  # None: came here, is not to be suspected
        self._draining = False
        self._refusing = ""  # why the engine takes nothing
        self.counts: Counter[str] = Counter()
        self._what = metrics.counter("engine", "orders", "Messages of the order queue by what became of them", ["what"])
        self._depth = metrics.gauge("engine", "orders_held", "Messages here and not yet acknowledged")
        self._begin()

    @property
    def ready(self) -> bool:
        """Whether orders are read and taken."""
        return self._link.ready and not self._refusing

    @property
    def fault(self) -> str:
        """In words why it is not ready; empty while it is."""
        return self._link.fault or self._refusing

    def start(self) -> None:
        """Begin to connect and to read."""
        self._link.start()
        self._answers.start()

    async def close(self) -> None:
        """Take no more, finish what is here (5 s at the most), acknowledge, disconnect."""
        self._draining = True
        self._wake.set()
        if self._link.ready:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S_MAX):
                    await self._link.finished()
        await self._link.close()
        await self._answers.close()

    # One connection

    def _begin(self) -> None:
        self._inbox: deque[Delivery] = deque()  # not begun, in order
        self._submitted: deque[Delivery] = deque()  # in order
        self._redo: list[Delivery] = []  # taken back by the sequencer
        self._unacked: deque[Delivery] = deque()  # all of them, in order of their tags
        self._tasks: set[asyncio.Task[None]] = set()
        self._retry_due = False
        self._turn_s = 0.0  # when messages were taken last
        self._wake = asyncio.Event()

    async def _serve(self, wire: Wire) -> None:
        self._begin()
        defect = False
        try:
            await wire.declare(QUEUES, DEAD_EXCHANGE, BOUND)
            self._wire, self._side = wire, await wire.channel(confirms=True)
            self._intake = await wire.channel(prefetch=self._prefetch)
            expired = await wire.channel(prefetch=EXPIRED_PREFETCH)
            await self._drain_retries()
            with broker_errors():
                await in_time(expired.basic_consume(EXPIRED, partial(self._on_expired, expired)))
                consumed = await in_time(self._intake.basic_consume(ORDERS, partial(self._on_order, wire)))
            wire.ready = True
            log.info("orders_queue_open", prefetch=self._prefetch)
            await self._pump(str(consumed.consumer_tag))
        except (BrokerUnavailable, OperatorError, asyncio.CancelledError):
            raise
        except Exception:
            defect = True
            raise
        finally:
            self._let_go()
            if defect:  # met with one of these messages: they come again as suspects
                self._recent.clear()

    def _let_go(self) -> None:
        """The connection is gone: what was not acknowledged comes again, and is known then."""
        self._risk.lost(self._unacked)
        for held in self._unacked:
            if held.key not in self._recent:
                self._remember(held.key, None)
        for task in self._tasks:
            task.cancel()
        self._depth.set(0)

    async def _on_order(self, wire: Wire, delivered: DeliveredMessage) -> None:
        if wire.lost.done():
            return
        held = hold(delivered)
        self._inbox.append(held)
        self._unacked.append(held)
        self._risk.arrived(held)
        self._wake.set()

    async def _pump(self, consumer_tag: str) -> None:
        """Submit, settle, acknowledge, until the wire is lost or everything is drained."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            self._settle()
            await self._acknowledge()
            if self._draining and consumer_tag:
                with broker_errors():
                    await in_time(self._intake.basic_cancel(consumer_tag))
                consumer_tag = ""
            if self._draining and not self._unacked:
                return
            if self._retry_due and not self._submitted:
                self._retry_due = False
                await self._drain_retries()
            if self._inbox and (pause_s := self._turn_s + TURN_S - loop.time()) > 0:
                await asyncio.sleep(pause_s)
            if await self._take():
                self._turn_s = loop.time()
                await asyncio.sleep(0)  # the sequencer's turn
            else:
                await self._wake.wait()

    def _settle(self) -> None:
        """Look at what the sequencer has done. It settles in order, so that the first one open ends the look.

        While the state is rebuilt nothing is settled: answers are made from it.
        """
        if self._sequencer.doubtful:
            asyncio.get_running_loop().call_later(UNAVAILABLE_PAUSE_S, self._wake.set)
            return
        submitted = self._submitted
        while submitted and (future := submitted[0].future) is not None and future.done():
            held = submitted.popleft()
            error = asyncio.CancelledError() if future.cancelled() else future.exception()
            if error is None:
                self._executed(held, future.result())
            elif isinstance(error, EngineUnavailable):
                held.future = None
                self._redo.append(held)
            else:
                self._spawn(self._failed(held, error))
        if self._redo and not submitted:
            self._inbox.extendleft(reversed(self._redo))
            self._redo.clear()

    def _executed(self, held: Delivery, outcome: Outcome) -> None:
        if held.properties.reply_to and held.command is not None:
            if outcome.answer is not None:
                said = msgspec.json.decode(outcome.answer[1])
            else:
                said = om.answer(held.command, outcome.index, outcome.events, self._sequencer.state)
            self._answers.post(held.properties, said)
        self._finish(held, "done")

    async def _acknowledge(self) -> None:
        """Acknowledge all up to the first message that is not done."""
        last, unacked = 0, self._unacked
        while unacked and unacked[0].done:
            last = unacked.popleft().tag
        if last:
            with broker_errors():
                await self._intake.basic_ack(last, multiple=True, wait=False)
        self._depth.set(len(unacked))

    async def _take(self) -> bool:
        """Handle what has arrived until something has to be waited for; return whether anything was done."""
        if self._redo or self._retry_due:
            return False
        try:
            self._risk.ask(self._sequencer.state)
        except EngineUnavailable as error:
            self._hold(error)
            return False
        for count in range(BURST):
            if not self._inbox:
                return count > 0
            held = self._inbox[0]
            step = self._step(held)
            if step == "suspect" and self._unacked[0] is held:
                await self._isolate(held)
            elif step != "go":
                return count > 0
        return True

    # One message

    def _step(self, held: Delivery) -> Step:
        """Begin one message, the first of the inbox, without waiting."""
        try:
            step = self._begin_one(held)
        except om.MessageRefused as refused:
            self._spawn(self._bury(held, refused.reason, refused.detail, held.failed))
            step = "go"
        except (EngineBusy, EngineUnavailable) as error:
            self._hold(error)
            step = "wait"
        except Exception as error:  # a defect, in the engine or here: this message is not tried for ever
            self._spawn(self._failed(held, error))
            step = "go"
        if step == "go":
            self._inbox.popleft()
        return step

    def _begin_one(self, held: Delivery) -> Step:
        state, message = self._sequencer.state, self._read(held)
        if (known := self._under_way(held)) is not None:
            self._follow(held, om.command_of(message, state), known)
            return "go"
        if held.again and self._sequencer.unsettled:  # what it made may still be lost: nobody is told of it yet
            asyncio.get_running_loop().call_later(UNSETTLED_PAUSE_S, self._wake.set)
            return "wait"
        if held.again and self._made_before(held, om.command_of(message, state)):
            return "go"
        self._check_end(held)
        if held.again and held.key not in self._recent:
            return "suspect"
        if self._submitted and om.waits_for_order(message, state):
            return "wait"  # the order may be one of those
        command = om.command_of(message, state)
        if not self._risk.approved(held, command, self._sequencer.state):
            return "wait"
        self._follow(held, command, self._submit(held, command))
        return "go"

    def _follow(self, held: Delivery, command: Command, future: Settled) -> None:
        held.command, held.future = command, future
        future.add_done_callback(self._woken)
        self._submitted.append(held)

    def _submit(self, held: Delivery, command: Command) -> Settled:
        """Hand a command to the sequencer.  Raises: EngineBusy, EngineUnavailable."""
        future = self._sequencer.submit(command, held.caller.sender, self._asked(held.key, command))
        self._remember(held.key, future)
        if self._refusing:
            self._refusing = ""
            log.info("orders_taken_again")
        return future

    def _asked(self, key: Key, command: Command) -> Asked | None:
        """Return the message's id as the command's key, so that a redelivery is known after a crash, too.

        A new order is known by its client id. An id that another message had is not that message's key: the body is part of it.
        """
        if not key[0] or isinstance(command, PlaceOrder) or self._sequencer.state.keys.full:
            return None
        digest = blake2b(key[1], digest_size=16).hexdigest()
        return Asked(f"queue:{key[0][:KEY_LENGTH_MAX]}:{digest}", digest, partial(self._answer, command))

    def _answer(self, command: Command, outcome: Outcome) -> tuple[int, str]:
        said = om.answer(command, outcome.index, outcome.events, self._sequencer.state)
        return 200, msgspec.json.encode(said).decode()

    def _read(self, held: Delivery) -> om.OrderMessage:
        """Return a message whose sender may move its account.  Raises: MessageRefused."""
        message = held.read()
        if self._register is None:
            held.caller = BY_BROKER
            return message
        shown = (held.properties.headers or {}).get(om.KEY)
        if self._requeued is not None and self._requeued.shows(shown, held.body):
            held.caller = BY_OPERATOR
            return message
        try:
            held.caller = self._register.bearer(
                shown if isinstance(shown, str) else text(shown if isinstance(shown, bytes) else b""), self._clock.wall_ns()
            )
        except Unknown as error:
            missing = "" if shown else f"The message has no header {om.KEY}. "
            raise om.MessageRefused("Unauthorized", f"{missing}{error}") from None
        if not held.caller.may_use(message.account):
            raise om.MessageRefused("ForeignAccount", f"account {message.account} is none of the key {held.caller.sender}'s")
        return message

    def _woken(self, _: object) -> None:
        self._wake.set()

    def _check_end(self, held: Delivery) -> None:
        if held.ends_ns and self._clock.wall_ns() >= held.ends_ns:
            before = "; it came before, and whether it was executed then is not known" if held.again else ""
            raise om.MessageRefused("Expired", f"its end had passed when the engine came to it{before}")

    def _under_way(self, held: Delivery) -> Settled | None:
        """Return the future of the same message when it was submitted here before and did not fail."""
        known = self._recent.get(held.key)
        if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
            return None
        self._count("known")
        return known

    def _made_before(self, held: Delivery, command: Command) -> bool:
        """Return whether the state has the order of a message that comes again, and settle it then."""
        order_id = om.done_before(command, self._sequencer.state)
        if order_id is None:
            return False
        assert isinstance(command, PlaceOrder)
        self._answers.post(held.properties, om.repeated_answer(command, order_id, self._sequencer.state))
        self._finish(held, "repeated")
        return True

    def _hold(self, error: EngineBusy | EngineUnavailable) -> None:
        """The engine takes nothing now: ask again soon."""
        self._count("held")
        if isinstance(error, EngineUnavailable) and not self._refusing:
            self._refusing = str(error)
            log.warning("orders_held", error=str(error), messages=len(self._inbox))
        pause_s = UNAVAILABLE_PAUSE_S if isinstance(error, EngineUnavailable) else BUSY_PAUSE_S
        asyncio.get_running_loop().call_later(pause_s, self._wake.set)

    def _finish(self, held: Delivery, what: str) -> None:
        self._risk.leave(held)
        held.done = True
        self._count(what)
        self._wake.set()

    def _remember(self, key: Key, future: Settled | None) -> None:
        """Know a message when it comes again. Without a message id two equal ones may be meant: their outcome is not shared."""
        self._recent.pop(key, None)
        self._recent[key] = future if key[0] else None
        if len(self._recent) > REMEMBERED * self._prefetch:
            self._recent.popitem(last=False)

    def _count(self, what: str) -> None:
        self.counts[what] += 1
        self._what.labels(what).inc()

    # What is not executed

    def _spawn(self, put_away: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(put_away)
        self._tasks.add(task)
        task.add_done_callback(self._put_away)

    def _put_away(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._wire.lose(f"a dead letter was not taken: {error}")

    async def _bury(self, held: Delivery, reason: om.Reason, detail: str, failed: int = 0) -> None:
        """Put a message among the dead letters and tell its sender."""
        properties = dead_letter(held.properties, reason, detail, self._clock.wall_ns(), failed)
        await publish(self._side, held.body, properties, DEAD)
        self._answers.post(held.properties, om.refusal_answer(reason, detail))
        self._finish(held, reason)
        if (so_far := self.counts[reason]) & (so_far - 1) == 0:  # the 1st, 2nd, 4th, 8th …
            log.warning("order_dead_lettered", reason=reason, detail=detail, message_id=held.key[0], so_far=so_far)

    async def _failed(self, held: Delivery, error: BaseException) -> None:
        """Count an attempt that failed without ending the process."""
        log.error("order_failed", error=repr(error), message_id=held.key[0])
        await self._count_attempt(held, held.failed + 1, repr(error))
        self._retry_due = True
        self._wake.set()

    async def _count_attempt(self, held: Delivery, failed: int, detail: str) -> None:
        """Put a message among the retries with its count, or, when that is too high, among the dead letters."""
        if failed >= om.ATTEMPTS_MAX:
            detail = f"{failed} attempts failed; the last: {detail}"[: om.DETAIL_LENGTH_MAX]
            await self._bury(held, "Poisoned", detail, failed)
            return
        await publish(self._side, held.body, counted(held.properties, failed), RETRY)
        self._finish(held, "retried")

    async def _isolate(self, held: Delivery) -> None:
        """Handle a message that may have ended another process: counted first, then alone. Everything before it is settled."""
        await self._count_attempt(held, held.failed + 1, "the process that had it ended")
        self._inbox.popleft()
        self._unacked.popleft()
        with broker_errors():
            await self._intake.basic_ack(held.tag, wait=False)
        await self._drain_retries()

    async def _drain_retries(self) -> None:
        """Handle the retry queue to its end, one message at a time, nothing else under way."""
        while True:
            with broker_errors():
                got = await in_time(self._side.basic_get(RETRY))
            if isinstance(got.delivery, Basic.GetEmpty):
                return
            held = hold(got)
            await self._handle_alone(held)
            with broker_errors():
                await self._side.basic_ack(held.tag, wait=False)

    async def _handle_alone(self, held: Delivery) -> None:
        failed = held.failed
        try:
            while not await self._try_alone(held, failed):
                await self._wake_up()
        except om.MessageRefused as refused:
            await self._bury(held, refused.reason, refused.detail, failed)
        except (BrokerUnavailable, asyncio.CancelledError):
            raise
        except Exception as error:
            await self._failed(held, error)
        finally:
            self._risk.leave(held)

    async def _try_alone(self, held: Delivery, failed: int) -> bool:
        """Do one message to its end; return False when the engine does not take it now.  Raises: whatever fails."""
        try:
            command = om.command_of(self._read(held), self._sequencer.state)
            future = self._under_way(held)
            if future is None:
                if self._made_before(held, command):
                    return True
                self._check_end(held)
                if held.again and held.key not in self._recent:
                    await self._count_attempt(held, failed + 1, "the process that had it ended")
                    return True
                while not self._risk.approved(held, command, self._sequencer.state):
                    await self._wake_up()
            held.command = command
            self._executed(held, await asyncio.shield(future or self._submit(held, command)))
        except (EngineBusy, EngineUnavailable) as error:
            self._hold(error)
        return held.done

    async def _wake_up(self) -> None:
        self._wake.clear()
        await self._wake.wait()

    async def _on_expired(self, channel: aiormq.Channel, delivered: DeliveredMessage) -> None:
        """Give a message that RabbitMQ took out of the queue the form of every dead letter."""
        held, wire = hold(delivered), self._wire
        reason, detail = om.death(held.properties.headers)
        made = False
        await self._sequencer.rebuilt()
        with contextlib.suppress(om.MessageRefused):
            made = self._made_before(held, om.command_of(self._read(held), self._sequencer.state))
        try:
            if not made:
                await self._bury(held, reason, detail, held.failed)
            with broker_errors():
                await channel.basic_ack(held.tag, wait=False)
        except BrokerUnavailable as error:
            wire.lose(str(error))
