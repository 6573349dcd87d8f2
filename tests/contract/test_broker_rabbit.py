"""What only RabbitMQ can do to us: refuse, hang, raise an alarm, hold what is no batch, lose a queue."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import aiormq
import pytest

from mdq.broker_memory import MemoryBroker
from mdq.connect import open_broker
from mdq.topology import QueueType
from service.errors import OperatorError
from tests.contract.broker_ground import TRADES, Reader, batch, publish
from tests.servers import RabbitMQ, free_port
from tests.waiting import until

# A consumer in a process of its own, so that it can be frozen.
CONSUMER = """
import asyncio, sys
from mdq.connect import open_broker
from mdq.topology import queue

async def consume():
    broker = open_broker(sys.argv[1], "to be frozen", heartbeat_s=1)
    await broker.connect()
    await broker.subscribe([queue("trades", 0)], lambda _: print("got", flush=True), lambda *_: None, 16)
    print("reading", flush=True)
    await asyncio.Event().wait()

asyncio.run(consume())
"""


def refused(url: str) -> Any:
    return pytest.raises(OperatorError), open_broker(url, "contract test")


@pytest.mark.live
async def test_a_wrong_password_is_said_so(rabbitmq_server: RabbitMQ) -> None:
    """Refused credentials are the operator's matter: one line, the user named, the password not."""
    raises, broker = refused(rabbitmq_server.url_of(password="s3cret"))
    with raises as raised:
        await broker.connect()
    assert "refused the credentials of user 'guest'" in str(raised.value)
    assert "MDQ_URL" in raised.value.fix
    assert "s3cret" not in str(raised.value)


@pytest.mark.live
async def test_a_missing_vhost_is_said_so(rabbitmq_server: RabbitMQ) -> None:
    """A vhost that is not there is named together with the command that makes it."""
    raises, broker = refused(rabbitmq_server.url_of(vhost="nowhere"))
    with raises as raised:
        await broker.connect()
    assert "/nowhere refused the vhost" in str(raised.value)
    assert "add_vhost" in raised.value.fix


@pytest.mark.live
async def test_tls_to_a_plain_port_is_said_so(rabbitmq_server: RabbitMQ) -> None:
    """`amqps` to a port without TLS does not look like a network that may come back."""
    raises, broker = refused(rabbitmq_server.url.replace("amqp:", "amqps:"))
    with raises as raised:
        await broker.connect()
    assert "TLS" in str(raised.value)


async def test_nobody_listening_is_worth_waiting_for() -> None:
    """A broker that is not up yet is an OSError, which start-up retries."""
    with pytest.raises(OSError, match="Connect call failed"):
        await open_broker(f"amqp://127.0.0.1:{free_port()}/", "contract test").connect()
    stopped = MemoryBroker("memory://stopped")
    stopped.hub.stop()
    with pytest.raises(OSError, match="stopped"):
        await stopped.connect()


@pytest.mark.live
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_message_that_is_no_batch_is_set_aside(mdq_url: str, queue_type: QueueType) -> None:
    """What somebody else put into a queue goes to `on_malformed`, is acknowledged, and the next batch arrives."""
    broker = open_broker(mdq_url, "contract test", queue_type=queue_type)
    await broker.connect()
    reader = await Reader().read(broker, prefetch=1)
    connection = await aiormq.connect(mdq_url)
    channel = await connection.channel()
    await channel.basic_publish(b"rubbish", exchange="md", routing_key=TRADES.name)
    await publish(broker, [0])
    await until(lambda: reader.got)
    assert [body for body, _ in reader.malformed] == [b"rubbish"]
    assert "source" in reader.malformed[0][1]
    await reader.ack(reader.got[0].tag)
    await connection.close()
    await broker.close()


@pytest.mark.live
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_deleted_queue_is_declared_again(mdq_url: str, queue_type: QueueType) -> None:
    """When somebody deletes a queue its reader learns it, and the next batch refused for it brings it back."""
    broker = open_broker(mdq_url, "contract test", queue_type=queue_type)
    await broker.connect()
    await broker.declare([TRADES])
    reader = await Reader().read(broker)
    connection = await aiormq.connect(mdq_url)
    await (await connection.channel()).queue_delete(TRADES.name)
    subscription = reader.subscription
    assert subscription is not None
    await until(lambda: not subscription.live, what="reader learnt it")

    async def arrives() -> bool:
        outcome = await asyncio.gather(broker.publish(batch(0)), return_exceptions=True)
        return outcome[0] is None

    await until(arrives, what="queue declared again")
    assert broker.ready
    await connection.close()
    await broker.close()


@pytest.mark.live
async def test_a_hung_node_is_not_ready(rabbitmq_server: RabbitMQ, emptied_server: RabbitMQ) -> None:
    """A node that takes batches and confirms none shows as not ready within seconds, and as ready when it runs again."""
    broker = open_broker(rabbitmq_server.url, "contract test")
    await broker.connect()
    await broker.declare([TRADES])
    rabbitmq_server.freeze()
    try:
        pending = broker.publish(batch(0))
        await until(lambda: not broker.ready, 5)
        assert "not confirmed" in broker.fault
        assert not pending.done()
    finally:
        rabbitmq_server.thaw()
    async with asyncio.timeout(5):
        await pending
    assert broker.ready
    await broker.close()


@pytest.mark.live
async def test_a_memory_alarm_holds_batches_back(emptied_server: RabbitMQ) -> None:
    """A node without memory takes nothing more: the broker shows as not ready, and afterwards everything arrives in order."""
    broker, other = open_broker(emptied_server.url, "publisher"), open_broker(emptied_server.url, "consumer")
    await broker.connect()
    await other.connect()
    reader = await Reader().read(other)
    await publish(broker, [0])
    await asyncio.to_thread(emptied_server.control, "set_vm_memory_high_watermark", "0.000001")
    try:
        pending = [broker.publish(batch(seq)) for seq in range(1, 5)]
        await until(lambda: not broker.ready)
    finally:
        await asyncio.to_thread(emptied_server.control, "set_vm_memory_high_watermark", "0.4")
    async with asyncio.timeout(10):
        await asyncio.gather(*pending)
    await until(lambda: reader.seqs == [0, 1, 2, 3, 4])
    assert broker.ready
    await broker.close()
    await other.close()


@pytest.mark.live
async def test_a_frozen_consumer_loses_its_queue(mdq_url: str) -> None:
    """A process that is stopped without closing its sockets, with a heartbeat of 1 s, is replaced by its standby within 10 s (some 4 s on a quiet machine)."""
    pipe = asyncio.subprocess.PIPE
    frozen = await asyncio.create_subprocess_exec(sys.executable, "-c", CONSUMER, mdq_url, stdout=pipe)
    broker = open_broker(mdq_url, "standby")
    await broker.connect()
    try:
        async with asyncio.timeout(20):
            assert frozen.stdout is not None
            assert await frozen.stdout.readline() == b"reading\n"
            standby = await Reader().read(broker)
            await publish(broker, [0])
            assert await frozen.stdout.readline() == b"got\n"
        frozen.send_signal(signal.SIGSTOP)
        await publish(broker, [1])
        await until(lambda: len(standby.got) == 2, 10)
    finally:
        frozen.kill()
        await frozen.wait()
    assert standby.seqs == [0, 1]
    assert standby.got[0].redelivered
    await standby.close()
    await broker.close()
