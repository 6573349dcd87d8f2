"""One delivery of the order queue, from its arrival to its acknowledgement: what it says and how far it has come."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from engine.access.keys import PUBLIC, Caller
from engine.core.commands import Command
from engine.journal.sequencer import Outcome
from engine.orders import message as om
from engine.risk.rules import Verdict, Way
from mdq.rabbit_link import UNREADABLE, text

Key = tuple[str, bytes]  # message id, body
Settled = asyncio.Future[Outcome]


@dataclass(slots=True, eq=False)
class Delivery:
    """A message and its state. `again`: the broker has delivered it before."""

    tag: int
    body: bytes
    properties: Basic.Properties
    again: bool
    key: Key = field(init=False)
    message: om.OrderMessage | None = None
    ends_ns: int = 0  # 0 = it does not expire
    caller: Caller = PUBLIC
    command: Command | None = None
    checking: asyncio.Task[Verdict] | None = None
    way: tuple[Way, int] | None = None  # what the next question to risk must count as coming
    future: Settled | None = None
    done: bool = False

    def __post_init__(self) -> None:
        self.key = text(self.properties.message_id), self.body

    def read(self) -> om.OrderMessage:
        """Return the message, decoded once.  Raises: MessageRefused."""
        if self.message is None:
            if why := (self.properties.headers or {}).get(UNREADABLE):
                raise om.MessageRefused("Malformed", f"its properties cannot be read: {why!r}")
            self.message, own_ns = om.read(self.body)
            self.ends_ns = om.expires_ns(own_ns, self.properties.timestamp, self.properties.expiration)
        return self.message

    @property
    def failed(self) -> int:
        """How many attempts at it have failed."""
        return om.attempts(self.properties.headers)


def hold(delivered: DeliveredMessage) -> Delivery:
    """Return a delivery as it arrived."""
    return Delivery(delivered.delivery_tag or 0, delivered.body, delivered.header.properties, bool(delivered.redelivered))
