"""Connects to one node of a RabbitMQ cluster: to the next in the list when one does not answer or was lost.

A URL may name several hosts. Which is tried first is drawn, so that the clients of a cluster spread over its nodes.
"""

from __future__ import annotations

import random

from aio_pika.abc import AbstractConnection
from yarl import URL

from mdq.broker import BrokerUnavailable
from mdq.rabbit_calls import CONNECT_S, connect, place
from service.address import one_host_each
from service.errors import OperatorError

NODE_S = 2.0  # for each of several: a host that has lost its power answers nothing, and the others wait


class Nodes:
    """The nodes that a URL names. Invariant: an attempt begins after the node that served last, and tries each once."""

    def __init__(self, url: str, name: str, heartbeat_s: int = 0, setting: str = "MDQ_URL") -> None:
        """`name` is what the node shows of the connection; `heartbeat=` in the URL comes before `heartbeat_s` (0 = the node's).

        Raises: OperatorError for what is no URL.
        """
        own: dict[str, str | int] = {"heartbeat": heartbeat_s, "name": name} if heartbeat_s else {"name": name}
        try:
            parsed = [URL(one) for one in one_host_each(url)]
            self._urls = [one.update_query({**own, **one.query}) for one in parsed]
        except ValueError as error:
            fix = "Write it like amqp://user:password@host:5672/vhost"
            raise OperatorError(f"{setting} is not a URL: {error}", fix) from None
        self._current = random.randrange(len(self._urls))
        self._served = False

    @property
    def place(self) -> str:
        """Host, port and vhost of the node that was tried last."""
        return place(self._urls[self._current])

    async def connect(self) -> AbstractConnection:
        """Connect to the first node that can be had; after a loss that is another one, where there is one.

        Raises: what the last node said: OperatorError for a refusal, OSError.
        """
        if self._served:
            self._turn()
        self._served = False
        several = len(self._urls) > 1
        for _ in self._urls[1:]:
            try:
                return await self._open(NODE_S)
            except (OSError, BrokerUnavailable, OperatorError):  # a node that has left its cluster refuses what the others take
                self._turn()
        return await self._open(NODE_S if several else CONNECT_S)

    async def _open(self, seconds: float) -> AbstractConnection:
        connection = await connect(self._urls[self._current], seconds)
        self._served = True
        return connection

    def _turn(self) -> None:
        self._current = (self._current + 1) % len(self._urls)
