"""Takes orders from connections and answers them, with no task, application or router in between.

An order is decoded where its last byte is read, submitted, and answered when its future is done. What is unusual about a request
(an idempotency key, a body in chunks, a risk service that is asked first) is the router's, which has the same route. Both use the
same door and the same desk, so that they answer alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from engine.access.keys import Caller
from engine.core.commands import PlaceOrder
from engine.gateway.door import Denied, Door
from engine.gateway.order_bodies import PlaceBody
from engine.gateway.orders import OrderDesk
from engine.gateway.problems import Refused, not_as_documented, problem_bytes, told
from engine.journal.sequencer import Outcome, Sequencer
from service.origin import Message

PATH = "/Order"
LENGTH = b"content-length"
UNUSUAL = frozenset((b"idempotency-key", b"transfer-encoding", b"expect", b"upgrade"))
_DECODER = msgspec.json.Decoder(PlaceBody)
_ENCODER = msgspec.json.Encoder()


class Answer(NamedTuple):
    """The answer to an order; `head` are its own header lines."""

    status: int
    head: bytes
    body: bytes


class Sent(Protocol):
    """A future that is done."""

    def result(self) -> Outcome:
        """Raises: what became of the command instead."""


class OrderEntry:
    """Places the orders of all connections."""

    def __init__(self, door: Door, desk: OrderDesk, sequencer: Sequencer) -> None:
        self._door = door
        self._desk = desk
        self._sequencer = sequencer

    def takes(self, scope: Message) -> bool:
        """Return whether a request, of which the head is there, is placed here."""
        if scope["path"] != PATH or scope["method"] != "POST" or self._desk.has_risk:
            return False
        names = [name for name, _ in scope["headers"]]
        return LENGTH in names and UNUSUAL.isdisjoint(names)

    def look(self, scope: Message) -> Caller | Denied:
        """Return who sends it, or why it is not let in."""
        return self._door.look(scope)

    def place(self, caller: Caller, body: bytes, tell: Callable[[Answer], None]) -> Answer | None:
        """Submit an order; return what is wrong with it, or None: `tell` gets the answer when the journal has it."""
        try:
            if self._sequencer.refusal:
                raise self._sequencer.unavailable()
            command = self._desk.placing(caller, _decoded(body))
            self._desk.send(caller, command).add_done_callback(partial(self._done, command, tell))
        except Exception as error:
            return _problem(error)
        return None

    def _done(self, command: PlaceOrder, tell: Callable[[Answer], None], sent: Sent) -> None:
        try:
            body = _ENCODER.encode(self._desk.placed(command, sent.result()))
            answer = Answer(201, b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body), body)
        except Exception as error:
            answer = _problem(error)
        tell(answer)


def _decoded(body: bytes) -> PlaceBody:
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "BadRequest", not_as_documented(error)) from None


def _problem(error: Exception) -> Answer:
    why = told(error, PATH)
    body = problem_bytes(why.status, why.code, why.detail, why.order_id)
    head = b"content-type: application/problem+json\r\ncontent-length: %d\r\n" % len(body)
    for name, value in why.headers.items():
        head += f"{name.lower()}: {value}\r\n".encode()
    return Answer(why.status, head, body)
