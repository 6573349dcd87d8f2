"""Subscribes to sharded channels of a Redis Cluster: one connection a node, one stream of messages.

Invariant: messages of a channel come without a gap between its `subscribe` and its `lost`. `lost` says that some may be missing
from there on: the connection broke, the slot has another node by now, a node took the subscription back. Lost channels are
subscribed again by themselves, as often as it takes; a new `subscribe` says that it is done. Channels of other nodes go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import MovedError, RedisError

from service.keyspace import slot_of

RETRY_S = 0.2
LOOK_S = 1.0  # a node that froze is noticed when another one serves its slots
WAITING_MAX = 1_000  # messages that nobody has taken; then no more is read, and the node cuts us off when its bound is full
TAKE_S = 1.0
LOST = (RedisError, OSError, TimeoutError)
MOVED = "the cluster has moved what we read to another node"


class _Line:
    """The pub/sub connection to one node."""

    def __init__(self, address: Any, pubsub: Any) -> None:
        self.address = address
        self.pubsub = pubsub
        self.asked: Counter[str] = Counter()  # subscriptions that it has not confirmed yet
        self.left: Counter[str] = Counter()  # channels that we have left ourselves, and no answer to it yet
        self.sending = asyncio.Lock()  # redis-py would open two connections for two who send at once
        self.reading: asyncio.Task[None] | None = None


class ShardedPubSub:
    """As a redis.asyncio PubSub: `subscribe`, `unsubscribe`, `get_message`; its messages are called as theirs are.

    There is one more, `{"type": "lost", "channels": […], "data": why}`. A `subscribe` has `last`: nothing that was asked of the
    channel is unanswered.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lines: dict[Any, _Line] = {}  # by address
        self._channels: dict[str, _Line] = {}
        self._missing: dict[str, None] = {}  # asked for, on no node now
        self._retrying: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._waiting: asyncio.Queue[tuple[_Line | None, Any]] = asyncio.Queue()  # `_room` bounds it
        self._room = asyncio.Event()
        self._room.set()
        self._looked: tuple[int, float] = (-1, 0.0)

    async def subscribe(self, *channels: str) -> None:
        """Subscribe to channels, each on the node that serves its slot; while that one does not answer they are lost."""
        for channel in channels:
            if self._among_the_missing(channel):
                self._lose([channel], ConnectionLost("its node does not answer"))
                continue
            try:
                await self._subscribe(channel)
            except LOST as error:
                self._lose([channel], error)

    async def unsubscribe(self, *channels: str) -> None:
        """Take subscriptions back."""
        for channel in channels:
            self._missing.pop(channel, None)
            line = self._channels.pop(channel, None)
            if line is None:
                continue
            line.left[channel] += 1
            try:
                async with line.sending:
                    await line.pubsub.sunsubscribe(channel)
            except LOST as error:
                self._break(line, error)

    async def get_message(self, timeout: float) -> dict[str, Any] | None:  # as redis-py calls it
        """Return the next message, None when none comes in time.  Raises: ConnectionError when no node of the cluster answers."""
        self._look()
        found = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while found is None:
                    found = self._passed(*await self._waiting.get())
                    if self._waiting.qsize() < WAITING_MAX:
                        self._room.set()
        if isinstance(found, BaseException):
            raise found
        return found

    async def aclose(self) -> None:
        """Close all connections."""
        lines, self._lines = list(self._lines.values()), {}
        tasks = (*(line.reading for line in lines), self._looking, self._retrying, *self._closing)
        ending = [task for task in tasks if task is not None]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending, timeout=1.0)
        for line in lines:
            with contextlib.suppress(*LOST):
                await line.pubsub.aclose()
        self._channels.clear()
        self._missing.clear()

    async def _subscribe(self, channel: str, again: bool = False) -> None:
        address = await self._client.address_of(channel)
        if again and channel not in self._missing:
            return  # nobody wants it any more
        line = self._lines.get(address)
        if line is None:
            line = self._lines[address] = _Line(address, self._client.node(address).pubsub())
        self._channels[channel] = line
        line.asked[channel] += 1
        try:
            async with line.sending:
                await line.pubsub.ssubscribe(channel)
        except LOST as error:
            self._break(line, error)
            return
        self._missing.pop(channel, None)
        if line.reading is None and self._lines.get(address) is line:
            line.reading = asyncio.create_task(self._read(line), name=f"read {address}")

    def _passed(self, line: _Line | None, message: Any) -> Any:
        """Return a message that still means something: not one of a connection that its channel has left."""
        if line is None:
            return message
        channel = message["channel"].decode()
        if self._channels.get(channel) is not line:
            return None
        if message["type"] == "ssubscribe":
            return message | {"type": "subscribe", "last": True} if not line.asked[channel] else None
        return message | {"type": "message"}

    def _among_the_missing(self, channel: str) -> bool:
        """Return whether the node of a channel is one that does not answer: then nobody waits for it once more."""
        if not self._missing:
            return False
        node_of = self._client.topology.node_of
        address = node_of(slot_of(channel))
        return address not in self._lines and any(node_of(slot_of(other)) == address for other in self._missing)

    # What is lost, and found again

    def _lose(self, channels: Iterable[str], error: BaseException) -> None:
        lost = list(channels)
        for channel in lost:
            self._channels.pop(channel, None)
            self._missing[channel] = None
        if lost:
            self._waiting.put_nowait((None, {"type": "lost", "channels": lost, "data": str(error) or type(error).__name__}))
        if self._missing and (self._retrying is None or self._retrying.done()):
            self._retrying = asyncio.create_task(self._retry(), name="subscribe again")

    def _break(self, line: _Line, error: BaseException) -> None:
        """Give a connection up, and lose what was read on it."""
        if self._lines.get(line.address) is not line:
            return
        del self._lines[line.address]
        closing = asyncio.create_task(self._close(line), name=f"close {line.address}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._lose([channel for channel, its in self._channels.items() if its is line], error)

    async def _close(self, line: _Line) -> None:
        if line.reading is not None:
            line.reading.cancel()
            await asyncio.wait([line.reading], timeout=1.0)
        with contextlib.suppress(*LOST):
            await line.pubsub.aclose()

    async def _retry(self) -> None:
        try:
            await self._find_missing()
        except Exception as error:  # a defect: who reads begins anew
            self._waiting.put_nowait((None, ConnectionLost(f"cannot subscribe again: {error!r}")))

    async def _find_missing(self) -> None:
        while self._missing:
            await asyncio.sleep(RETRY_S)
            await self._client.look()
            if not self._lines and not self._client.answers:
                self._waiting.put_nowait((None, ConnectionLost("no node of the cluster answers")))
            for channel in list(self._missing):
                if channel in self._missing and channel not in self._channels:
                    with contextlib.suppress(*LOST):
                        await self._subscribe(channel, again=True)

    def _look(self) -> None:
        """See now and then whether each channel is still where its slot is."""
        loop, topology = asyncio.get_running_loop(), self._client.topology
        version, at_s = self._looked
        if loop.time() - at_s > LOOK_S:
            self._looking = asyncio.create_task(self._client.look(), name="cluster look")  # messages do not wait for it
            at_s = loop.time()
        self._looked = (topology.version, at_s)
        if version == topology.version:
            return
        for line in list(self._lines.values()):
            mine = [channel for channel, its in self._channels.items() if its is line]
            moved = [channel for channel in mine if topology.node_of(slot_of(channel)) not in (line.address, None)]
            if moved and moved == mine:
                self._break(line, ConnectionLost(MOVED))
            elif moved:
                self._lose(moved, ConnectionLost(MOVED))

    async def _read(self, line: _Line) -> None:
        try:
            while True:
                try:
                    message = await line.pubsub.get_message(timeout=TAKE_S)
                except MovedError as moved:  # the answer to a subscription: the others on this node are not touched
                    self._refused(line, moved.slot_id)
                    continue
                if message is not None:
                    await self._take(line, message)
        except Exception as error:  # one of LOST, or a defect: what is not read any more is lost all the same
            self._break(line, error)

    def _refused(self, line: _Line, slot: int) -> None:
        for channel in [channel for channel in line.asked if slot_of(channel) == slot]:
            del line.asked[channel]
            if self._channels.get(channel) is line:
                self._lose([channel], ConnectionLost(MOVED))

    async def _take(self, line: _Line, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind not in ("smessage", "ssubscribe", "sunsubscribe"):
            return
        channel = message["channel"].decode()
        if kind == "sunsubscribe":
            if line.left[channel] > 0:
                line.left[channel] -= 1
            elif self._channels.get(channel) is line:
                self._lose([channel], ConnectionLost(MOVED))
            return
        if kind == "ssubscribe":
            line.asked[channel] -= 1
        if self._waiting.qsize() >= WAITING_MAX:
            self._room.clear()
            await self._room.wait()
        self._waiting.put_nowait((line, message))
