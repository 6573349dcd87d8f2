"""Decides what to do with an HTTP request: upgrade to the stream, answer with a page, or refuse with a reason.

Invariant: a token in the URL is always refused (URLs end up in logs), and so is a browser page of a foreign origin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

from wds.access.events import STATUS, Ask, Refusal, ask_of, head, problem
from wds.protocol import COMPAT_PATH, EVENTS_PATH, PATH, TICKET_PATH

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
SCRIPT_PATH = "/static/tapeline.js"
JS_TYPE = "text/javascript; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"
METHODS = {EVENTS_PATH: "GET", TICKET_PATH: "POST"}


class Upgrade(NamedTuple):
    """Go on as WebSocket; `token` came in the Authorization header; `deflate` = compress, without context.

    `compat` = in the language of the original service.
    """

    token: str | None
    deflate: bool = False
    compat: bool = False


class Events(NamedTuple):
    """Begin an event stream."""

    ask: Ask


class NewTicket(NamedTuple):
    """Answer with a ticket for the token."""

    token: str
    origin: str | None


class Problem(NamedTuple):
    """Answer with this response as it is, and close."""

    response: bytes


class Page(NamedTuple):
    """Answer with this and close."""

    status: int
    body: bytes
    content_type: str = TEXT_TYPE
    open_to_all: bool = False  # other origins may read it (CORS)


Decision = Upgrade | Events | NewTicket | Problem | Page


def decide(
    method: str, target: str, headers: Mapping[str, str], origins: Sequence[str], script: bytes, compat: bool = False
) -> Decision:  # fmt: skip
    """Return what to do with a request; `headers` have lower-case names. `compat` = the original's path is served, too."""
    path, _, query = target.partition("?")
    if path in METHODS:
        return _over_http(method, path, query, headers, origins)
    if method not in ("GET", "HEAD"):
        return _text(405, "only GET")
    if path == "/healthz":
        return _text(200, "ok")
    if path == SCRIPT_PATH:
        return Page(200, script, JS_TYPE, open_to_all=True)
    if path == COMPAT_PATH and not compat:
        return _text(404, f"{COMPAT_PATH} is served with WDS_COMPAT=true; the stream is at {PATH}")
    if path not in (PATH, COMPAT_PATH):
        return _text(404, f"nothing here; the stream is at {PATH}")
    decision = _stream(query, headers, origins)
    return Upgrade(decision.token, compat=True) if path == COMPAT_PATH and isinstance(decision, Upgrade) else decision


def _over_http(method: str, path: str, query: str, headers: Mapping[str, str], origins: Sequence[str]) -> Decision:
    origin, token = headers.get("origin"), bearer(headers)
    if origin is not None and not origin_allowed(origin, headers.get("host", ""), origins):
        return Problem(problem(403, "forbidden", "this origin is not allowed; set WDS_ORIGINS", None))
    if method == "OPTIONS":  # a browser asks whether a page of another origin may send the Authorization header
        allowed = {"Access-Control-Allow-Methods": METHODS[path], "Access-Control-Allow-Headers": "Authorization, Last-Event-ID"}
        return Problem(head(204, TEXT_TYPE, origin, {**allowed, "Access-Control-Max-Age": "600"}))
    if method != METHODS[path]:
        return Problem(problem(405, "bad_request", f"{path} takes {METHODS[path]}", origin, None, {"Allow": METHODS[path]}))
    if path == TICKET_PATH:
        if token is None or query:
            refused = "send the token in the Authorization header, and nothing in the URL"
            return Problem(problem(401, "unauthorized", refused, origin))
        return NewTicket(token, origin)
    ask = ask_of(query, headers, token)
    return Problem(problem(STATUS[ask.code], ask.code, ask.detail, origin)) if isinstance(ask, Refusal) else Events(ask)


def _stream(query: str, headers: Mapping[str, str], origins: Sequence[str]) -> Upgrade | Page:
    if "token" in query.lower() or "jwt" in query.lower():
        return _text(400, "never put a token in the URL: send it as the first message or in the Authorization header")
    if headers.get("upgrade", "").lower() != "websocket":
        return _text(426, "this is a WebSocket endpoint")
    origin = headers.get("origin")
    if origin is not None and not origin_allowed(origin, headers.get("host", ""), origins):
        return _text(403, "this origin is not allowed; set WDS_ORIGINS")
    return Upgrade(bearer(headers), _asks_to_deflate(query, headers.get("sec-websocket-extensions", "")))


def bearer(headers: Mapping[str, str]) -> str | None:
    """Return the token of the Authorization header."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _asks_to_deflate(query: str, extensions: str) -> bool:
    # Every browser offers the extension, so the offer alone asks for nothing: for most clients the bytes are not what is scarce.
    # A browser cannot choose the parameters of its offer, so it asks in the URL.
    wanted = "server_no_context_takeover" in extensions or "deflate=1" in query.split("&")
    return "permessage-deflate" in extensions and wanted


def origin_allowed(origin: str, host: str, origins: Sequence[str]) -> bool:
    """Whether a browser page of `origin` may connect to us as `host`."""
    if origins:
        return "*" in origins or origin.rstrip("/") in origins
    found = _hostname(origin)
    return found is not None and (found in LOCAL_HOSTS or found == _hostname(f"//{host}"))


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def client_address(peer: str, forwarded: str | None, trusted: Sequence[str]) -> str:
    """Return whose connection it is: the peer, or what a trusted proxy says it forwards for (the right-most hop)."""
    if forwarded and is_trusted(peer, tuple(trusted)):
        return forwarded.rpartition(",")[2].strip()[:64] or peer
    return peer


@lru_cache(4096)
def is_trusted(peer: str, trusted: tuple[str, ...]) -> bool:
    """Return whether `peer` is one of the addresses, or in one of the networks, whose word on others counts."""
    try:
        ip = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    return any(ip in ip_network(name, strict=False) for name in trusted)


def address_key(address: str) -> str:
    """Return what limits per address count: the IPv4 address, or the /64 of an IPv6 one, of which a host has all."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped) if ip.ipv4_mapped is not None else str(ip_network((ip.packed[:8] + bytes(8), 64)))


def _text(status: int, text: str) -> Page:
    return Page(status, text.encode() + b"\n")
