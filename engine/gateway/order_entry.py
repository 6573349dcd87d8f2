"""Answers `POST /Order` itself and hands everything else on: the general router took half of the time of an order.

The router has the same route for the documentation, and both use the same desk, so that they answer alike.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.gateway.door import caller_of
from engine.gateway.order_bodies import PlaceBody
from engine.gateway.orders import OrderDesk
from engine.gateway.problems import BODY_BYTES_MAX, Refused, Told, not_as_documented, problem_bytes, told
from engine.journal.sequencer import Sequencer
from service.origin import ASGI, Message, Receive, Send

_DECODER = msgspec.json.Decoder(PlaceBody)
_ENCODER = msgspec.json.Encoder()
JSON = (b"content-type", b"application/json")
PROBLEM = (b"content-type", b"application/problem+json")
TOO_LARGE = f"A body has at most {BODY_BYTES_MAX} bytes."


KEY_HEADER = b"idempotency-key"  # a request with one is answered behind, where all of them are


class OrderEntry:
    """An ASGI application in front of the router, behind the door."""

    def __init__(self, behind: Any, desk: OrderDesk, sequencer: Sequencer) -> None:
        self._behind: ASGI = behind
        self._desk = desk
        self._sequencer = sequencer

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope.get("method") != "POST" or scope["path"] != "/Order" or any(name == KEY_HEADER for name, _ in scope["headers"]):
            await self._behind(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return  # the client went before its request was whole
            body = body + message["body"] if body else message["body"]
            if len(body) > BODY_BYTES_MAX:
                await _answer(send, 413, problem_bytes(413, "RequestEntityTooLarge", TOO_LARGE), PROBLEM)
                return
            if not message.get("more_body"):
                break
        try:
            answer = await self._place(scope, body)
        except Exception as error:
            why: Told = told(error, scope["path"])
            await _answer(send, why.status, problem_bytes(why.status, why.code, why.detail, why.order_id), PROBLEM, why.headers)
            return
        await _answer(send, 201, answer, JSON)

    async def _place(self, scope: Message, body: bytes) -> bytes:
        if self._sequencer.refusal:
            raise self._sequencer.unavailable()
        try:
            asked = _DECODER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, "BadRequest", not_as_documented(error)) from None
        return _ENCODER.encode(await self._desk.place(caller_of(scope), asked))


async def _answer(send: Send, status: int, body: bytes, kind: tuple[bytes, bytes], more: dict[str, str] | None = None) -> None:
    headers = [kind, (b"content-length", b"%d" % len(body))]
    if more:
        headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
