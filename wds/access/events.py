"""Reads the request for an event stream, writes its problems, and keeps where a client stands in the stream's `id`.

Invariant: a request that cannot be served is answered with an HTTP status and problem+json before a byte of the stream. A token
is never taken from the URL; a ticket is, because it is worth nothing a moment later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote

from wds.protocol import CHANNELS_PER_COMMAND_MAX, Code, Since, encode, tier

PROBLEM_TYPE = "application/problem+json"
ID_CHARS_MAX = 4000  # comes back as a header, and a line of those has 8,192 at most
RESUMED_MAX = 500
STATUS: dict[Code, int] = {
    "bad_request": 400,
    "unauthorized": 401,
    "token_expired": 401,
    "unknown_key": 401,
    "forbidden": 403,
    "unknown_channel": 404,
    "already_subscribed": 409,
    "limit": 429,
    "rate_limited": 429,
    "too_large": 413,
    "unavailable": 503,
    "internal": 500,
}
PHRASES = {
    200: "OK", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 409: "Conflict", 413: "Content Too Large", 429: "Too Many Requests", 500: "Internal Server Error",
    503: "Service Unavailable",
}  # fmt: skip


class Ask(NamedTuple):
    """What a stream is to bring, who asks (a token or a ticket), and where it goes on; `origin` = the page that may read it."""

    channels: tuple[str, ...]
    hz: str | None
    fields: tuple[str, ...]
    since: Mapping[str, Since]
    token: str | None
    ticket: str | None
    origin: str | None

    def command(self) -> bytes:
        """Return the `sub` command that asks for the same over the WebSocket."""
        more = {"hz": self.hz, "fields": list(self.fields), "since": self.since}
        return encode({"op": "sub", "id": 1, "ch": self.channels, **{name: value for name, value in more.items() if value}})


class Refusal(NamedTuple):
    """Why there is no stream: an error code of the protocol, and in words what to do."""

    code: Code
    detail: str


def ask_of(query: str, headers: Mapping[str, str], token: str | None) -> Ask | Refusal:
    """Return what a request asks for; `headers` have lower-case names."""
    try:
        given = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=16, errors="strict")
    except ValueError:
        return Refusal("bad_request", "the query cannot be read: ?ch=quote:AAPL,board:volume&hz=4&fields=last,bid")
    if unknown := given.keys() - {"ch", "hz", "fields", "ticket"}:
        advice = (
            "a token never goes into the URL: use the Authorization header, or a ticket" if "token" in unknown else "not known"
        )
        return Refusal("bad_request", f"{', '.join(sorted(unknown))[:80]}: {advice}")
    channels, fields = _words(given.get("ch", ())), _words(given.get("fields", ()))
    hz, ticket = given.get("hz", [None])[-1], given.get("ticket", [None])[-1]
    if not channels or len(channels) > CHANNELS_PER_COMMAND_MAX:
        return Refusal("bad_request", f"ch: name 1 to {CHANNELS_PER_COMMAND_MAX} channels, as in ?ch=quote:AAPL,board:volume")
    if hz is not None and tier(hz) is None:
        return Refusal("bad_request", "hz is one of raw, 10, 4, 1, 0.2")
    if token is None and not ticket:
        return Refusal("unauthorized", "send the token in the Authorization header, or ?ticket= from POST /v1/ticket")
    return Ask(channels, hz, fields, positions(headers.get("last-event-id", "")), token, ticket, headers.get("origin"))


def _words(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in value.split(",") if word)


def head(status: int, content_type: str, origin: str | None, more: Mapping[str, str]) -> bytes:
    """Return an HTTP response's head; the connection ends with the response."""
    lines = [f"HTTP/1.1 {status} {PHRASES.get(status, '')}", f"Content-Type: {content_type}", "Cache-Control: no-store"]
    if origin is not None:
        lines += [f"Access-Control-Allow-Origin: {origin}", "Vary: Origin"]
    lines += [*(f"{name}: {value}" for name, value in more.items()), "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def problem(
    status: int,
    code: str,
    detail: str,
    origin: str | None,
    after_ms: int | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Return the response (RFC 9457) to a request that was refused; `after_ms` = it may pass later."""
    more = {**more, **({"WWW-Authenticate": "Bearer"} if status == 401 else {})}
    after: dict[str, int] = {}
    if after_ms is not None:
        more["Retry-After"] = str(-(-after_ms // 1000))
        after["after_ms"] = after_ms
    body = encode(
        {"type": "about:blank", "title": PHRASES.get(status, ""), "status": status, "code": code, "detail": detail, **after}
    )
    return head(status, PROBLEM_TYPE, origin, {**more, "Content-Length": str(len(body))}) + body


def position_id(places: Iterable[tuple[str, str, int]]) -> str:
    """Return the `id` of a stream that stands at (channel, epoch, seq); what does not fit comes as a snap after a reconnect."""
    by_epoch: dict[str, list[str]] = {}
    size = 0
    for channel, epoch, seq in places:
        entry = f"{quote(channel, safe=':')}={seq}"
        size += len(entry) + 1 + (0 if epoch in by_epoch else len(epoch) * 3 + 2)
        if size > ID_CHARS_MAX:
            break
        by_epoch.setdefault(epoch, []).append(entry)
    return ";".join(f"{quote(epoch, safe='')}!{','.join(entries)}" for epoch, entries in by_epoch.items())


def positions(text: str) -> dict[str, Since]:
    """Return what a Last-Event-ID says; what cannot be read is as if it had not been sent."""
    found: dict[str, Since] = {}
    for part in text.split(";"):
        epoch, _, entries = part.partition("!")
        for entry in entries.split(","):
            channel, _, seq = entry.partition("=")
            if (
                channel
                and seq.isascii()
                and seq.isdigit()
                and len(seq) <= 15
                and len(found) < RESUMED_MAX
                and len(channel) <= 300
            ):
                found[unquote(channel)] = Since(unquote(epoch)[:64], int(seq))
    return found
