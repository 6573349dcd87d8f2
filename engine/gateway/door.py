"""Lets a request in, or says why not, before anything of it is decoded: origin, size, key, role, rate, in this sequence.

Behind the door every request has a caller in its scope. A flood costs its sender more than us: what is refused for its rate is
answered late, and a connection carries one request at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from math import ceil
from typing import Any, NamedTuple

from engine.access.keys import PUBLIC, Caller
from engine.access.limits import Limits
from engine.access.register import Register, Unknown
from engine.access.rules import Rule, allows, rule_of
from engine.gateway.problems import BODY_BYTES_MAX, problem_bytes
from service.clock import Clock
from service.origin import ASGI, Message, Receive, SameOrigin, Send

CALLER = "tapeline.caller"
WAIT_S_MIN, WAIT_S_MAX = 0.5, 1.0  # how late an answer to too many requests comes
Headers = MutableMapping[str, str]


class DoorLimits(NamedTuple):
    """What one caller may ask for; a rate of 0 is none. The public is counted by its address."""

    orders_per_s: float = 50_000.0
    requests_per_s: float = 2_000.0
    public_per_s: float = 200.0


class Rates:
    """What each caller may still ask for now."""

    def __init__(self, limits: DoorLimits, clock: Clock) -> None:
        self._clock = clock
        self._orders = Limits(limits.orders_per_s)
        self._requests = Limits(limits.requests_per_s)
        self._public = Limits(limits.public_per_s)

    def wait_s(self, caller: Caller, address: str, is_order: bool) -> float:
        """Count a request; return 0.0, or after how many seconds it may come again."""
        now_ns = self._clock.mono_ns()
        if caller.role is None:
            return self._public.take(address, now_ns)
        return (self._orders if is_order else self._requests).take(caller.sender, now_ns)

    def orders_wait_s(self, caller: Caller, count: int) -> float:
        """Count the orders of one WebSocket message; the same."""
        return self._orders.take(caller.sender, self._clock.mono_ns(), count)


class Denied(NamedTuple):
    """Why a request is not let in."""

    status: int
    code: str
    detail: str
    headers: dict[str, str] = {}  # noqa: RUF012  # never changed
    late_s: float = 0.0


class Door:
    """An ASGI application in front of another one, which hears callers only."""

    def __init__(self, behind: Any, origin: SameOrigin, register: Register, rates: Rates, clock: Clock) -> None:
        self._behind: ASGI = behind
        self._origin = origin
        self._register = register
        self._rates = rates
        self._clock = clock

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._behind(scope, receive, send)
            return
        found = self.look(scope)
        if isinstance(found, Denied):
            await deny(scope, receive, send, found)
            return
        scope[CALLER] = found
        await self._behind(scope, receive, send)

    def look(self, scope: Message) -> Caller | Denied:
        """Return who sends a request, by its head, or why it is not let in."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}  # names are lower case
        method = str(scope.get("method", "WEBSOCKET"))
        refusal = self._origin.refusal(method, headers)
        if refusal is not None:
            return self._counted(scope, Denied(*refusal))
        length = headers.get("content-length", "")
        if length.isdigit() and int(length[:12]) > BODY_BYTES_MAX:
            return self._counted(scope, Denied(413, "RequestEntityTooLarge", f"A body has at most {BODY_BYTES_MAX} bytes."))
        return self._admit(scope, headers, rule_of(method, scope["path"]))

    def _counted(self, scope: Message, why: Denied) -> Denied:
        """Return a refusal of somebody unknown: late, when the address has had too many."""
        wait_s = self._rates.wait_s(PUBLIC, _address(scope), False)
        return why._replace(late_s=_late_s(wait_s)) if wait_s else why

    def _admit(self, scope: Message, headers: Headers, rule: Rule) -> Caller | Denied:
        authorization, unknown = headers.get("authorization", ""), ""
        try:
            caller = self._register.identify(authorization, self._clock.wall_ns()) if authorization else PUBLIC
        except Unknown as error:
            caller, unknown = PUBLIC, str(error)
        wait_s = self._rates.wait_s(caller, _address(scope), rule.is_order)
        if wait_s:
            what = "This key sends more than it may; ENGINE_ORDERS_PER_S and ENGINE_REQUESTS_PER_S say how much that is."
            if caller.role is None:
                what = "Too many requests without a key come from this address."
            return Denied(429, "TooManyRequests", what, {"Retry-After": str(ceil(wait_s))}, _late_s(wait_s))
        if unknown:
            return Denied(401, "Unauthorized", unknown, {"WWW-Authenticate": "Bearer"})
        if allows(rule, caller):
            return caller
        if caller.role is None:
            what = f"This needs a key ({rule.need.value}): Authorization: Bearer tl_…; python -m engine keys create makes one."
            return Denied(401, "Unauthorized", what, {"WWW-Authenticate": "Bearer"})
        return Denied(403, "Forbidden", f"This is for {rule.need.value}; the key is a {caller.role.value}'s.")


def _address(scope: Message) -> str:
    return str((scope.get("client") or ("",))[0])


def _late_s(wait_s: float) -> float:
    return min(max(wait_s, WAIT_S_MIN), WAIT_S_MAX)


def caller_of(scope: Any) -> Caller:
    """Return who sent a request that the door has let in."""
    found: Caller = scope[CALLER]
    return found


async def deny(scope: Message, receive: Receive, send: Send, why: Denied) -> None:
    """Answer a request that is not let in; a WebSocket's handshake too."""
    if why.late_s:
        await asyncio.sleep(why.late_s)
    body = problem_bytes(why.status, why.code, why.detail)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    headers += [(name.lower().encode(), value.encode()) for name, value in why.headers.items()]
    kind = "websocket.http" if scope["type"] == "websocket" else "http"
    if kind != "http":
        await receive()  # the handshake itself
    await send({"type": f"{kind}.response.start", "status": why.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})
