"""Speaks with one client's socket: HTTP request, WebSocket frames, flow control; what to do about them is the session's.

Outgoing frames are written straight to the transport, never awaited. The websockets package parses what comes in and
speaks the handshake and the closing; nothing here runs a task a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from msgspec import UnsetType
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from wds import meter
from wds.access.handshake import Events, NewTicket, Page, Problem, address_key, client_address, decide
from wds.access.limits import Census
from wds.access.tickets import Tickets
from wds.access.tokens import Claims, TokenRefused
from wds.compat.relay import Relay
from wds.fanout.framing import deflated_frame, text_frame
from wds.fanout.hub import Hub
from wds.fanout.member import Member
from wds.fanout.outbox import Ladder, Step
from wds.fanout.pieces import Wrap
from wds.protocol import CLOSE_CODES, NO_AUTH, OVERLOAD, SLOW, SUBPROTOCOL, TOO_MANY_CONNECTIONS, SubOutcome
from wds.session.session import (
    Action,
    Again,
    Close,
    Fetch,
    Follow,
    Join,
    Leave,
    ListKinds,
    Probe,
    Send,
    Session,
    SessionLimits,
    Shape,
    Tune,
    Unfollow,
    Verify,
)
from wds.settings import WdsSettings
from wds.transport.event_stream import EventStream, TicketDesk, sse_event

FRAGMENTS_MAX = 64
TICKET = "ticket"  # before a ticket, where else a token stands: no token has a space in it
# No context from frame to frame, so that one compressed frame fits everybody, and memory is held only while it is made.
DEFLATE = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
CLOSING_NS = 2_000_000_000  # how long the peer has to answer a close frame before the socket is cut
NOTSENT_LOWAT_BYTES = 32_768  # what the kernel queues unsent: more would only hide from us that a client does not read
TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
TRY_LATER = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\nConnection: close\r\nContent-Length: 10\r\n\r\ntry later\n"
_quiet = logging.getLogger("wds.websockets")
_quiet.setLevel(logging.CRITICAL)


Change = Join | Leave | Tune
Feeds = Follow | Unfollow


class Asked(Protocol):
    """Who answers what a client asks for, sooner or later, through the connection it is given."""

    def verify(self, connection: Connection, token: str) -> None: ...

    def list_kinds(self, connection: Connection, kinds: list[str]) -> None: ...

    def fetch(self, connection: Connection, channels: list[str], limit: int | None) -> None: ...


class Noted(Protocol):
    """Who remembers which connections follow patterns."""

    def note_patterns(self, connection: Connection) -> None: ...


class Host(Protocol):
    """What a connection needs of the worker that accepted it."""

    settings: WdsSettings
    limits: SessionLimits
    ladder: Ladder
    census: Census
    hub: Hub
    relay: Relay | None
    script: bytes
    draining: bool
    tickets: Tickets

    @property
    def answers(self) -> Asked: ...

    @property
    def roster(self) -> Noted: ...

    def now_ns(self) -> int: ...

    def enter(self, connection: Connection, address: str) -> str | None: ...

    def arrived(self, address: str) -> None: ...

    def full_house(self, user: str | None, address: str) -> None: ...

    def forget(self, connection: Connection) -> None: ...

    def new_session(self, deaf: bool, compat: bool) -> Session: ...

    def wall_s(self) -> float: ...

    def settle(self) -> None: ...


def _subprotocol(_: ServerProtocol, offered: Any) -> Any:
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


class Connection(asyncio.Protocol):
    """One accepted socket."""

    __slots__ = (
        "_address", "_closing_ns", "_counted", "_events", "_fragments", "_opened_ns", "_peer", "_server", "_text", "_transport",
        "_waiting", "_ws", "member", "session", "user",
    )  # fmt: skip

    def __init__(self, server: Host) -> None:
        self._server = server
        self._ws = ServerProtocol(max_size=4 * server.limits.frame_bytes_max, select_subprotocol=_subprotocol, logger=_quiet)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._address = ""
        self.user: str | None = None
        self._peer = ""
        self._waiting = False  # in the lobby
        self._counted = False  # in the census
        self._opened_ns = 0
        self._closing_ns = 0
        self._fragments: list[bytes] = []
        self._text = True
        self._events: EventStream | TicketDesk | None = None  # it speaks HTTP
        self.session: Session | None = None
        self.member: Member | None = None

    # Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._opened_ns = self._server.now_ns()
        peer = self._transport.get_extra_info("peername")
        self._address = self._peer = str(peer[0]) if peer else "local"
        ladder = self._server.ladder
        self._transport.set_write_buffer_limits(ladder.high_bytes, ladder.low_bytes)
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
        refused = self._server.enter(self, self._peer)
        self._waiting = refused is None
        if refused is not None:
            meter.refused.labels(refused).inc()
            self._transport.write(TRY_LATER)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrive()
        self._retire()
        self._server.forget(self)

    def _arrive(self) -> None:
        if self._waiting:
            self._waiting = False
            self._server.arrived(self._peer)

    def data_received(self, data: bytes) -> None:
        if self._events is not None:
            return  # the request was all that it may say
        ws = self._ws
        ws.receive_data(data)
        for event in ws.events_received():
            if isinstance(event, Request):
                self._handshake(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._flush_ws()
        self._server.settle()

    def eof_received(self) -> None:
        if self._events is not None:
            return  # the transport closes by itself
        self._ws.receive_eof()
        self._flush_ws()

    def pause_writing(self) -> None:
        self.observe()

    def resume_writing(self) -> None:
        self.observe()

    def _flush_ws(self) -> None:
        for data in self._ws.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
        if self._ws.state > OPEN:
            self._retire()

    @property
    def buffered_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    # Handshake

    def _handshake(self, request: Request) -> None:
        server = self._server
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        settings = server.settings
        decision = decide(request.method, request.path, headers, settings.origins, server.script, settings.compat)
        if isinstance(decision, Page):
            self._answer(decision, head=request.method == "HEAD")
            return
        address = client_address(self._address, headers.get("x-forwarded-for"), settings.trusted_proxies)
        if isinstance(decision, Problem):
            self._transport.write(decision.response)
            self._transport.close()
            return
        if isinstance(decision, Events):
            self._events = EventStream(decision.ask)
            self._begin(address, decision.ask.token or f"{TICKET} {decision.ask.ticket}", sse_event, decision.ask.command())
            return
        if isinstance(decision, NewTicket):
            self._events = TicketDesk(decision.origin)
            self._begin(address, decision.token, sse_event)
            return
        if decision.deflate:
            self._ws.available_extensions = [DEFLATE]
        response = self._ws.accept(request)
        self._ws.send_response(response)
        self._flush_ws()
        if response.status_code == 101:
            wrap = deflated_frame if self._ws.extensions else text_frame
            self._begin(address, decision.token, wrap, compat=decision.compat)

    def _answer(self, page: Page, head: bool) -> None:
        headers = Headers([
            ("Content-Type", page.content_type), ("Content-Length", str(len(page.body))), ("Connection", "close"),
            ("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff"),
        ])  # fmt: skip
        if page.open_to_all:
            headers["Access-Control-Allow-Origin"] = "*"
        if page.status == 426:
            headers["Upgrade"] = "websocket"
        self._ws.send_response(Response(page.status, "", headers, b"" if head else page.body))

    def _begin(
        self, address: str, token: str | None, wrap: Wrap, command: bytes | None = None, compat: bool = False
    ) -> None:  # fmt: skip
        server = self._server
        self._arrive()
        self._address = address_key(address)
        self.session = server.new_session(self._events is not None, compat)
        if server.draining:
            self._run(self.session.bye(OVERLOAD))
        elif server.census.full():
            meter.refused.labels("full").inc()
            self._run(self.session.bye(OVERLOAD))
        elif not server.census.enter(self._address):
            meter.refused.labels("address").inc()
            server.full_house(None, self._address)
            self._run(self.session.bye(TOO_MANY_CONNECTIONS))
        else:
            self._counted = True
            self.member = Member(self._transport.write, server.ladder, wrap)
            self._run(self.session.open(token))
            if command is not None:
                self._run(self.session.receive(command, server.now_ns()))

    # Frames

    def _frame(self, frame: Frame) -> None:
        session = self.session
        if session is None or session.closed:
            return
        meter.commands.inc()
        if frame.opcode is Opcode.PING or frame.opcode is Opcode.PONG:
            self._run(session.on_control_frame(self._server.now_ns()))
        elif frame.opcode is not Opcode.CLOSE:
            self._data(session, frame)

    def _data(self, session: Session, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
            if frame.fin:
                self._run(session.receive(bytes(frame.data), self._server.now_ns(), not self._text))
                return
        self._fragments.append(bytes(frame.data))
        if len(self._fragments) > FRAGMENTS_MAX:
            self._ws.fail(1002, "too many fragments")
        elif frame.fin:
            whole, self._fragments = b"".join(self._fragments), []
            self._run(session.receive(whole, self._server.now_ns(), not self._text))

    def _run(self, actions: list[Action]) -> None:
        waiting = deque(actions)
        while waiting:
            if self._closing_ns:
                return
            action = waiting.popleft()
            if isinstance(action, Again):
                waiting += self.session.again() if self.session is not None else ()
            else:
                self._carry_out(action)
        self._server.roster.note_patterns(self)

    def run(self, actions: list[Action]) -> None:
        """Carry out what the session decided, then whatever the hub asks for because of it."""
        self._run(actions)
        self._server.settle()

    def _carry_out(self, action: Shape | Send | Close | Verify | ListKinds | Fetch | Feeds | Probe | Change) -> None:
        if isinstance(action, Send):
            self._say(action.payload)
        elif isinstance(action, Close):
            self.close(action.code)
        elif isinstance(action, Verify):
            self._verify(action.token)
        elif isinstance(action, ListKinds):
            self._server.answers.list_kinds(self, action.kinds)
        elif isinstance(action, Shape):
            if self.member is not None:
                self._server.hub.compact(self.member)
        elif isinstance(action, Fetch):
            self._server.answers.fetch(self, action.channels, action.limit)
        elif isinstance(action, Probe):
            self._ws.send_ping(b"")
            self._flush_ws()
        elif isinstance(action, Follow | Unfollow):
            self._feed(action)
        elif self.member is not None:
            self._change(action, self.member, self._server.now_ns())

    def _feed(self, action: Feeds) -> None:
        relay = self._server.relay
        if relay is None or self.member is None:
            return
        if isinstance(action, Follow):
            relay.follow(self.member, action.feeds, self._server.now_ns())
        else:
            relay.unfollow(self.member, action.feeds)

    def _say(self, payload: bytes) -> None:
        if self._events is None:
            self._transport.write(text_frame(payload))
            return
        self._transport.write(self._events.say(payload, self.member))
        if self._events.over and self.session is not None and not self.session.closed:
            self._end_response()  # a refusal; after the session's own goodbye it closes the connection by itself

    def _end_response(self) -> None:
        assert self.session is not None
        self.session.closed = True
        self._retire()
        self._transport.close()

    def _verify(self, token: str) -> None:
        scheme, _, ticket = token.partition(" ")
        if scheme != TICKET or self._events is None:
            self._server.answers.verify(self, token)
            return
        now_s = self._server.wall_s()
        try:
            claims = self._server.tickets.redeem(ticket, now_s)
        except TokenRefused as refused:
            self.verified(refused, 0.0)
        else:
            self.verified(claims, claims.exp_s - now_s)

    def _change(self, action: Change, member: Member, now_ns: int) -> None:
        hub = self._server.hub
        if isinstance(action, Join):
            hub.join(member, action.wants, self._joined, now_ns)
        elif isinstance(action, Leave):
            for channel in action.channels:
                hub.leave(member, channel, now_ns)
        else:
            if self.session is not None:
                self._run(self.session.on_tuned(action.id, hub.verdict))
            if action.hz is not None:
                hub.retune(member, action.hz, now_ns)
            if action.paused is not None:
                hub.pause(member, action.paused, now_ns)

    def _joined(self, outcomes: list[SubOutcome]) -> Callable[[], None]:
        assert self.session is not None
        reply, then = self.session.on_joined(outcomes)
        self._run(reply)
        return lambda: self._run(then())

    # Identity

    def verified(self, outcome: Claims | TokenRefused, left_s: float) -> None:
        """A token was judged."""
        session, server, now_ns = self.session, self._server, self._server.now_ns()
        if session is None or session.closed or self.member is None:
            return
        if isinstance(outcome, TokenRefused):
            self._run(session.on_refused(outcome, now_ns))
            return
        if self.user is None:
            if not server.census.know(self._address, outcome.sub):
                meter.refused.labels("user").inc()
                server.full_house(outcome.sub, self._address)
                self._run(session.bye(TOO_MANY_CONNECTIONS))
                return
            self.user = outcome.sub
            if isinstance(self._events, TicketDesk):
                self._transport.write(self._events.answer(server.tickets, outcome, server.wall_s()))
                self._end_response()
                return
            server.hub.add(self.member)
        self._run(session.on_verified(outcome, left_s, now_ns))

    # Time and the end

    def observe(self) -> None:
        """Tell the hub how full the buffer is; hold commands back, go on with them, or close, as the ladder says.

        Called in the middle of writing: what writes or ends something itself is left to the loop's next turn.
        """
        if self.member is None or self.session is None or self._closing_ns:
            return
        step = self._server.hub.on_buffer(self.member, self.buffered_bytes, self._server.now_ns())
        if step is Step.CLOSE:
            asyncio.get_running_loop().call_soon(self._too_slow)
        elif step is not Step.OPEN and not self.session.held:
            self.session.held = True
            self._transport.pause_reading()  # what it sends waits at its end: replies nobody reads would pile up here
        elif step is Step.OPEN and self.session.held:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _too_slow(self) -> None:
        if self.session is not None and not self._closing_ns:
            self._run(self.session.bye(SLOW))

    def _go_on(self) -> None:
        if self.member is None or self.session is None or self._closing_ns or not self.session.held:
            return
        if self.member.outbox.step is not Step.OPEN:
            return  # its buffer filled again meanwhile
        self._transport.resume_reading()
        if self._server.relay is not None:
            self._server.relay.catch_up(self.member)
        self.run(self.session.go_on(self._server.now_ns()))

    def on_time(self, now_ns: int, wall_ms: int) -> None:
        """Once a second."""
        if self._closing_ns:
            if now_ns - self._closing_ns >= CLOSING_NS:
                self._transport.abort()
        elif self.session is None:
            if now_ns - self._opened_ns >= self._server.limits.auth_s * 1e9:
                meter.closes.labels(str(NO_AUTH)).inc()
                self._transport.abort()  # never finished its request
        else:
            if self.buffered_bytes > 0 or (self.member is not None and self.member.outbox.step is not Step.OPEN):
                self.observe()  # also when empty: that is how a paused client is open again
            self._run(self.session.on_time(now_ns, wall_ms))
            if self._events is not None and not self._closing_ns and self.member is not None and self.member.ready:
                self._transport.write(self._events.mark(self.member))

    def shares(self, user: str | None, address: str) -> bool:
        """Whether it takes a place of this user, or of this address when there is no user."""
        return self._counted and (self.user == user if user is not None else self._address == address)

    def probe(self, now_ns: int) -> None:
        """Find out soon whether anybody is there."""
        if self.session is not None:
            self._run(self.session.probe(now_ns))

    def describe(self, now_ns: int) -> dict[str, Any]:
        """Return what operators see of a client; ages in seconds, sizes in bytes."""
        session, member = self.session, self.member
        assert session is not None
        claims = session.claims
        return {
            "conn": session.conn,
            "user": self.user,
            "session": claims.sid if claims is not None else "",
            "address": self._address,
            "transport": session.transport if self._events is None else "sse",
            "open_s": round((now_ns - self._opened_ns) / 1e9, 1),
            "subscriptions": self._subscriptions(),
            "patterns": len(session.subscriptions.patterns),
            "buffered_bytes": self.buffered_bytes,
            "pace": member.outbox.step.name.lower() if member is not None else "open",
            "hidden": member.paused if member is not None else False,
        }

    def _subscriptions(self) -> int:
        if self.member is None:
            return 0
        relay = self._server.relay
        return len(self.member.groups) + (relay.count(self.member) if relay is not None else 0)

    def bye(self, code: int, after_ms: int | UnsetType | None = None) -> None:
        """Send the client off for a reason of the server's; UNSET = it shall not come back."""
        if self.session is None:
            self._transport.abort()
        else:
            self._run(self.session.bye(code, after_ms))

    def close(self, code: int) -> None:
        """Begin the closing handshake; the socket is cut when the peer does not answer."""
        if self._closing_ns:
            return
        meter.closes.labels(str(code)).inc()
        if self._ws.state is OPEN:
            self._ws.send_close(code, CLOSE_CODES[code].means)
        self._retire()
        if self._events is not None:
            self._transport.close()
            return
        self._flush_ws()
        if self.session is not None and self.session.held and not self._transport.is_closing():
            self._transport.resume_reading()  # for the answer to our goodbye

    def cut(self) -> None:
        """End the connection without a word."""
        self._retire()
        self._transport.abort()

    def _retire(self) -> None:
        # From here on no frame is written: hub and patterns forget us, only the closing itself goes on.
        if self._closing_ns:
            return
        self._closing_ns = self._server.now_ns()
        if self.session is not None:
            if not self.session.closed:
                meter.closes.labels(self._ended_with()).inc()
            self.session.closed = True
        if self._counted:  # what is closing must not stand in the way of who comes back
            self._counted = False
            self._server.census.leave(self._address, self.user)
        if self.member is not None:
            self._server.hub.drop(self.member, self._closing_ns)
            if self._server.relay is not None:
                self._server.relay.drop(self.member)
        self._server.roster.note_patterns(self)

    def _ended_with(self) -> str:
        ended = self._ws.close_rcvd or self._ws.close_sent
        code = ended.code if ended is not None else 1006
        return str(code) if 1000 <= code <= 1011 else "other"  # a client may send any number: labels must stay few
