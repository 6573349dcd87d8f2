"""The order queue on a real RabbitMQ: what is executed, acknowledged, answered, repeated, held back and buried."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pamqp.encode
import pytest

from engine.core import commands as cm
from engine.journal.sequencer import EngineBusy, EngineUnavailable
from engine.orders.client import OrdersClient
from engine.orders.consumer import OrdersQueue
from engine.orders.topology import DEAD, EXPIRED, ORDERS, RETRY
from tests.engine.orders.ground import (
    POOR,
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
    places,
    properties_of,
    push,
    reasons,
    with_channel,
)
from tests.engine.orders.test_message import MALFORMED
from tests.waiting import until

pytestmark = pytest.mark.live


@pytest.fixture
async def url(rabbitmq_url: str) -> AsyncIterator[str]:
    """The session's RabbitMQ with empty queues of orders."""
    await delete(rabbitmq_url)
    await declare(rabbitmq_url)
    yield rabbitmq_url
    await delete(rabbitmq_url)


def full(*_: object) -> int:
    """The disk's answer to whoever wants something written for good."""
    raise OSError(errno.ENOSPC, "No space left on device")


async def settled(queue: OrdersQueue, messages: int, seconds: float = 20) -> None:
    """Wait until so many messages have ended."""
    ends = ("done", "repeated", "Malformed", "Expired", "Poisoned", "RiskRejected", "Overflow", "Rejected")
    await until(lambda: sum(queue.counts[end] for end in ends) >= messages, seconds, f"{messages} messages ended: {queue.counts}")


# The ordinary way


async def test_orders_are_executed_in_order_and_acknowledged(url: str, tmp_path: Path) -> None:
    """A thousand orders: in the journal in the order of sending, each once, none left in any queue."""
    names = [f"o{n}" for n in range(1_000)]
    async with desk(url, tmp_path / "j") as (_, queue, _):
        await push(url, [place(name) for name in names])
        await settled(queue, 1_000)
    assert accepted(tmp_path / "j") == names
    assert queue.counts == {"done": 1_000}
    assert [await depth(url, name) for name in (ORDERS, RETRY, EXPIRED, DEAD)] == [0, 0, 0, 0]


async def test_senders_are_answered(url: str, tmp_path: Path) -> None:
    """An order, a refusal by the rules (journaled, not buried), an amend, a cancel."""
    async with desk(url, tmp_path / "j") as (_, _, client):
        told = await client.ask(place("a", orderQty=5))
        assert (told["messageIndex"], told["orderId"], told["clOrdID"], told["ordStatus"]) == (14, "14", "a", "New")
        poor = await client.ask(place("b", account=POOR, orderQty=10_000))
        assert (poor["messageIndex"], poor["status"], poor["code"]) == (15, 422, "InsufficientMargin")
        amended = await client.ask({"type": "amend", "account": RICH, "clOrdID": "a", "price": "41.5", "orderQty": 2})
        assert (amended["messageIndex"], amended["leavesQty"]) == (16, 2)
        assert (await client.ask({"type": "cancelAll", "account": RICH}))["canceled"] == ["14"]
        assert (await client.ask({"type": "cancel", "account": RICH, "clOrdID": "a"}))["code"] == "UnknownOrder"
    assert await depth(url, DEAD) == 0


async def test_an_amend_right_behind_its_order_finds_it(url: str, tmp_path: Path) -> None:
    """The price of an amend needs the order's contract: it waits for what was submitted before it, and for nothing else."""
    messages: list[dict[str, Any]] = []
    for n in range(50):
        messages += [place(f"o{n}"), {"type": "amend", "account": RICH, "clOrdID": f"o{n}", "price": 41}]
    async with desk(url, tmp_path / "j") as (sequencer, queue, _):
        await push(url, messages)
        await settled(queue, 100)
        assert [order.price_ticks for order in sequencer.state.orders.values()] == [82] * 50


async def test_answers_to_nowhere_do_no_harm(url: str, tmp_path: Path) -> None:
    """Queues that are not there, broken names of RabbitMQ's own, the order queue itself: the next order is executed."""
    async with desk(url, tmp_path / "j") as (_, queue, client):
        for n, nowhere in enumerate(
            ("gone", "amq.rabbitmq.reply-to.g1h2.x==", "amq.rabbitmq.reply-to.", "amq.default", "x" * 255)
        ):
            await push(url, [place(f"o{n}")], reply_to=nowhere, correlation_id="c")
        assert (await _ask_again(client, place("last")))["ordStatus"] == "New"
        await push(url, [place("loop")], reply_to=ORDERS)
        assert (await _ask_again(client, place("after")))["ordStatus"] == "New"
        assert set(queue.counts) <= {"done"}
    assert accepted(tmp_path / "j") == ["o0", "o1", "o2", "o3", "o4", "last", "loop", "after"]


async def test_high_priority_overtakes_what_is_still_in_the_queue(url: str, tmp_path: Path) -> None:
    """What the engine holds already (its prefetch) is not reordered any more; behind that, priority 9 comes before 5 before 0."""
    await push(url, [place(f"low{n}") for n in range(200)])
    sequencer = await exchange(tmp_path / "j")
    queue = OrdersQueue(url, sequencer, prefetch=20)
    stalled = asyncio.Event()
    submit = sequencer.submit

    def once_stalled(command: cm.Command, *more: Any) -> Any:
        """Keep the prefetched orders waiting until the urgent ones are in the queue."""
        if stalled.is_set():
            return submit(command, *more)
        raise EngineBusy("stalled by the test")

    sequencer.submit = once_stalled  # type: ignore[method-assign]
    queue.start()
    await until(lambda: len(queue._inbox) == 20, 10, "the prefetch is full")
    await push(url, [place(f"mid{n}") for n in range(10)], priority=5)
    await push(url, [place(f"high{n}") for n in range(10)], priority=9)
    stalled.set()
    await settled(queue, 220)
    await queue.close()
    await sequencer.close()
    low = [f"low{n}" for n in range(200)]
    urgent = [*(f"high{n}" for n in range(10)), *(f"mid{n}" for n in range(10))]
    assert accepted(tmp_path / "j") == [*low[:20], *urgent, *low[20:]]


# The engine does not take orders


async def test_a_full_sequencer_holds_orders_back_without_losing_their_order(url: str, tmp_path: Path) -> None:
    """Three commands fit at a time: five hundred orders are executed in order all the same."""
    sequencer = await exchange(tmp_path / "j", queue_max=3)
    async with desk(url, tmp_path / "j", sequencer=sequencer) as (_, queue, _):
        await push(url, [place(f"o{n}") for n in range(500)])
        await settled(queue, 500)
        assert queue.counts["held"] > 0
    assert accepted(tmp_path / "j") == [f"o{n}" for n in range(500)]


async def test_a_refusing_disk_keeps_orders_unacknowledged(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is acknowledged that the journal has not; with room on the disk everything is executed, once, in order."""
    async with desk(url, tmp_path / "j") as (sequencer, queue, client):
        await client.ask(place("before"))

        with monkeypatch.context() as disk:
            disk.setattr(os, "fdatasync", full)
            await push(url, [place(f"o{n}") for n in range(300)])
            await until(lambda: not queue.ready and len(queue._unacked) == 300, 10, "the orders are held")
            assert "No space left" in queue.fault
            assert queue.counts["done"] == 1
        await until(lambda: queue.counts["done"] == 301, 20, "the orders are executed")
        assert queue.ready
        assert not sequencer.refusal
    assert accepted(tmp_path / "j") == ["before", *(f"o{n}" for n in range(300))]


async def test_a_reconnect_while_the_disk_refuses_loses_no_order(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes again is not found in the state that is about to be rolled back: nobody is told of what the disk did not take."""
    async with desk(url, tmp_path / "j") as (sequencer, queue, client):
        await client.ask(place("before"))

        with monkeypatch.context() as disk:
            disk.setattr(os, "fdatasync", full)
            await push(url, places(200))
            await until(lambda: not queue.ready and len(queue._unacked) == 200, 10, "the orders are held")
            with pytest.raises(EngineUnavailable, match="No space left"):
                _ = sequencer.state
            for _ in range(3):
                held = list(queue._unacked)
                queue._wire.lose("the cable is cut")
                await until(
                    lambda held=held: len(queue._unacked) == 200 and queue._unacked[0] is not held[0], 20, "they come again"
                )
                await asyncio.sleep(0.3)  # time to do the wrong thing
            assert queue.counts["repeated"] == 0
        await until(lambda: depth_of(queue) == 0, 60, f"everything is settled: {queue.counts}")
    assert sorted(accepted(tmp_path / "j")) == sorted(["before", *(f"o{n}" for n in range(200))])
    assert await depth(url) == 0


def depth_of(queue: OrdersQueue) -> int:
    return len(queue._unacked) + (not queue.ready)


async def test_what_was_not_acknowledged_stays_in_the_queue(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that ends while its disk refuses leaves every order where it was; the next one executes them in order."""
    monkeypatch.setattr("engine.orders.consumer.DRAIN_S_MAX", 0.2)
    names = [f"o{n}" for n in range(100)]

    with monkeypatch.context() as disk:
        async with desk(url, tmp_path / "j") as (_, queue, _):
            disk.setattr(os, "fdatasync", full)
            await push(url, [place(name) for name in names])
            await until(lambda: len(queue._unacked) == 100 and not queue.ready, 10, "the orders are held")
    await until(lambda: depth(url), 10, "back in the queue")
    assert await depth(url) == 100
    async with desk(url, tmp_path / "j") as (_, queue, _):
        await settled(queue, 100, 60)
        assert not queue.counts["Poisoned"]
    assert accepted(tmp_path / "j") == names


async def test_a_closing_queue_finishes_what_it_holds(url: str, tmp_path: Path) -> None:
    """Nothing that was delivered goes back: the next engine has no reason to suspect it."""
    await push(url, places(2_000))
    async with desk(url, tmp_path / "j") as (_, queue, _):
        await until(lambda: queue.counts["done"] > 0, 10)
    left = await depth(url)
    assert queue.counts["done"] + left == 2_000
    assert len(accepted(tmp_path / "j")) == queue.counts["done"]
    first = (await dead_letters(url, ORDERS))[:1]
    assert not any(message.redelivered for message in first)


# What is not executed


async def test_malformed_messages_are_buried_whole_and_the_rest_goes_on(url: str, tmp_path: Path) -> None:
    """Each body untouched among the dead letters, with reason and detail; every good order in between is executed."""
    bodies: list[bytes | dict[str, Any]] = []
    for n, body in enumerate(MALFORMED):
        bodies += [body, place(f"o{n}")]
    bodies += [place("misaligned", price=40.25), place("nothing", price=0)]
    async with desk(url, tmp_path / "j") as (_, queue, _):
        await push(url, bodies, message_id="m", correlation_id="c", headers={"own": "kept"}, priority=1)
        await settled(queue, len(bodies))
    found = await dead_letters(url)
    assert sorted(message.body for message in found[:-2]) == sorted(MALFORMED)
    assert all(b"price" in message.body for message in found[-2:])
    assert set(reasons(found)) == {"Malformed"}
    for message in found:
        kept = properties_of(message)
        headers = kept.pop("headers")
        assert headers.pop("own") == "kept"
        assert set(headers) == {"x-reason", "x-detail", "x-at"}
        assert headers["x-detail"]
        assert kept == {"message_id": "m", "correlation_id": "c", "priority": 1, "delivery_mode": 2}
    assert accepted(tmp_path / "j") == [f"o{n}" for n in range(len(MALFORMED))]


async def test_the_sender_of_a_malformed_message_is_told(url: str, tmp_path: Path) -> None:
    """A problem with the code and the field."""
    async with desk(url, tmp_path / "j") as (_, _, client):
        told = await client.ask(place("a", orderQty="3"))
        assert (told["status"], told["code"]) == (400, "Malformed")
        assert "orderQty" in told["detail"]


async def test_expired_orders_have_one_form_whoever_found_them(url: str, tmp_path: Path) -> None:
    """By `expiresAt`, by RabbitMQ's time to live while no engine was there, by the same after it was handed over."""
    past_ms = int(time.time() * 1000) - 1
    await push(url, [place("own", expiresAt=past_ms), place("iso", expiresAt="2020-01-01T00:00:00Z")])
    await push(url, [place("broker")], expiration="1", message_id="m", headers={"own": 1})
    await push(url, [place("late")], expiration="60000", timestamp=datetime(2020, 1, 1, tzinfo=UTC))
    await push(url, [place("good", expiresAt=past_ms + 600_000)], expiration="600000", timestamp=datetime.now(UTC))
    await push(url, [place("unknown end")], timestamp=datetime(2020, 1, 1, tzinfo=UTC))
    async with desk(url, tmp_path / "j") as (_, queue, _):
        await settled(queue, 6)
    found = {msgspec.json.decode(message.body)["clOrdID"]: message for message in await dead_letters(url)}
    assert set(found) == {"own", "iso", "broker", "late"}
    assert reasons(found.values()) == ["Expired"] * 4
    broker = properties_of(found["broker"])
    assert broker["headers"]["own"] == 1
    assert "after 1 ms" in broker["headers"]["x-detail"]
    assert "expiration" not in broker
    assert accepted(tmp_path / "j") == ["good", "unknown end"]
    assert await depth(url, EXPIRED) == 0


async def test_the_sender_of_an_expired_order_is_told(url: str, tmp_path: Path) -> None:
    """By the engine, also when it was RabbitMQ that took it out."""
    async with desk(url, tmp_path / "j") as (_, _, client):
        told = await client.ask(place("a", expiresAt=1))
        assert (told["status"], told["code"]) == (422, "Expired")
    async with OrdersClient(url) as client:
        asking = asyncio.create_task(client.ask(place("b"), time_to_live_ms=1))
        await until(lambda: depth(url, EXPIRED), 10, "taken out by the broker")
        async with desk(url, tmp_path / "j"):
            assert (await asking)["code"] == "Expired"


async def test_an_order_that_expired_after_it_was_executed_is_no_dead_letter(url: str, tmp_path: Path) -> None:
    """A crash before the acknowledgement puts it back, where its time to live ends: the state has it, and says so."""
    async with desk(url, tmp_path / "j") as (_, queue, client):
        await client.ask(place("a"))
        await push(url, [place("a")], queue=EXPIRED)
        await until(lambda: queue.counts["repeated"] == 1, 10)
    assert await depth(url, DEAD) == 0


@pytest.mark.parametrize("fault", ["time in ns", "Latin-1"])
async def test_properties_that_cannot_be_read_do_not_stop_the_queue(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The client library would end the connection over them, for ever; here the message is buried and the next executed."""
    with monkeypatch.context() as sender:
        if fault == "time in ns":
            sender.setitem(pamqp.encode.METHODS, "timestamp", lambda _: (1_795_227_409 * 10**9).to_bytes(8, "big"))
            await push(url, [place("bad")], timestamp=datetime.now(UTC))
        else:
            sender.setitem(pamqp.encode.METHODS, "shortstr", lambda value: bytes([len(value)]) + value.encode("latin-1"))
            await push(url, [place("bad")], app_id="Börse")
    await push(url, [place("good")])
    async with desk(url, tmp_path / "j") as (_, queue, _):
        await settled(queue, 2)
        assert queue.counts == {"done": 1, "Malformed": 1}
    (found,) = await dead_letters(url)
    assert "properties cannot be read" in properties_of(found)["headers"]["x-detail"]
    assert msgspec.json.decode(found.body)["clOrdID"] == "bad"


# What fails, and what comes again


async def test_a_message_that_fails_three_times_is_buried(url: str, tmp_path: Path) -> None:
    """A defect met with one order costs three attempts at that order; all others are executed, each once."""
    sequencer = await exchange(tmp_path / "j")
    submit, attempts = sequencer.submit, []

    def failing(command: cm.Command, *more: Any) -> Any:
        if isinstance(command, cm.PlaceOrder) and command.cl_ord_id == "poison":
            attempts.append(command)
            raise RuntimeError("a defect")
        return submit(command, *more)

    sequencer.submit = failing  # type: ignore[method-assign]
    async with desk(url, tmp_path / "j", sequencer=sequencer) as (_, queue, client):
        await push(url, [place(f"o{n}") for n in range(100)] + [place("poison")] + [place(f"p{n}") for n in range(100)])
        await settled(queue, 201)
        assert (await client.ask(place("poison")))["code"] == "Poisoned"
        await client.ask(place("last"))
    assert len(attempts) == 6
    found = await dead_letters(url)
    assert reasons(found) == ["Poisoned", "Poisoned"]
    headers = properties_of(found[0])["headers"]
    assert headers["x-attempts"] == 3
    assert "a defect" in headers["x-detail"]
    assert accepted(tmp_path / "j") == [*(f"o{n}" for n in range(100)), *(f"p{n}" for n in range(100)), "last"]
    assert await depth(url, RETRY) == 0


async def test_a_message_that_fails_once_is_executed_at_the_second_attempt(url: str, tmp_path: Path) -> None:
    """One failure is no poison; its sender waits a little longer."""
    sequencer = await exchange(tmp_path / "j")
    submit, failures = sequencer.submit, [RuntimeError("once")]

    def failing(command: cm.Command, *more: Any) -> Any:
        if isinstance(command, cm.PlaceOrder) and failures:
            raise failures.pop()
        return submit(command, *more)

    sequencer.submit = failing  # type: ignore[method-assign]
    async with desk(url, tmp_path / "j", sequencer=sequencer) as (_, queue, client):
        assert (await client.ask(place("a")))["ordStatus"] == "New"
        assert queue.counts == {"retried": 1, "done": 1}
    assert accepted(tmp_path / "j") == ["a"]


async def test_over_a_lost_connection_nothing_is_done_twice(url: str, tmp_path: Path) -> None:
    """Ten losses in mid-stream: every order once; amends and cancels, known by their message ids, once as well."""
    async with desk(url, tmp_path / "j", prefetch=50) as (sequencer, queue, client):
        submitted: list[cm.Command] = []
        submit = sequencer.submit
        sequencer.submit = lambda command, *more: submitted.append(command) or submit(command, *more)  # type: ignore[method-assign, func-returns-value]
        sending = [asyncio.create_task(client.send(message)) for n in range(500) for message in _life(n)]
        for loss in range(1, 11):
            await until(lambda loss=loss: len(submitted) > loss * 120 and queue._link.ready, 20)
            queue._wire.lose("by the test")
        await asyncio.gather(*sending)
        await settled(queue, 1_500)
        await until(lambda: not queue._unacked, 10)
    names = accepted(tmp_path / "j")
    assert sorted(names) == sorted(f"o{n}" for n in range(500))
    amends = [command for command in submitted if isinstance(command, cm.AmendOrder)]
    assert len(amends) == len({command.cl_ord_id for command in amends}) == 500
    assert await depth(url) == await depth(url, DEAD) == await depth(url, RETRY) == 0


def _life(n: int) -> list[dict[str, Any]]:
    """Return an order, its amend and its cancel."""
    name = {"account": RICH, "clOrdID": f"o{n}"}
    return [place(f"o{n}"), {"type": "amend", "orderQty": 2, "price": 41} | name, {"type": "cancel"} | name]


async def test_the_same_message_published_twice_is_done_once(url: str, tmp_path: Path) -> None:
    """A publisher that got no confirmation sends it again: same message id, same outcome, also for what is no order."""
    async with desk(url, tmp_path / "j") as (sequencer, queue, client):
        await client.ask(place("a", orderQty=9))
        for quantity in (8, 7, 8):
            amend = {"type": "amend", "account": RICH, "clOrdID": "a", "orderQty": quantity}
            await client.send(amend, message_id=f"amend to {quantity}")
        await settled(queue, 4)
        assert sequencer.state.orders[14].size_lots == 7
        assert queue.counts["known"] == 1


async def test_what_another_process_had_is_handled_alone_and_in_order(url: str, tmp_path: Path) -> None:
    """Orders that come again without being known may have killed their engine: counted in a copy first, then one by one."""

    async def take_and_die(channel: Any) -> None:
        for _ in range(20):
            await channel.basic_get(ORDERS)

    await push(url, [place(f"o{n}") for n in range(30)], message_id="m")
    await with_channel(url, take_and_die)
    async with desk(url, tmp_path / "j") as (_, queue, client):
        await settled(queue, 30)
        assert queue.counts["retried"] == 20
        assert queue.counts["done"] == 30
        await client.ask(place("last"))
    assert accepted(tmp_path / "j") == [*(f"o{n}" for n in range(30)), "last"]


async def test_what_the_state_has_already_counts_as_done(url: str, tmp_path: Path) -> None:
    """An order whose engine died between the journal and the acknowledgement is answered, not executed, and no poison."""

    async def take_and_die(channel: Any) -> None:
        await channel.basic_get(ORDERS)
        await channel.basic_get(ORDERS)

    sequencer = await exchange(tmp_path / "j")
    await sequencer.submit(cm.PlaceOrder(RICH, SYMBOL, "open", 0, 1, 80))
    await sequencer.submit(cm.PlaceOrder(RICH, SYMBOL, "closed", 0, 1, 80))
    await sequencer.submit(cm.CancelOrder(RICH, "closed"))
    await push(url, [place("open"), place("closed")], reply_to="answers")
    await with_channel(url, lambda channel: channel.queue_declare("answers"))
    await with_channel(url, take_and_die)
    async with desk(url, tmp_path / "j", sequencer=sequencer) as (_, queue, _):
        await settled(queue, 2)
        assert queue.counts == {"repeated": 2}
        await until(lambda: depth(url, "answers"), 10)
    told = [msgspec.json.decode(message.body) for message in await dead_letters(url, "answers")]
    assert [(answer["orderId"], answer["ordStatus"]) for answer in told] == [("4", "New"), ("5", None)]
    assert accepted(tmp_path / "j") == ["open", "closed"]
    await delete(url, ["answers"])


async def test_one_engine_reads_the_others_wait(url: str, tmp_path: Path) -> None:
    """Two engines on one queue: the second gets its first order when the first has gone; no order goes to both."""
    first, second = [OrdersQueue(url, await exchange(tmp_path / name)) for name in ("j", "k")]
    for queue in (first, second):
        queue.start()
        await until(lambda queue=queue: queue.ready, 10, queue.fault)
    await push(url, [place(f"o{n}") for n in range(100)])
    await settled(first, 100)
    assert not second.counts
    await first.close()
    await push(url, [place("late")])
    await settled(second, 1)
    await second.close()
    assert accepted(tmp_path / "j") == [f"o{n}" for n in range(100)]
    assert accepted(tmp_path / "k") == ["late"]


# The broker's side


async def test_a_queue_with_other_arguments_is_said_so_and_mended(url: str, tmp_path: Path) -> None:
    """The fault names the queue and the way out; once it is deleted, orders flow without a restart."""
    await delete(url, [ORDERS])
    await with_channel(url, lambda channel: channel.queue_declare(ORDERS, durable=True))
    sequencer = await exchange(tmp_path / "j")
    queue = OrdersQueue(url, sequencer)
    queue.start()
    await until(lambda: "other arguments" in queue.fault, 10, queue.fault)
    assert not queue.ready
    assert ORDERS in queue.fault
    await delete(url, [ORDERS])
    await until(lambda: queue.ready, 10, queue.fault)
    async with OrdersClient(url) as client:
        assert (await client.ask(place("a")))["ordStatus"] == "New"
    await queue.close()
    await sequencer.close()


@pytest.mark.parametrize("name", [ORDERS, DEAD, RETRY])
async def test_a_deleted_queue_is_made_again(url: str, tmp_path: Path, name: str) -> None:
    """Somebody deletes it while the engine runs; orders and dead letters have a place again soon."""
    async with desk(url, tmp_path / "j") as (_, queue, client):
        await client.ask(place("a"))
        await delete(url, [name])
        async with asyncio.timeout(20):
            told = await _ask_again(client, b"nonsense")
        assert told["code"] == "Malformed"
        assert (await _ask_again(client, place("b")))["ordStatus"] == "New"
        await until(lambda: queue.ready, 10)
    assert accepted(tmp_path / "j")[-1] == "b"


async def _ask_again(client: OrdersClient, body: Any) -> dict[str, Any]:
    """Ask until there is an answer: what was in a deleted queue is gone."""
    while True:
        try:
            told = await client.ask(body, timeout_s=1)
        except TimeoutError:
            continue
        if told.get("code") != "DuplicateClOrdID":
            return told
        return told | {"ordStatus": "New"}


async def test_a_refused_password_is_a_fault_with_its_mending(rabbitmq_url: str, tmp_path: Path) -> None:
    """In the engine's own words: the variable that holds it, not the password."""
    sequencer = await exchange(tmp_path / "j")
    queue = OrdersQueue(rabbitmq_url.replace("guest:guest@", "guest:s3cret@"), sequencer)
    queue.start()
    await until(lambda: "refused the credentials" in queue.fault, 10, queue.fault)
    assert "ENGINE_ORDERS_URL" in queue.fault
    assert "s3cret" not in queue.fault
    await queue.close()
    await sequencer.close()
