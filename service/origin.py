"""Refuses what a web page makes a browser send to a port that is not for pages: other origins, rebound names, forms.

A browser on the operator's machine reaches our ports as the operator does. It cannot hide the page's origin, and it names the
host by which the page reached it: a public name that an attacker has pointed at this machine is none of ours. Programs send no
`Origin` and pass.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGI: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]
PRIVATE_SUFFIXES = (".localhost", ".svc", ".svc.cluster.local")  # nobody can register a name below these
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
HOSTS_MAX = 256  # names remembered
POLICY_VIOLATION = 1008
TITLES = {403: "Forbidden", 415: "Unsupported Media Type", 421: "Misdirected Request"}


class Refusal(NamedTuple):
    """Why a request is not looked at; `code` is for programs."""

    status: int
    code: str
    detail: str


class SameOrigin:
    """An ASGI application that only hears programs and its own pages.

    `names` are further host names by which it is addressed. With `json_only` what changes something has a body of JSON or none:
    a form, which any page may post, has another type.
    """

    def __init__(self, app: Any, names: Iterable[str] = (), json_only: bool = False) -> None:
        self._app: ASGI = app
        self._names = frozenset(name.strip().lower() for name in names if name.strip())
        self._json_only = json_only
        self._known: dict[str, bool] = {}  # host → whether it is ours: clients name it with every request

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            refusal = self.refusal(str(scope.get("method", "GET")), headers)
            if refusal is not None:
                await _refuse(scope, send, refusal)
                return
        await self._app(scope, receive, send)

    def refusal(self, method: str, headers: MutableMapping[str, str]) -> Refusal | None:
        """Return why a request is refused, None when it is not. `headers` have lower-case names."""
        host = headers.get("host", "")
        ours = self._known.get(host)
        if ours is None:
            if len(self._known) >= HOSTS_MAX:
                self._known.clear()
            ours = self._known[host] = self._ours(host)
        if not ours:
            what = f"This port is not known as {host[:100]!r}: use its IP address, localhost, or list the name in TRUSTED_HOSTS."
            return Refusal(421, "UnknownHost", what)
        origin = headers.get("origin")
        elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate"
        if elsewhere or (origin is not None and urlsplit(origin).netloc.lower() != host.lower()):
            return Refusal(403, "ForeignOrigin", "A web page of another origin may not use this port; programs send no Origin.")
        if self._json_only and method in CHANGING and _has_body(headers) and not _is_json(headers.get("content-type", "")):
            return Refusal(415, "UnsupportedMediaType", "Send JSON, and say so: Content-Type: application/json")
        return None

    def _ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if not name or name in self._names:
            return bool(name)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return "." not in name or name.endswith(PRIVATE_SUFFIXES)
        return True


def _has_body(headers: MutableMapping[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


async def _refuse(scope: Message, send: Send, refusal: Refusal) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal.detail})  # before accept: HTTP 403
        return
    facts = {"type": f"urn:tapeline:problem:{refusal.code}", "title": TITLES[refusal.status], "status": refusal.status}
    body = json.dumps({**facts, "detail": refusal.detail, "code": refusal.code}).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
