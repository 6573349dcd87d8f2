"""Speaks server-sent events for a session: an HTTP problem until the stream has begun, then an event for each frame.

Invariant: the response's head goes out with the reply to the one `sub`, before any frame of a channel. What the hub writes is an
event without a name, whose data is what a WebSocket frame would hold: `subs`, `bye` and the positions are this file's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from wds.access.events import STATUS, Ask, head, position_id, problem
from wds.access.tickets import TTL_S, Tickets
from wds.access.tokens import Claims, TokenRefused
from wds.protocol import BAD_TOKEN, CLOSE_CODES, FORBIDDEN, NO_AUTH, TOO_MANY_CONNECTIONS, encode

STREAM_TYPE = "text/event-stream"
CLOSED_AS = {BAD_TOKEN: 401, NO_AUTH: 401, FORBIDDEN: 403, TOO_MANY_CONNECTIONS: 429}  # every other close code: 503


class Standing(Protocol):
    """A group that knows where its members stand."""

    epoch: str

    def place(self, member: Any) -> int | None: ...


def sse_event(payload: bytes) -> bytes:
    """Return the event that brings a payload; its JSON may have line breaks, which would end the event."""
    if b"\n" in payload or b"\r" in payload:
        payload = payload.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"data: %b\n\n" % payload


class EventStream:
    """The outgoing half of one event stream."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.started = False
        self.over = False  # nothing more is written: the response is complete
        self._id = ""

    def say(self, payload: bytes, member: Any) -> bytes:
        """Return what is written for a frame of the session's."""
        if self.over:
            return b""
        frame = msgspec.json.decode(payload)
        if not self.started:
            return self._begin(frame, payload)
        if isinstance(frame, dict) and frame.get("t") == "ping":
            return b": still here\n\n"
        if isinstance(frame, dict) and frame.get("t") == "bye":
            self.over = True
            retry = b"retry: %d\n" % frame["after_ms"] if "after_ms" in frame else b""
            return self.mark(member) + b"event: bye\n" + retry + sse_event(payload)
        return sse_event(payload)

    def mark(self, member: Any) -> bytes:
        """Return the stream's position when it has moved: an `id` alone, which a reader keeps and does not show."""
        if not self.started or member is None:
            return b""
        made = position_id(_places(member.groups.items(), member))
        if made == self._id:
            return b""
        self._id = made
        return f"id: {made}\n\n".encode()

    def _begin(self, frame: Any, payload: bytes) -> bytes:
        if "t" in frame and frame["t"] != "bye":
            return b""  # a greeting is of the WebSocket
        faults = [one for one in frame.get("subs", ()) if "error" in one and "matched" not in one]
        if "subs" not in frame or len(faults) == len(frame["subs"]):
            self.over = True
            return _problem_of(faults[0] if faults else frame, self.ask.origin)
        self.started = True
        opened = head(200, STREAM_TYPE, self.ask.origin, {"X-Accel-Buffering": "no"})
        return opened + b"event: subs\n" + sse_event(payload)


class TicketDesk:
    """The outgoing half of a request for a ticket."""

    def __init__(self, origin: str | None) -> None:
        self.over = False
        self._origin = origin

    def say(self, payload: bytes, member: Any) -> bytes:
        """Return the problem that a refusal of the session's means; nothing for a greeting."""
        frame = msgspec.json.decode(payload)
        if self.over or ("t" in frame and frame["t"] != "bye"):
            return b""
        self.over = True
        return _problem_of(frame, self._origin)

    def mark(self, member: Any) -> bytes:
        """Return nothing: there is no stream."""
        return b""

    def answer(self, tickets: Tickets, claims: Claims, now_s: float) -> bytes:
        """Return the response to a good token."""
        self.over = True
        try:
            body = encode({"ticket": tickets.issue(claims, now_s), "expires_s": TTL_S})
        except TokenRefused as refused:
            return problem(STATUS[refused.code], refused.code, str(refused), self._origin, TTL_S * 1000)
        return head(200, "application/json", self._origin, {"Content-Length": str(len(body))}) + body


def _problem_of(frame: Any, origin: str | None) -> bytes:
    """Return the HTTP response that says what a bye or an error says."""
    if frame.get("t") == "bye":
        code = frame["code"]
        return problem(CLOSED_AS.get(code, 503), "closed", CLOSE_CODES[code].means, origin, frame.get("after_ms"))
    error = frame["error"]
    detail = error.get("message") or "see the code"
    return problem(STATUS.get(error["code"], 500), error["code"], detail, origin, error.get("after_ms"))


def _places(groups: Iterable[tuple[str, Standing]], member: Any) -> Iterable[tuple[str, str, int]]:
    for channel, group in groups:
        if (seq := group.place(member)) is not None:
            yield channel, group.epoch, seq
