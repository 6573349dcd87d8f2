"""Lets operators see the dead letters of the order queue, give one back to it, or discard one, over the admin port.

Invariant: what is given back is confirmed in the order queue before it leaves the dead letters; looking changes nothing: messages
are fetched without being acknowledged, and return to their places when the channel closes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import aiormq
import msgspec
from aiormq.abc import DeliveredMessage
from litestar import delete, get, post
from litestar.exceptions import HTTPException, NotFoundException
from litestar.params import FromPath, QueryParameter
from litestar.types import ControllerRouterHandler
from pamqp.commands import Basic

from engine.orders.message import AT, ATTEMPTS, DETAIL, KEY, REASON
from engine.orders.requeued import Requeued
from engine.orders.topology import BOUND, DEAD, DEAD_EXCHANGE, ORDERS, QUEUES
from engine.risk.rules import URL_SETTING
from mdq.broker import BrokerUnavailable
from mdq.rabbit_calls import broker_errors, in_time
from mdq.rabbit_link import Wire, publish, survive_bad_properties, text
from mdq.rabbit_nodes import Nodes
from service.admin import require_admin
from service.errors import OperatorError

CALL_S_MAX = 4.0  # of one look or change: whoever asks waits for it
SEEN_MAX = 1000  # dead letters, from the oldest on, that can be seen and given back one by one
BODY_SHOWN_MAX = 16_384
OURS = (REASON, DETAIL, AT, ATTEMPTS, KEY, "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason")
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=SEEN_MAX, description="how many, from the oldest on")]


class DeadLetters:
    """The queue `engine.orders.dlq`. One call at a time: two would hide each other's messages."""

    def __init__(self, url: str, requeued: Requeued) -> None:
        self._nodes = Nodes(url, "tapeline-engine-recall", setting=URL_SETTING)
        self._requeued = requeued
        self._turn = asyncio.Lock()

    async def list(self, limit: int) -> dict[str, Any]:
        """Return `{letters, total}`, the oldest first.  Raises: HTTPException 503."""
        async with self._open() as channel:
            letters = [described(message) async for message in _messages(channel, limit)]
            return {"letters": letters, "total": await _depth(channel)}

    async def requeue(self, letter: str) -> dict[str, Any]:
        """Put one back into the order queue, as a new message of an operator's.  Raises: HTTPException 404, 503."""
        async with self._open() as channel:
            message = await _find(channel, letter)
            properties = self._properties(message)
            await publish(channel, message.body, properties, ORDERS)
            await in_time(channel.basic_ack(_tag(message)))
            return described(message)

    async def discard(self, letter: str) -> dict[str, Any]:
        """Forget one.  Raises: HTTPException 404, 503."""
        async with self._open() as channel:
            message = await _find(channel, letter)
            await in_time(channel.basic_ack(_tag(message)))
            return described(message)

    async def discard_all(self) -> dict[str, int]:
        """Forget all.  Raises: HTTPException 503."""
        async with self._open() as channel:
            done = await in_time(channel.queue_purge(DEAD))
            return {"discarded": int(done.message_count or 0)}

    def _properties(self, message: DeliveredMessage) -> Basic.Properties:
        before = message.header.properties
        headers = {name: value for name, value in (before.headers or {}).items() if name not in OURS}
        return Basic.Properties(
            content_type="application/json", headers={**headers, KEY: self._requeued.key(message.body)}, delivery_mode=2,
            priority=before.priority, message_id=f"requeue:{text(before.message_id)}"[:120],
        )  # fmt: skip

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[aiormq.Channel]:
        wire: Wire | None = None
        try:
            async with asyncio.timeout(CALL_S_MAX), self._turn:
                survive_bad_properties()
                wire = Wire(await self._nodes.connect(), URL_SETTING)
                await wire.declare(QUEUES, DEAD_EXCHANGE, BOUND)
                with broker_errors():
                    yield await wire.channel(confirms=True)
        except (BrokerUnavailable, OperatorError, OSError, TimeoutError) as error:
            words = str(error) or f"no answer within {CALL_S_MAX:.0f} s"
            raise HTTPException(f"RabbitMQ of the orders is away: {words}", status_code=503) from None
        finally:
            if wire is not None:
                await wire.close()


async def _messages(channel: aiormq.Channel, limit: int) -> AsyncIterator[DeliveredMessage]:
    for _ in range(limit):
        message = await in_time(channel.basic_get(DEAD))
        if isinstance(message.delivery, Basic.GetEmpty):
            return
        yield message


async def _find(channel: aiormq.Channel, letter: str) -> DeliveredMessage:
    async for message in _messages(channel, SEEN_MAX):
        if name_of(message) == letter:
            return message
    raise NotFoundException(f"There is no dead letter {letter[:64]!r} among the oldest {SEEN_MAX}")


async def _depth(channel: aiormq.Channel) -> int:
    """Return how many there are, those that this channel holds included."""
    done = await in_time(channel.queue_declare(DEAD, passive=True))
    return int(done.message_count or 0)


def _tag(message: DeliveredMessage) -> int:
    return int(getattr(message.delivery, "delivery_tag", 0) or 0)


def name_of(message: DeliveredMessage) -> str:
    """Return what a dead letter is called: the same at every look."""
    properties = message.header.properties
    at = str((properties.headers or {}).get(AT, ""))
    said = msgspec.json.encode([text(properties.message_id), at])
    return hashlib.blake2b(said + message.body, digest_size=12).hexdigest()


def described(message: DeliveredMessage) -> dict[str, Any]:
    """Return what people see of a dead letter."""
    properties = message.header.properties
    headers = properties.headers or {}
    return {
        "id": name_of(message),
        "reason": str(headers.get(REASON, "")),
        "detail": str(headers.get(DETAIL, ""))[:500],
        "at": str(headers.get(AT, "")),
        "attempts": headers.get(ATTEMPTS) if isinstance(headers.get(ATTEMPTS), int) else 0,
        "message_id": text(properties.message_id)[:200],
        "body": message.body[:BODY_SHOWN_MAX].decode(errors="replace"),
        "bytes": len(message.body),
    }


def routes(letters: DeadLetters) -> list[ControllerRouterHandler]:
    """Return the admin port's handlers."""

    @get("/dead-letters", guards=[require_admin])
    async def dead_letters(limit: Limit = 100) -> dict[str, Any]:
        return await letters.list(limit)

    @delete("/dead-letters", guards=[require_admin], status_code=200)
    async def discard_all() -> dict[str, int]:
        return await letters.discard_all()

    @post("/dead-letters/{letter:str}/requeue", guards=[require_admin], status_code=200)
    async def requeue(letter: FromPath[str]) -> dict[str, Any]:
        return await letters.requeue(letter)

    @delete("/dead-letters/{letter:str}", guards=[require_admin], status_code=200)
    async def discard(letter: FromPath[str]) -> dict[str, Any]:
        return await letters.discard(letter)

    return [dead_letters, discard_all, requeue, discard]
