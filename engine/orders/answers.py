"""Sends the answers to order messages on a connection of its own, each at most once.

A `reply_to` comes from outside, and RabbitMQ ends the whole connection over some that are broken: that must not be the one
orders arrive on. While the broker is away answers wait, up to `WAITING_MAX`, the oldest go. Who gets none asks again: the
engine knows his order by its client id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

import msgspec
from pamqp.commands import Basic

from engine.orders.message import Answer
from engine.orders.topology import QUEUES
from engine.risk.rules import URL_SETTING
from mdq.rabbit_link import RabbitLink, Wire, answer, text
from service import metrics

WAITING_MAX = 10_000
CLOSE_S = 1.0

_ENCODER = msgspec.json.Encoder()


class Answers:
    """Sends from `start` to `close`; `post` never waits."""

    def __init__(self, url: str) -> None:
        self._link = RabbitLink(url, "tapeline-engine-answers", self._serve, URL_SETTING)
        self._waiting: deque[tuple[Basic.Properties, Answer]] = deque(maxlen=WAITING_MAX)
        self._wake, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._dropped = metrics.counter("engine", "answers_dropped", "Answers given up: too many waited for the broker")

    def start(self) -> None:
        """Begin to connect and to send."""
        self._link.start()

    async def close(self) -> None:
        """Send what waits (1 s at the most) and disconnect."""
        if self._link.ready:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._idle.wait()
        await self._link.close()

    def post(self, asked: Basic.Properties, what: Answer) -> None:
        """Answer a message, if its sender wants that; the queues of orders are no place for answers."""
        if not asked.reply_to or text(asked.reply_to) in QUEUES:
            return
        if len(self._waiting) == WAITING_MAX:
            self._dropped.inc()
        self._waiting.append((asked, what))
        self._idle.clear()
        self._wake.set()

    async def _serve(self, wire: Wire) -> None:
        channel = await wire.channel()
        wire.ready = True
        while True:
            self._wake.clear()
            while self._waiting:
                asked, what = self._waiting.popleft()  # before it is sent: what ends the connection is not sent again
                await answer(channel, asked, _ENCODER.encode(what))
            self._idle.set()
            await self._wake.wait()
