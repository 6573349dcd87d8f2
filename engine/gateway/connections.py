"""Cuts connections that keep a place without asking anything: slow or endless heads, slow bodies, too many from one address.

uvicorn waits for a head without end and takes it however long; a few thousand such connections would be all that the process
may have open. What is a plain order is handed to `OrderEntry` and answered here; everything else is uvicorn's.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from engine.access.keys import Caller
from engine.access.limits import Limits, Places
from engine.gateway.door import Denied, deny
from engine.gateway.order_entry import Answer, OrderEntry
from engine.gateway.problems import problem_bytes
from service.origin import Message, Receive, Send

HELD_S_MIN, HELD_S_MAX = 0.5, 1.0
SPARE_BYTES = 1 << 16  # of a body that was answered before it came: read and thrown away
KEPT_BYTES = 1 << 16  # of an answer, until it is sent
LINGER_S = 1.0  # then nothing is read any more; what the kernel takes meanwhile lets most senders come to read the answer
TITLES = {408: b"Request Timeout", 429: b"Too Many Requests", 431: b"Request Header Fields Too Large"}


class OneWrite:
    """A transport that sends what is written in one turn of the loop at once.

    uvicorn writes head and body one after the other: two packets, two system calls, and a client that is woken twice.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.inner = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def write(self, data: bytes) -> None:
        """Keep it for the end of this turn, or send it with what is kept when that is much."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > KEPT_BYTES:
            self.flush()

    def write_last(self, data: bytes) -> None:
        """Send what is kept and this: nothing more is to come in this turn."""
        if self._parts:
            self._parts.append(data)
            self.flush()
        else:
            self.inner.write(data)

    def flush(self) -> None:
        """Send what is kept."""
        parts, self._parts, self._size = self._parts, [], 0
        if parts:
            self.inner.write(b"".join(parts))

    def close(self) -> None:
        """Send what is kept, then close."""
        self.flush()
        self.inner.close()


class ConnectionLimits(NamedTuple):
    """How long a request may take to arrive, how long its head may be, how many connections one address may have.

    `opened_per_s` is how many it may open; the first request of one too many waits. 0 = any.
    """

    head_s: float = 10.0
    body_s: float = 20.0
    head_bytes: int = 16_384
    per_address: int = 512
    opened_per_s: float = 200.0


def guarded(limits: ConnectionLimits, entry: OrderEntry | None = None) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with these limits; all its connections share the count of addresses, and the orders' entry."""
    shared = {"limits": limits, "places": Places(limits.per_address), "opened": Limits(limits.opened_per_s), "entry": entry}
    return type("Guarded", (GuardedConnection,), shared)


class GuardedConnection(HttpToolsProtocol):
    """One connection, which must send a whole request in time."""

    limits: ConnectionLimits
    places: Places
    opened: Limits
    entry: OrderEntry | None

    _order: tuple[RequestResponseCycle, Caller] | None = None  # that was let in and is not whole yet
    _address = ""
    _timer: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _spare_bytes = 0
    _began = False  # a head or a body, with the last bytes
    _whole = False  # the last request
    _held: bytes | None = None  # what came while the connection waits for its turn

    def connection_made(self, transport: Any) -> None:
        super().connection_made(OneWrite(transport, self.loop))  # type: ignore[arg-type]
        address = str((transport.get_extra_info("peername") or ("",))[0])
        if not self.places.enter(address):
            self._cut(429, "TooManyConnections", f"This address has {self.places.most} connections open, which is the most.")
            return
        self._address = address
        self._wait(self.limits.head_s)
        wait_s = self.opened.take(address, time.monotonic_ns())
        if wait_s:
            self._held = b""
            self.loop.call_later(min(max(wait_s, HELD_S_MIN), HELD_S_MAX), self._let_in)

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        self._order = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # what comes after we have said no
        if self._held is not None:
            self._held += data
            self.transport.pause_reading()
            return
        if self._in_head:
            self._head_bytes += len(data)
        elif self.cycle is not None and self.cycle.response_complete:
            self._spare_bytes += len(data)
            if self._spare_bytes > SPARE_BYTES:
                self._linger()
                return
        self._began = False
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.head_bytes and not self.transport.is_closing():
            self._cut(431, "HeadTooLarge", f"The head of a request has at most {self.limits.head_bytes} bytes.")
        if self._began:  # a part of a request came; when all of it has, nothing is waited for
            self._wait(self.limits.head_s if self._in_head else self.limits.body_s)
        elif self._timer is not None and self._whole:
            self._stop_waiting()

    def _linger(self) -> None:
        self._stop_waiting()
        self.transport.pause_reading()
        self._timer = self.loop.call_later(LINGER_S, self.transport.close)

    def _let_in(self) -> None:
        held, self._held = self._held, None
        if held and not self.transport.is_closing():
            self.transport.resume_reading()
            self.data_received(held)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._began, self._whole = True, False

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes, self._spare_bytes = False, 0, 0
        self._began = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._began, self._whole = True, False, True
        super().on_message_complete()
        if self._order is not None and self._order[0] is self.cycle:
            self._place()

    # Orders

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin a request whose turn it is: its head is there, its body maybe not."""
        scope: Any = cycle.scope
        if self.entry is None or self.flow.write_paused or not self.entry.takes(scope):
            super()._start_asgi_task(cycle, app)  # with somebody who reads no answers uvicorn waits
            return
        found = self.entry.look(scope)
        if isinstance(found, Denied):
            super()._start_asgi_task(cycle, partial(_deny, found))
            return
        self._order = cycle, found
        if not cycle.more_body:
            self._place()

    def _place(self) -> None:
        assert self.entry is not None
        assert self._order is not None
        (cycle, caller), self._order = self._order, None
        body, cycle.body = bytes(cycle.body), bytearray()
        tell = partial(self._answer, cycle)
        if (wrong := self.entry.place(caller, body, tell)) is not None:
            self.loop.call_soon(tell, wrong)  # at once it would begin the next one that waits, and that one the next

    def _answer(self, cycle: RequestResponseCycle, answer: Answer) -> None:
        if cycle.disconnected or self.transport.is_closing():
            return
        head = [STATUS_LINE[answer.status]]
        for name, value in self.server_state.default_headers:
            head += (name, b": ", value, b"\r\n")
        head += (answer.head, b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", answer.body)
        cycle.response_started = cycle.response_complete = True
        assert isinstance(self.transport, OneWrite)
        self.transport.write_last(b"".join(head))
        if not cycle.keep_alive:
            self.transport.close()
        on_response, cycle.on_response = cycle.on_response, _nothing  # else cycle and connection hold each other
        on_response()

    def handle_websocket_upgrade(self) -> None:
        self._let_go()  # a WebSocket is counted with its key
        if isinstance(self.transport, OneWrite):
            self.transport.flush()
            self.transport = self.transport.inner  # a frame is one write already
        super().handle_websocket_upgrade()

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, self._late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self._in_head and self.cycle is not None and self.cycle.response_complete:
            self.transport.close()  # a refused body that goes on and on
            return
        seconds = self.limits.head_s if self._in_head else self.limits.body_s
        self._cut(408, "RequestTimeout", f"The {'head' if self._in_head else 'body'} of a request has {seconds:g} s to arrive.")

    def _cut(self, status: int, code: str, detail: str) -> None:
        """Say why and close; an answer that is under way is not broken into."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = problem_bytes(status, code, detail)
            head = b"HTTP/1.1 %d %s\r\ncontent-type: application/problem+json\r\n" % (status, TITLES[status])
            self.transport.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body))
        self.transport.close()

    def _let_go(self) -> None:
        self._stop_waiting()
        if self._address:
            self.places.leave(self._address)
            self._address = ""


async def _deny(why: Denied, scope: Message, receive: Receive, send: Send) -> None:
    await deny(scope, receive, send, why)


def _nothing() -> None:
    """Nobody waits for the end of an answer that was told."""
