"""Asks a risk service about an order over RabbitMQ, and refuses the order when there is no answer in time.

Request–reply: `risk-requests` out, `risk-responses` back, matched by the request's id. Whoever does not answer in time is not
waited for; what he says later is counted and ignored. After some failures in a row a breaker opens: then nobody is asked, and
nothing is approved (fail closed) until a probe is answered. A refusal by the service is an answer, not a failure.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar
from uuid import uuid4

import aiormq
import msgspec
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from engine.core.commands import SIDES, Command
from engine.core.state import State
from engine.risk.rules import (
    QUEUE_ARGUMENTS,
    REQUESTS,
    RESPONSES,
    TIMEOUT,
    UNAVAILABLE,
    URL_SETTING,
    Exposure,
    RiskOrder,
    RiskRequest,
    Verdict,
    Ways,
    question,
)
from mdq.broker import BrokerUnavailable
from mdq.rabbit_calls import broker_errors, in_time
from mdq.rabbit_link import RabbitLink, Wire, publish, text
from service import metrics
from service.breaker import STATES, Breaker, BreakerState
from service.clock import Clock, SystemClock

TIMEOUT_S = 5.0
PENDING_MAX = 10_000  # questions without an answer; more are refused at once

Done = TypeVar("Done")
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Verdict)


class RiskChecker:
    """Asks before an order goes to the engine. One a process; `responses` must be its own queue when several share a broker."""

    def __init__(
        self, url: str, timeout_s: float = TIMEOUT_S, breaker: Breaker | None = None, responses: str = RESPONSES,
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._link = RabbitLink(url, "tapeline-engine-risk", self._serve, URL_SETTING)
        self._timeout_s = timeout_s
        self._breaker = breaker or Breaker()
        self._responses = responses
        self._clock = clock or SystemClock()
        self._pending: dict[str, asyncio.Future[Verdict]] = {}
        self._asking: aiormq.Channel | None = None
        self.ways: Ways = {}  # what is asked about and not in the state yet, over HTTP and from the queue
        self.counts: Counter[str] = Counter()
        self._checks = metrics.counter("engine", "risk_checks", "Pre-trade checks by how they ended", ["outcome"])
        self._state = metrics.gauge("engine", "risk_breaker", "Breaker of the risk service: 0 closed, 1 half-open, 2 open")
        self._answer_ms = metrics.histogram("engine", "risk_answer_ms", "Time from the question to the answer")

    @property
    def ready(self) -> bool:
        """Whether questions can be asked: connected, and the breaker not open."""
        return self._link.ready and self.breaker_state != "open"

    @property
    def fault(self) -> str:
        """In words why it is not ready."""
        return self._link.fault or ("" if self.ready else "the risk service does not answer; every order is rejected")

    @property
    def breaker_state(self) -> BreakerState:
        """Return closed, open or half-open."""
        return self._breaker.state(self._now_s())

    def start(self) -> None:
        """Begin to connect."""
        self._link.start()

    async def close(self) -> None:
        """Disconnect; who still waits gets his refusal."""
        await self._link.close()
        for request_id, future in list(self._pending.items()):
            if not future.done():
                future.set_result(Verdict(False, UNAVAILABLE, request_id))

    async def check(self, order: RiskOrder, account: Exposure) -> Verdict:
        """Return the verdict on what `risk_rules.question` asks; never an exception.

        Not approved: the service's reason, `risk_check_timeout` after the timeout, `risk_unavailable` when nobody was asked
        (breaker open, broker away, too many waiting).
        """
        request_id, began_s = uuid4().hex, self._now_s()
        if len(self._pending) >= PENDING_MAX or not self._breaker.allows(began_s):
            return self._ended("unavailable", Verdict(False, UNAVAILABLE, request_id))
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = future
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._ask(request_id, order, account)
                verdict = await future
        except TimeoutError:
            self._breaker.failed(self._now_s())
            return self._ended("timeout", Verdict(False, TIMEOUT, request_id))
        except BrokerUnavailable:
            self._breaker.failed(self._now_s())
            return self._ended("unavailable", Verdict(False, UNAVAILABLE, request_id))
        finally:
            del self._pending[request_id]
        self._breaker.succeeded(self._now_s())
        self._answer_ms.observe((self._now_s() - began_s) * 1e3)
        return self._ended("approved" if verdict.approved else "refused", verdict)

    async def submit(self, command: Command, state: State, submit: Callable[[Command], Awaitable[Done]]) -> Done | Verdict:
        """Return what `submit` returns for an approved command, or the verdict that refused it.

        What takes no risk is not asked about.  Raises: whatever `submit` raises.
        """
        asked = question(state, command, self.ways)
        if asked is None:
            return await submit(command)
        order = asked[0]
        way = order.account, order.symbol, SIDES.get(order.side, 0)
        self.ways[way] = self.ways.get(way, 0) + order.lots
        try:
            verdict = await self.check(*asked)
            return await submit(command) if verdict.approved else verdict
        finally:
            self.ways[way] -= order.lots
            if not self.ways[way]:
                del self.ways[way]

    async def _ask(self, request_id: str, order: RiskOrder, account: Exposure) -> None:
        if self._asking is None:
            raise BrokerUnavailable(self._link.fault)
        properties = Basic.Properties(
            content_type="application/json",
            correlation_id=request_id,
            reply_to=self._responses,
            delivery_mode=1,  # worth nothing after the timeout
            expiration=str(max(1, round(self._timeout_s * 1e3))),
            message_id=request_id,
        )
        body = _ENCODER.encode(RiskRequest(request_id, order, account, self._responses))
        await publish(self._asking, body, properties, REQUESTS)

    def _ended(self, outcome: str, verdict: Verdict) -> Verdict:
        self._count(outcome)
        self._state.set(STATES.index(self.breaker_state))
        return verdict

    def _count(self, outcome: str) -> None:
        self.counts[outcome] += 1
        self._checks.labels(outcome).inc()

    def _now_s(self) -> float:
        return self._clock.mono_ns() / 1e9

    # The connection

    async def _serve(self, wire: Wire) -> None:
        await wire.declare({REQUESTS: QUEUE_ARGUMENTS, self._responses: QUEUE_ARGUMENTS})
        answers = await wire.channel(prefetch=1_000)
        with broker_errors():
            await in_time(answers.basic_consume(self._responses, partial(self._on_answer, answers)))
        self._asking = await wire.channel(confirms=True)
        wire.ready = True
        try:
            await wire.lost
        finally:
            self._asking = None

    async def _on_answer(self, channel: aiormq.Channel, message: DeliveredMessage) -> None:
        with broker_errors():
            await channel.basic_ack(message.delivery_tag or 0, wait=False)
        try:
            verdict = _DECODER.decode(message.body)
        except ValueError:
            self._count("malformed")  # no verdict: the question times out
            return
        future = self._pending.get(verdict.request_id or text(message.header.properties.correlation_id))
        if future is None or future.done():
            self._count("late")
            return
        future.set_result(verdict)
