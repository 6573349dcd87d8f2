"""Carries batches through RabbitMQ (3.10 to 4.x): confirms, single active consumers, its own reconnect.

The loss of a connection is seen at once: pending confirmations fail, subscriptions end, the publisher republishes and the
consumer restores. That is why the connection is aio-pika's plain one; its robust objects would hide the loss.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field

import aiormq
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity, PublishError
from pamqp.commands import Basic
from pamqp.common import FieldTable

from mdq.batch import Batch
from mdq.broker import BrokerUnavailable, Depth, OnDelivery, OnMalformed
from mdq.rabbit_calls import (
    CLOSE_S,
    broker_errors,
    close_channel,
    close_connection,
    in_time,
    message_channel,
    reason_of,
    refusal_of_declare,
    topology_channel,
)
from mdq.rabbit_nodes import Nodes
from mdq.rabbit_subscription import RabbitSubscription
from mdq.topology import EXCHANGE, Queue, QueueType
from service.errors import OperatorError
from service.run import backoff_s
from service.tasks import Tasks

HEARTBEAT_S = 5  # both sides; the node gives up a client that is silent for two of them, the client a node after three
CONFIRM_S = 10.0  # a node that confirms nothing for so long is treated as gone
# RabbitMQ 3.10 forgets what is published to a quorum queue that has no leader yet (a node was lost, replicas elect for a fraction
# of a second): that batch is never confirmed, nor those behind it. A new connection sends them again; under an alarm, which looks
# alike, it would not help, so the bound doubles each time.
YOUNG_S = 5.0  # after the opening of a connection
YOUNG_CONFIRM_S = 1.5
SLOW_S = 2.0  # not ready: confirmations are that late (memory or disk alarm, hung node)
SURVEY_CHANNELS = 4  # ask side by side: a channel has one call under way at a time
LASTED_S = 2.0  # a connection that ended sooner was none: something ends every one, and must not do so all the time
RECONNECT_S_MAX = 1.0  # well below the TTL: what is kept meanwhile must still be worth something

log = structlog.get_logger()


@dataclass(eq=False)
class _Link:
    """One AMQP connection from its opening to its loss."""

    connection: AbstractConnection
    publishing: aiormq.Channel  # as long as the connection lives
    pending: dict[asyncio.Future[None], float] = field(default_factory=dict)  # unconfirmed → since (monotonic s), in order
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    subscriptions: set[RabbitSubscription] = field(default_factory=set)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    opened_s: float = field(default_factory=time.monotonic)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` in the background; the loop alone would not keep it."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def confirm_age_s(self) -> float:
        """Return how long the oldest unconfirmed batch has waited."""
        for since in self.pending.values():
            return time.monotonic() - since
        return 0.0

    def unconfirmed(self, young_s: float) -> bool:
        """Whether it confirms no more: nothing for 10 s, or for `young_s` of what was published soon after its opening."""
        age_s = self.confirm_age_s()
        return age_s > CONFIRM_S or (age_s > young_s and time.monotonic() - age_s < self.opened_s + YOUNG_S)


class RabbitBroker:
    """One connection to RabbitMQ that comes back by itself and declares its topology again."""

    def __init__(self, url: str, name: str, heartbeat_s: int = HEARTBEAT_S, queue_type: QueueType = "classic") -> None:
        self.name = name
        self._nodes = Nodes(url, name, heartbeat_s)
        self._queue_type = queue_type
        self._link: _Link | None = None
        self._queues: dict[str, Queue] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._fault = "not connected yet"
        self._message = 0
        self._mending = False
        self._endings = Tasks("rabbitmq connections")
        self._young_s = YOUNG_CONFIRM_S if queue_type == "quorum" else CONFIRM_S
        # Every loss is logged here in one line; aiormq would add tracebacks for each.
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)

    @property
    def ready(self) -> bool:
        return self._link is not None and self._link.confirm_age_s() < SLOW_S

    @property
    def fault(self) -> str:
        if self._link is None:
            return self._fault
        late_s = self._link.confirm_age_s()
        return f"RabbitMQ has not confirmed for {late_s:.0f} s" if late_s >= SLOW_S else ""

    async def connect(self) -> None:
        if self._link is None:
            await self._open()
        if self._keeper is None:
            self._keeper = Tasks("rabbitmq").start("keeper", self._keep_connected())

    async def declare(self, queues: Sequence[Queue]) -> None:
        await self._declare_on(self._require(), queues)
        self._queues.update((queue.name, queue) for queue in queues)

    def publish(self, batch: Batch) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        link = self._link
        if link is None:
            future.set_exception(BrokerUnavailable(self._fault))
            return future
        link.pending[future] = time.monotonic()
        future.add_done_callback(link.pending.pop)
        link.spawn(self._publish(link, batch, future))  # tasks start, and lock the channel, in this order
        return future

    async def subscribe(
        self, queues: Sequence[Queue], on_delivery: OnDelivery, on_malformed: OnMalformed, prefetch: int
    ) -> RabbitSubscription:
        if new := [queue for queue in queues if self._queues.get(queue.name) != queue]:
            await self.declare(new)
        link = self._require()
        subscription = RabbitSubscription(on_delivery, on_malformed)
        opening = asyncio.create_task(subscription.open(link.connection, queues, prefetch))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # A call that is cut in the middle leaves a channel that the node sends to and nobody reads: it ends on its own.
            subscription.end()
            link.spawn(_give_back(opening, subscription))
            raise
        link.subscriptions = {known for known in link.subscriptions if known.live} | {subscription}
        if self._link is not link:
            subscription.end()
        return subscription

    async def depths(self, queues: Sequence[Queue]) -> dict[str, int]:
        return {name: found.batches for name, found in (await self.survey(queues)).items()}

    async def survey(self, queues: Sequence[Queue]) -> dict[str, Depth]:
        link = self._require()
        parts = [queues[first::SURVEY_CHANNELS] for first in range(SURVEY_CHANNELS)]
        found = await asyncio.gather(*(self._survey(link, part) for part in parts if part))
        return {name: depth for part in found for name, depth in part.items()}

    async def _survey(self, link: _Link, queues: Sequence[Queue]) -> dict[str, Depth]:
        found: dict[str, Depth] = {}
        channel: AbstractChannel | None = None
        with broker_errors():
            for queue in queues:
                if channel is None or channel.is_closed:
                    channel = await topology_channel(link.connection)
                try:
                    known = await in_time(channel.declare_queue(queue.name, passive=True))
                    said = known.declaration_result
                    found[queue.name] = Depth(said.message_count or 0, said.consumer_count or 0)
                except ChannelNotFoundEntity:  # AMQP closes the channel for that
                    found[queue.name] = Depth()
            if channel is not None:
                await close_channel(channel)
        return found

    async def purge(self, queue: Queue) -> int:
        link = self._require()
        with broker_errors():
            channel = await topology_channel(link.connection)
            try:
                known = await in_time(channel.declare_queue(queue.name, passive=True))
                done = await in_time(known.purge())
            except ChannelNotFoundEntity:
                return 0
            await close_channel(channel)
        return int(done.message_count or 0)

    async def delete(self, queue: Queue) -> int:
        """Delete a queue with what is in it; return how many batches that were.  Raises: BrokerUnavailable."""
        link = self._require()
        with broker_errors():
            channel = await topology_channel(link.connection)
            done = await in_time(channel.queue_delete(queue.name))
            await close_channel(channel)
        return int(done.message_count or 0)

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        await self._endings.close()
        link = self._link
        if link is None:
            return
        if link.pending:
            await asyncio.wait(list(link.pending), timeout=CLOSE_S)
        self._drop(link, "closed")
        await _end(link)

    # --- one connection

    async def _open(self) -> None:
        connection = await self._nodes.connect()
        try:
            with broker_errors():
                link = _Link(connection, await message_channel(connection, confirms=True))
            await self._declare_on(link, list(self._queues.values()))
        except BaseException:
            await close_connection(connection)
            raise
        link.publishing.closing.add_done_callback(lambda future: self._drop(link, _reason(future)))
        self._link = link
        if link.publishing.is_closed:
            self._drop(link, "closed while opening")
            raise ConnectionError("the connection was closed while opening")

    def _drop(self, link: _Link, reason: str) -> None:
        """Let go of a lost connection: everything that waits on it fails now."""
        if link.lost.is_set():
            return
        link.reason = reason
        link.lost.set()
        if self._link is link:
            self._link = None
            self._fault = f"RabbitMQ at {self._nodes.place} is away: {reason}"
        for future in list(link.pending):
            _fail(future, BrokerUnavailable(self._fault))
        for subscription in link.subscriptions:
            subscription.end()

    async def _keep_connected(self) -> None:
        brief = 0  # connections in a row that did not last
        while True:
            link, opened_s = self._link, time.monotonic()
            if link is not None:
                await self._watch(link)
                log.warning("broker_lost", broker=self._nodes.place, reason=link.reason)
                self._endings.start("end a lost connection", _end(link), ends=True)  # a hung one takes 2 s: nobody waits for it
                brief = brief + 1 if time.monotonic() - opened_s < LASTED_S else 0
            await self._reconnect(max(0, brief - 1))

    async def _watch(self, link: _Link) -> None:
        while not link.lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(1.0, self._young_s / 3)):
                    await link.lost.wait()
            if link.unconfirmed(self._young_s):
                self._young_s = min(CONFIRM_S, 2 * self._young_s)
                self._drop(link, f"nothing confirmed for {link.confirm_age_s():.1f} s")
            elif self._queue_type == "quorum" and time.monotonic() > link.opened_s + YOUNG_S + CONFIRM_S:
                self._young_s = YOUNG_CONFIRM_S

    async def _reconnect(self, brief: int) -> None:
        attempt = 0
        while self._link is None:
            await asyncio.sleep(backoff_s(attempt + brief, random.random(), most_s=RECONNECT_S_MAX))
            attempt += 1
            try:
                await self._open()
                log.info("broker_reconnected", broker=self._nodes.place, attempts=attempt)
            except (OSError, OperatorError) as error:
                # A refusal too may pass (a node that is still loading its users), and nobody restarts us for it.
                self._fault = f"RabbitMQ at {self._nodes.place} is away: {reason_of(error)}"
                if attempt & (attempt - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a long outage must not fill the log
                    log.warning("broker_reconnect_failed", broker=self._nodes.place, attempt=attempt, error=reason_of(error))

    async def _declare_on(self, link: _Link, queues: Sequence[Queue]) -> None:
        if not queues:
            return
        with broker_errors():
            channel = await topology_channel(link.connection)
            with _refusals(None):
                await in_time(channel.declare_exchange(EXCHANGE, "direct", durable=True))
            for queue in queues:
                arguments: FieldTable = {**queue.arguments(self._queue_type)}
                with _refusals(queue):
                    declared = await in_time(channel.declare_queue(queue.name, durable=True, arguments=arguments))
                    await in_time(declared.bind(EXCHANGE, queue.key))
            await close_channel(channel)

    # --- publishing

    async def _publish(self, link: _Link, batch: Batch, future: asyncio.Future[None]) -> None:
        self._message += 1
        properties = Basic.Properties(
            delivery_mode=1,  # not persistent: it is worth nothing after its TTL, and a disk would set the pace
            content_type="application/json",
            headers=batch.headers(),
            message_id=str(self._message),
        )
        name = f"md.{batch.stream}.{batch.partition}"
        try:
            await link.publishing.basic_publish(
                batch.body, exchange=EXCHANGE, routing_key=name, properties=properties, mandatory=True, wait=False
            )
        except PublishError:
            _fail(future, BrokerUnavailable(f"queue {name} is not declared"))
            self._mend(link)
        except (Exception, asyncio.CancelledError) as error:  # aiormq cancels what waits on a lost connection
            _fail(future, BrokerUnavailable(f"RabbitMQ: {reason_of(error)}"))
        else:
            if not future.done():
                future.set_result(None)

    def _mend(self, link: _Link) -> None:
        """Declare the topology again: somebody has deleted a queue that we publish to."""
        if self._mending or not self._queues:
            return
        self._mending = True
        link.spawn(self._declare_again(link))

    async def _declare_again(self, link: _Link) -> None:
        try:
            await self._declare_on(link, list(self._queues.values()))
            log.warning("broker_topology_restored", broker=self._nodes.place, queues=len(self._queues))
        except (OperatorError, OSError) as error:
            log.error("broker_topology_lost", broker=self._nodes.place, error=str(error))
        finally:
            self._mending = False

    def _require(self) -> _Link:
        if self._link is None:
            raise BrokerUnavailable(self._fault)
        return self._link


async def _end(link: _Link) -> None:
    """Close a connection that is given up, and end what still waits on it."""
    with contextlib.suppress(asyncio.CancelledError):  # aiormq cancels what waits on a connection that is lost meanwhile
        await close_connection(link.connection)
    for task in list(link.tasks):
        task.cancel()


async def _give_back(opening: asyncio.Task[None], subscription: RabbitSubscription) -> None:
    """Close a subscription that nobody wants any more, once its last call is answered."""
    await asyncio.wait({opening})
    await subscription.close()
    if not opening.cancelled():
        opening.exception()  # whoever asked for it has left


@contextlib.contextmanager
def _refusals(queue: Queue | None) -> Iterator[None]:
    try:
        yield
    except AMQPError as error:
        if refusal := refusal_of_declare(error, queue):
            raise refusal from None
        raise


def _fail(future: asyncio.Future[None], error: BrokerUnavailable) -> None:
    if not future.done():
        future.set_exception(error)


def _reason(closing: asyncio.Future[None]) -> str:
    return "cancelled" if closing.cancelled() else reason_of(closing.exception())
