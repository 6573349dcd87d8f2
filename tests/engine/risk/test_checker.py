"""Pre-trade risk over a real RabbitMQ: verdicts, silence, lateness, the breaker; and orders that have to pass it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from aiormq.abc import DeliveredMessage

from engine.core import commands as cm
from engine.orders.topology import DEAD, ORDERS
from engine.risk.checker import RiskChecker
from engine.risk.rules import QUEUE_ARGUMENTS, REQUESTS, RESPONSES, Exposure, Limits, RiskOrder, Verdict, question
from engine.risk.service import RiskService, RiskSettings
from service.breaker import Breaker
from service.errors import OperatorError
from service.settings import load
from tests.engine.orders.ground import (
    CROWD,
    RICH,
    SYMBOL,
    accepted,
    dead_letters,
    declare,
    delete,
    depth,
    desk,
    exchange,
    place,
    properties_of,
    push,
    reasons,
    with_channel,
)
from tests.servers import RabbitMQ, free_port
from tests.stack import ROOT
from tests.waiting import until

pytestmark = pytest.mark.live

VIEW = Exposure(0, 0, 0, 100, 1, 10**6, 0)


def order(lots: int = 1) -> RiskOrder:
    return RiskOrder(RICH, SYMBOL, "Buy", lots, 100, "a")


@pytest.fixture
async def url(rabbitmq_url: str) -> AsyncIterator[str]:
    """The session's RabbitMQ with empty queues of orders and of risk."""
    await delete(rabbitmq_url)
    await declare(rabbitmq_url)
    yield rabbitmq_url
    await delete(rabbitmq_url)


@asynccontextmanager
async def checking(url: str, **more: Any) -> AsyncIterator[RiskChecker]:
    """Run a checker, connected."""
    checker = RiskChecker(url, **more)
    checker.start()
    try:
        await until(lambda: checker._link.ready, 10, checker.fault)
        yield checker
    finally:
        await checker.close()


@asynccontextmanager
async def serving(url: str, limits: Limits | None = None) -> AsyncIterator[RiskService]:
    """Run the sample service, connected."""
    service = RiskService(url, limits or Limits())
    service.start()
    try:
        await until(lambda: service.ready, 10, service.fault)
        yield service
    finally:
        await service.close()


async def questions(url: str) -> list[DeliveredMessage]:
    """Return and take away what waits for a risk service."""
    return await dead_letters(url, REQUESTS)


# One question


async def test_a_service_approves_and_refuses(url: str) -> None:
    """By its limits, with its reason, under the question's id."""
    async with serving(url, Limits(position_lots_max=10)), checking(url) as checker:
        approved = await checker.check(order(10), VIEW)
        assert (approved.approved, approved.reason) == (True, "")
        refused = await checker.check(order(11), VIEW)
        assert (refused.approved, refused.reason) == (False, "position_limit")
        assert len({approved.request_id, refused.request_id}) == 2
        assert checker.counts == {"approved": 1, "refused": 1}
        assert checker.breaker_state == "closed", "a refusal is an answer"


async def test_many_questions_at_once_get_their_own_answers(url: str) -> None:
    """Five hundred under way, two services: each verdict belongs to its order."""
    async with serving(url, Limits(position_lots_max=250)), serving(url, Limits(position_lots_max=250)), checking(url) as checker:
        verdicts = await asyncio.gather(*[checker.check(order(lots), VIEW) for lots in range(1, 501)])
        assert [verdict.approved for verdict in verdicts] == [lots <= 250 for lots in range(1, 501)]
        assert len({verdict.request_id for verdict in verdicts}) == 500


async def test_the_question_says_all_and_does_not_outlive_its_asker(url: str) -> None:
    """Order, account, where to answer; it expires in the queue after the timeout."""
    async with checking(url, timeout_s=1.0) as checker:
        asking = asyncio.create_task(checker.check(order(3), VIEW))
        (message,) = await until(lambda: questions(url), 5)
        asked, properties = msgspec.json.decode(message.body), properties_of(message)
        assert asked["order"] == {"account": 1, "symbol": SYMBOL, "side": "Buy", "lots": 3, "priceTicks": 100, "clOrdID": "a"}
        assert asked["account"]["markTicks"] == 100
        assert asked["reply_to"] == properties["reply_to"] == RESPONSES
        assert asked["request_id"] == properties["correlation_id"]
        assert properties["expiration"] == "1000"
        verdict = await asking
        assert verdict == Verdict(False, "risk_check_timeout", asked["request_id"])
        await checker.check(order(), VIEW)
        await until(lambda: _is_empty(url, REQUESTS), 5, "the question has expired")


async def _is_empty(url: str, queue: str) -> bool:
    return await depth(url, queue) == 0


async def test_silence_ends_after_the_timeout_and_late_answers_are_ignored(url: str) -> None:
    """Not approved; what the service says afterwards is counted and changes nothing, also not for the next question."""
    async with checking(url, timeout_s=0.6) as checker:
        verdict = await checker.check(order(), VIEW)
        assert (verdict.approved, verdict.reason) == (False, "risk_check_timeout")
        await push(url, [json.dumps({"request_id": verdict.request_id, "approved": True}).encode()], queue=RESPONSES)
        await until(lambda: checker.counts["late"] == 1, 5)
        again = await checker.check(order(), VIEW)
        assert (again.approved, again.reason) == (False, "risk_check_timeout")
        assert again.request_id != verdict.request_id
        assert checker.counts == {"timeout": 2, "late": 1}


@pytest.mark.parametrize(
    "answer",
    [b"", b"yes", b"[]", b"{}", b'{"approved":1}', b'{"approved":"true"}', b'{"approved":null}', b'{"reason":"ok"}', b"\xff"],
)
async def test_an_answer_that_is_none_approves_nothing(url: str, answer: bytes) -> None:
    """Only a JSON object with `approved: true` does, and it must be the question's."""
    async with checking(url, timeout_s=1.0) as checker:
        asking = asyncio.create_task(checker.check(order(), VIEW))
        (message,) = await until(lambda: questions(url), 5)
        await push(url, [answer], queue=RESPONSES, correlation_id=properties_of(message)["correlation_id"])
        verdict = await asking
        assert (verdict.approved, verdict.reason) == (False, "risk_check_timeout")
        assert checker.counts == {"malformed": 1, "timeout": 1}


async def test_a_plain_service_may_answer_by_correlation_id_alone(url: str) -> None:
    """`request_id` in the body is optional when the AMQP property is there."""
    async with checking(url) as checker:
        asking = asyncio.create_task(checker.check(order(), VIEW))
        (message,) = await until(lambda: questions(url), 5)
        await push(
            url, [b'{"approved":true,"extra":1}'], queue=RESPONSES, correlation_id=properties_of(message)["correlation_id"]
        )
        assert (await asking).approved


# The breaker


async def test_the_breaker_opens_half_opens_and_closes(url: str) -> None:
    """Three silences open it: nobody is asked, nothing is approved. The probe's silence opens it again, its answer closes it."""
    async with checking(url, timeout_s=0.4, breaker=Breaker(failures_max=3, open_s=0.5)) as checker:
        for _ in range(3):
            assert (await checker.check(order(), VIEW)).reason == "risk_check_timeout"
        assert checker.breaker_state == "open"
        assert not checker.ready
        assert "does not answer" in checker.fault
        await questions(url)
        verdicts = await asyncio.gather(*[checker.check(order(), VIEW) for _ in range(10)])
        assert {(verdict.approved, verdict.reason) for verdict in verdicts} == {(False, "risk_unavailable")}
        assert await questions(url) == [], "while it is open nobody is asked"

        await until(lambda: checker.breaker_state == "half-open", 5)
        verdicts = await asyncio.gather(*[checker.check(order(), VIEW) for _ in range(10)])
        assert sorted(verdict.reason for verdict in verdicts) == ["risk_check_timeout", *["risk_unavailable"] * 9]
        assert checker.breaker_state == "open", "the probe failed"

        async with serving(url):
            await until(lambda: checker.breaker_state == "half-open", 5)
            assert (await checker.check(order(), VIEW)).approved
            assert checker.breaker_state == "closed"
            assert checker.ready
            assert all(verdict.approved for verdict in await asyncio.gather(*[checker.check(order(), VIEW) for _ in range(10)]))


async def test_without_a_broker_nothing_is_approved_and_service_resumes(rabbitmq_server: RabbitMQ) -> None:
    """RabbitMQ away: an immediate refusal, no exception; RabbitMQ back: verdicts again, by the same service and checker."""
    url = rabbitmq_server.url
    await delete(url)
    async with serving(url), checking(url, timeout_s=1, breaker=Breaker(failures_max=3, open_s=0.2)) as checker:
        assert (await checker.check(order(), VIEW)).approved
        await asyncio.to_thread(rabbitmq_server.stop)
        await until(lambda: not checker.ready, 10)
        for _ in range(5):
            assert (await checker.check(order(), VIEW)).reason == "risk_unavailable"
        await asyncio.to_thread(rabbitmq_server.start)

        async def approved() -> bool:
            return (await checker.check(order(), VIEW)).approved

        await until(approved, 20, "verdicts again")


# Orders that have to pass it


async def test_refused_orders_are_dead_letters_and_their_senders_know_why(url: str, tmp_path: Path) -> None:
    """In the journal is only what was approved; cancels and amends to less pass without a question."""
    async with (
        serving(url, Limits(position_lots_max=10)),
        checking(url) as checker,
        desk(url, tmp_path / "j", checker) as (sequencer, _, client),
    ):
        assert (await client.ask(place("a", orderQty=8)))["ordStatus"] == "New"
        told = await client.ask(place("b", orderQty=3))
        assert (told["status"], told["code"]) == (422, "RiskRejected")
        assert "position_limit (request " in told["detail"]
        grown = await client.ask({"type": "amend", "account": RICH, "clOrdID": "a", "orderQty": 11})
        assert grown["code"] == "RiskRejected"
        asked = sum(checker.counts.values())
        less = await client.ask({"type": "amend", "account": RICH, "clOrdID": "a", "orderQty": 7})
        assert less["orderQty"] == 7
        assert (await client.ask({"type": "cancel", "account": RICH, "clOrdID": "a"}))["ordStatus"] == "Canceled"
        assert sum(checker.counts.values()) == asked == 3
        assert question(sequencer.state, cm.CancelAll(RICH)) is None
    assert accepted(tmp_path / "j") == ["a"]
    assert reasons(await dead_letters(url)) == ["RiskRejected", "RiskRejected"]


async def test_many_orders_at_once_do_not_get_past_a_limit_together(url: str, tmp_path: Path) -> None:
    """Two hundred orders of 1 lot in one go against a limit of 10 lots an account: ten each of two accounts are accepted."""
    async with (
        serving(url, Limits(position_lots_max=10)),
        checking(url) as checker,
        desk(url, tmp_path / "j", checker) as (_, queue, _),
    ):
        await push(url, [place(f"o{n}", account=CROWD[n % 2]) for n in range(200)])
        await until(lambda: queue.counts["done"] + queue.counts["RiskRejected"] == 200, 20, str(queue.counts))
    assert accepted(tmp_path / "j") == [f"o{n}" for n in range(20)], "the first ones, in order"
    assert await depth(url, DEAD) == 180


async def test_orders_keep_their_order_through_risk(url: str, tmp_path: Path) -> None:
    """Orders, amends and cancels of each in a row, five hundred in all: as sent."""
    messages: list[dict[str, Any]] = []
    for n in range(150):
        name = {"account": RICH, "clOrdID": f"o{n}"}
        messages += [place(f"o{n}"), {"type": "amend", "price": 41} | name, {"type": "cancel"} | name]
    async with serving(url), checking(url) as checker, desk(url, tmp_path / "j", checker) as (sequencer, queue, _):
        await push(url, messages)
        await until(lambda: queue.counts["done"] == 450, 30, str(queue.counts))
        assert not sequencer.state.orders
        assert checker.counts == {"approved": 300}
    assert accepted(tmp_path / "j") == [f"o{n}" for n in range(150)]


async def test_a_silent_service_stops_orders_not_cancels(url: str, tmp_path: Path) -> None:
    """Fail closed: orders are refused at once while the breaker is open; what takes risk back goes through; then flow again."""
    sequencer = await exchange(tmp_path / "j")
    await sequencer.submit(cm.PlaceOrder(RICH, SYMBOL, "resting", 0, 1, 80))
    async with (
        checking(url, timeout_s=0.4, breaker=Breaker(failures_max=2, open_s=1.0)) as checker,
        desk(url, tmp_path / "j", checker, sequencer=sequencer) as (_, _, client),
    ):
        for name in ("a", "b"):
            assert "risk_check_timeout" in (await client.ask(place(name)))["detail"]
        assert "risk_unavailable" in (await client.ask(place("c")))["detail"]
        assert (await client.ask({"type": "cancel", "account": RICH, "clOrdID": "resting"}))["ordStatus"] == "Canceled"
        async with serving(url):
            await until(lambda: checker.breaker_state == "half-open", 5)
            assert (await client.ask(place("d")))["ordStatus"] == "New"
    assert accepted(tmp_path / "j") == ["resting", "d"]
    assert reasons(await dead_letters(url)) == ["RiskRejected"] * 3


async def test_orders_that_come_again_pass_risk_again(url: str, tmp_path: Path) -> None:
    """What another engine had when it died is handled alone, and not without a verdict."""

    async def take_and_die(channel: Any) -> None:
        for _ in range(3):
            await channel.basic_get(ORDERS)

    await push(url, [place("a", orderQty=8), place("b", orderQty=3), place("c", orderQty=2)])
    await with_channel(url, take_and_die)
    limits = Limits(position_lots_max=10)
    async with serving(url, limits), checking(url) as checker, desk(url, tmp_path / "j", checker) as (_, queue, _):
        await until(lambda: queue.counts["done"] + queue.counts["RiskRejected"] == 3, 10, str(queue.counts))
        assert queue.counts == {"retried": 3, "done": 2, "RiskRejected": 1}
    assert accepted(tmp_path / "j") == ["a", "c"]


# The service


async def test_the_service_answers_what_it_cannot_read_with_a_refusal(url: str) -> None:
    """And goes on; without a place to answer to it only takes the message away."""
    async with serving(url, Limits()), checking(url, responses="risk-responses.test") as checker:
        await push(url, [b"nonsense", b"{}", b'{"request_id":1}'], queue=REQUESTS)
        await push(url, [b"nonsense"], queue=REQUESTS, reply_to="answers.test", correlation_id="c7")
        await push(url, [b"nonsense"], queue=REQUESTS, reply_to="amq.rabbitmq.reply-to.broken")
        await with_channel(url, lambda channel: channel.queue_declare("answers.test"))
        await push(url, [b"nonsense"], queue=REQUESTS, reply_to="answers.test", correlation_id="c8")
        (answer,) = await until(lambda: dead_letters(url, "answers.test"), 10)
        assert msgspec.json.decode(answer.body) == {"approved": False, "reason": "malformed_request", "request_id": "c8"}
        await until(lambda: _approves(checker), 10, "verdicts go on")
    await delete(url, ["answers.test", "risk-responses.test"])


async def _approves(checker: RiskChecker) -> bool:
    return (await checker.check(order(), VIEW)).approved


async def test_the_service_as_a_process(url: str, tmp_path: Path) -> None:
    """Settings from the environment, health and metrics on its admin port, an end on SIGTERM."""
    port = free_port()
    settings = {"ENGINE_ORDERS_URL": url, "RISK_POSITION_LOTS_MAX": "5", "RISK_ADMIN_PORT": str(port), "RUN_DIR": str(tmp_path)}
    code = "from engine.risk.service import RiskSettings, run; from service.run import main; from service.settings import load; "
    code += "main('risk', lambda shutdown: run(load(RiskSettings), shutdown))"
    with (tmp_path / "risk.log").open("wb") as out:
        argv, environment = [sys.executable, "-c", code], {**os.environ, **settings}
        process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, env=environment, stdout=out, stderr=out)
    try:
        async with checking(url) as checker, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(ready, 10)
            assert [(await checker.check(order(lots), VIEW)).approved for lots in (5, 6)] == [True, False]
            assert (await http.get("/readyz")).status_code == 200
            assert 'tapeline_risk_answers_total{reason="position_limit"} 1.0' in (await http.get("/metrics")).text
    finally:
        process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() == 0


def test_settings_of_the_service_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that is none and limits below zero are said in one line."""
    monkeypatch.setenv("ENGINE_ORDERS_URL", "http://x")
    monkeypatch.setenv("RISK_BAND_PPM", "-1")
    with pytest.raises(OperatorError, match=r"ENGINE_ORDERS_URL.*RISK_BAND_PPM"):
        load(RiskSettings)
    assert QUEUE_ARGUMENTS["x-max-length"] == 10_000
