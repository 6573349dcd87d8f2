"""Serves RabbitMQ inside the simulation: the memory broker behind links, and the client that a process holds of it.

Invariant: a client learns of a confirmation, a delivery or a lost connection only by what arrives over its link; what it holds
unacknowledged is redelivered when the server has noticed that it is gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from mdq.batch import Batch
from mdq.broker import BrokerUnavailable, Delivery, OnDelivery, OnMalformed
from mdq.broker_memory import Hub, MemoryBroker, MemorySubscription, hub
from mdq.topology import Queue
from service.run import backoff_s
from tests.sim.links import End, Network
from tests.sim.loop import Process

# As mdq/broker_rabbit.py has them.
HEARTBEAT_S = 5.0
MISSED_MAX = 3  # heartbeats, at the client
SERVER_MISSED_MAX = 2  # RabbitMQ gives up earlier
CALL_S = 10.0
CONFIRM_S = 10.0
SLOW_S = 2.0
RECONNECT_S_MAX = 1.0


class QueueServer:
    """The server `queues`."""

    def __init__(self, process: Process, network: Network, name: str) -> None:
        self.process = process
        self.listening = True
        self.url = f"memory://{name}"
        self.hub: Hub = hub(name)
        self.hub.clock = process.clock
        self._network = network
        self.epochs: dict[str, set[str]] = {}  # source → of its batches so far
        self._sessions: list[_Session] = []

    def accept(self, end: End) -> None:
        self._sessions = [session for session in self._sessions if session.end.alive]
        self._sessions.append(_Session(self, end))

    def stop(self) -> None:
        """Go away as a node does: connections are lost, and the messages, which are not persistent."""
        self.listening = False
        self.drop_connections()
        self.hub.stop()

    def start(self) -> None:
        self.hub.start()
        self.listening = True

    def drop_connections(self) -> None:
        """Close every connection; messages stay."""
        for link in self._network.of_server("queues"):
            link.hang_up("server")
        for session in self._sessions:
            session.end_now()
        self._sessions.clear()


class _Session:
    """One connection at the server; its requests are carried out one after the other."""

    def __init__(self, server: QueueServer, end: End) -> None:
        self.end = end
        self._process = server.process
        self._epochs = server.epochs
        self._broker = MemoryBroker(server.url, "")
        self._subscriptions: dict[int, MemorySubscription] = {}
        self._inbox: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self._heard_s = 0.0
        self._heartbeat_s = HEARTBEAT_S
        end.on_message = self._inbox.put_nowait
        end.on_lost = lambda _: self.end_now()
        self._tasks = [asyncio.create_task(self._serve()), asyncio.create_task(self._listen())]

    def end_now(self) -> None:
        """Give back what the client held."""
        self.end.close()
        for task in self._tasks:
            task.cancel()
        self._process.start(self._broker.close())

    async def _serve(self) -> None:
        await self._broker.connect()
        while True:
            what, number, *arguments = await self._inbox.get()
            self._heard_s = asyncio.get_running_loop().time()
            try:
                await getattr(self, f"_{what}")(*arguments)
            except ConnectionError as error:
                self.end.send(("refused", number, str(error)))
            else:
                if number:
                    self.end.send(("done", number))

    async def _listen(self) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - self._heard_s < SERVER_MISSED_MAX * self._heartbeat_s:
            await asyncio.sleep(self._heartbeat_s / 2)
            self.end.send(("beat", 0))
        self.end_now()

    async def _tune(self, heartbeat_s: float) -> None:
        self._heartbeat_s = heartbeat_s

    async def _beat(self) -> None:
        """The client lives."""

    async def _publish(self, batch: Batch) -> None:
        self._epochs.setdefault(batch.source, set()).add(batch.epoch)
        await self._broker.publish(batch)

    async def _declare(self, queues: Sequence[Queue]) -> None:
        await self._broker.declare(queues)

    async def _subscribe(self, name: int, queues: Sequence[Queue], prefetch: int) -> None:
        def deliver(delivery: Delivery) -> None:
            self.end.send(("deliver", name, delivery))

        self._subscriptions[name] = await self._broker.subscribe(queues, deliver, lambda *_: None, prefetch)

    async def _ack(self, name: int, tag: int) -> None:
        await self._subscriptions[name].ack(tag)

    async def _pause(self, name: int) -> None:
        await self._subscriptions[name].pause()

    async def _close(self, name: int) -> None:
        subscription = self._subscriptions.pop(name, None)
        if subscription is not None:
            await subscription.close()


class RemoteBroker:
    """A process's connection to the queues, with the manners of the RabbitMQ client: it reconnects and confirms by itself."""

    def __init__(self, network: Network, name: str, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.name = name
        self._heartbeat_s = heartbeat_s
        self._network = network
        self._end: End | None = None
        self._fault = "not connected yet"
        self._queues: dict[str, Queue] = {}
        self._numbers = 0
        self._waiting: dict[int, tuple[asyncio.Future[None], float]] = {}
        self._subscriptions: dict[int, RemoteSubscription] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._heard_s = 0.0

    @property
    def ready(self) -> bool:
        return self._end is not None and self._late_s() < SLOW_S

    @property
    def fault(self) -> str:
        return "" if self.ready else self._fault

    def _late_s(self) -> float:
        for _, since_s in self._waiting.values():
            return _now() - since_s
        return 0.0

    async def connect(self) -> None:
        if self._end is None:
            await self._open()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connected())

    async def declare(self, queues: Sequence[Queue]) -> None:
        await self._call("declare", list(queues))
        self._queues.update((queue.name, queue) for queue in queues)

    def publish(self, batch: Batch) -> asyncio.Future[None]:
        return self._ask("publish", batch)

    async def subscribe(
        self, queues: Sequence[Queue], on_delivery: OnDelivery, on_malformed: OnMalformed, prefetch: int
    ) -> RemoteSubscription:
        if new := [queue for queue in queues if self._queues.get(queue.name) != queue]:
            await self.declare(new)
        self._numbers += 1
        made = RemoteSubscription(self, self._numbers, on_delivery)
        self._subscriptions[made.name] = made
        try:
            await self._call("subscribe", made.name, list(queues), prefetch)
        except BaseException:
            await made.close()
            raise
        return made

    async def depths(self, queues: Sequence[Queue]) -> dict[str, int]:
        raise NotImplementedError("no component asks for depths")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        if self._waiting:
            await asyncio.wait([future for future, _ in self._waiting.values()], timeout=2.0)
        if self._end is not None:
            self._end.close()
            self._lost(None)

    def tell(self, what: str, *arguments: Any) -> None:
        """Send what needs no answer."""
        if self._end is not None:
            self._end.send((what, 0, *arguments))

    async def _call(self, what: str, *arguments: Any) -> None:
        if self._end is None:
            raise BrokerUnavailable(self._fault)
        try:
            async with asyncio.timeout(CALL_S):
                await self._ask(what, *arguments)
        except TimeoutError as error:
            raise BrokerUnavailable("no answer in time") from error

    def _ask(self, what: str, *arguments: Any) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._end is None:
            future.set_exception(BrokerUnavailable(self._fault))
            return future
        self._numbers += 1
        self._waiting[self._numbers] = (future, _now())
        self._end.send((what, self._numbers, *arguments))
        return future

    async def _open(self) -> None:
        async with asyncio.timeout(CALL_S):
            end = await self._network.open_end("queues")
        end.on_message = self._take
        end.on_lost = self._lost
        self._end = end
        self._heard_s = _now()
        self.tell("tune", self._heartbeat_s)
        if self._queues:
            await self._call("declare", list(self._queues.values()))

    def _take(self, message: tuple[Any, ...]) -> None:
        self._heard_s = _now()
        what, number, *rest = message
        if what == "deliver":
            subscription = self._subscriptions.get(number)
            if subscription is not None:
                subscription.take(rest[0])
        elif number in self._waiting:
            future, _ = self._waiting.pop(number)
            if future.done():
                return
            if what == "done":
                future.set_result(None)
            else:
                future.set_exception(BrokerUnavailable(rest[0]))

    def _lost(self, fault: Exception | None) -> None:
        self._end = None
        self._fault = f"connection lost: {fault}"
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(BrokerUnavailable(self._fault))
        for subscription in self._subscriptions.values():
            subscription.live = False
        self._subscriptions.clear()

    async def _keep_connected(self) -> None:
        beat_s = 0.0
        while True:
            if self._end is None:
                await self._reconnect()
            elif self._late_s() > CONFIRM_S or _now() - self._heard_s > MISSED_MAX * self._heartbeat_s:
                self._end.close()
                self._lost(TimeoutError("silent"))
            elif _now() - beat_s >= self._heartbeat_s / 2:
                beat_s = _now()
                self.tell("beat")
            await asyncio.sleep(min(0.5, self._heartbeat_s / 4))

    async def _reconnect(self) -> None:
        attempt = 0
        while self._end is None:
            await asyncio.sleep(backoff_s(attempt, random.random(), most_s=RECONNECT_S_MAX))
            attempt += 1
            try:
                await self._open()
            except OSError as error:
                self._fault = str(error)


class RemoteSubscription:
    """What a consumer holds of the queues it reads."""

    def __init__(self, broker: RemoteBroker, name: int, on_delivery: OnDelivery) -> None:
        self.name = name
        self.live = True
        self._broker = broker
        self._on_delivery = on_delivery
        self._acked = 0

    def take(self, delivery: Delivery) -> None:
        if self.live:
            self._on_delivery(delivery)

    async def ack(self, tag: int) -> None:
        if not self.live:
            raise BrokerUnavailable("the subscription has ended; what it held is redelivered")
        if tag > self._acked:
            self._acked = tag
            self._broker.tell("ack", self.name, tag)

    async def pause(self) -> None:
        if self.live:
            await self._broker._call("pause", self.name)

    async def close(self) -> None:
        self.live = False
        if self._broker._subscriptions.pop(self.name, None) is not None:
            self._broker.tell("close", self.name)


def _now() -> float:
    return asyncio.get_running_loop().time()
