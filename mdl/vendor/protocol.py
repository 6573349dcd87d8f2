"""Answers one client's messages as the vendor does: connected, auth, subscribe, unsubscribe, in the vendor's own shapes.

Whatever bytes a client sends, the answers are status messages of `STATUSES`, at worst followed by a close.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Raw, Struct
from msgspec.json import Decoder, encode

from mdl.router import UNREADABLE, Head, symbol_of

STATUSES = {
    "connected": "Connected Successfully",
    "auth_success": "authenticated",
    "auth_failed": "authentication failed",  # then close 1008
    "auth_timeout": "No authentication request received.",  # then close 1008
    "success": "subscribed to: …, unsubscribed to: …",
    "error": "what was wrong with the request; the connection stays",
    "max_connections": "Maximum number of websocket connections exceeded. ",  # to the older connection; then close 1008
    "slow_consumer": "The client reads too slowly.",  # then close 1008
}
NOT_AUTHORIZED = "not authorized"  # an error: the plan has no such data. It names no subscription, and the connection stays
CLOSE_POLICY = 1008
MESSAGE_BYTES_MAX = 64 * 1024
TOPICS_MAX = 20_000

EVENTS = {
    "stocks": ("T", "Q", "A", "AM", "LULD"),
    "options": ("T", "Q", "A", "AM"),
    "crypto": ("XT", "XQ", "XA", "XAS"),
    "forex": ("C", "CA", "CAS"),
    "indices": ("V", "A", "AM"),
    "futures": ("T", "Q", "A", "AM"),
}


@dataclass(slots=True)
class Reply:
    """What to do for a client: send these messages, then perhaps close."""

    messages: list[str] = field(default_factory=list)
    close: bool = False


class _Request(Struct):
    action: str
    params: str = ""


_request = Decoder(_Request).decode
_raws = Decoder(list[Raw]).decode
_heads = Decoder(list[Head]).decode


def status(kind: str, message: str | None = None) -> str:
    """Return one status message as the vendor frames it: a list of one."""
    return encode([{"ev": "status", "status": kind, "message": STATUSES[kind] if message is None else message}]).decode()


class VendorSession:
    """One connection. `key` is empty until the client has authenticated; `plans` are the keys and what each may subscribe to."""

    def __init__(self, plans: Mapping[str, frozenset[str] | None], market: str) -> None:
        self.key = ""
        self.market = market
        self.wants = Wants()
        self._plans = plans
        self._events = EVENTS[market.split("/")[0]]

    def receive(self, data: bytes | str) -> Reply:
        """Answer one client message."""
        if len(data) > MESSAGE_BYTES_MAX:
            return Reply([status("error", "message too long")])
        try:
            request = _request(data)
        except UNREADABLE:
            return Reply([status("error", "invalid message: expected {action, params}")])
        action: Literal["auth", "subscribe", "unsubscribe"] | str = request.action
        if action == "auth":
            return self._auth(request.params)
        if not self.key:
            return Reply([status("auth_failed", "not authenticated")], close=True)
        if action in ("subscribe", "unsubscribe"):
            return self._change(action, request.params)
        return Reply([status("error", "unknown action")])

    def _auth(self, key: str) -> Reply:
        if self.key:
            return Reply([status("error", "already authenticated")])
        if key not in self._plans:
            return Reply([status("auth_failed")], close=True)
        self.key = key
        return Reply([status("auth_success")])

    def _change(self, action: str, params: str) -> Reply:
        topics = [topic.strip() for topic in params.split(",") if topic.strip()]
        if not topics:
            return Reply([status("error", "no subscriptions given")])
        return Reply([self._change_one(action, topic) for topic in topics])

    def _change_one(self, action: str, topic: str) -> str:
        ev, dot, symbol = topic.partition(".")
        if topic != "*" and (ev not in self._events or not dot or not symbol):
            return status("error", f"invalid subscription: {topic[:64]}")
        chosen = [(each, "*") for each in self._events] if topic == "*" else [(ev, symbol)]
        if action == "unsubscribe":
            self.wants.remove(chosen)
            return status("success", f"unsubscribed to: {topic}")
        plan = self._plans[self.key]
        if plan is not None and not plan >= {each for each, _ in chosen}:
            return status("error", NOT_AUTHORIZED)
        if self.wants.count + len(chosen) > TOPICS_MAX:
            return status("error", "too many subscriptions")
        self.wants.add(chosen)
        return status("success", f"subscribed to: {topic}")


class Wants:
    """A client's subscriptions: event types it wants whole, and symbols of others."""

    def __init__(self) -> None:
        self.whole: set[str] = set()
        self.symbols: dict[str, set[str]] = {}

    @property
    def count(self) -> int:
        return len(self.whole) + sum(len(symbols) for symbols in self.symbols.values())

    def add(self, topics: Iterable[tuple[str, str]]) -> None:
        """Subscribe; `*` replaces the single symbols of its event type."""
        for ev, symbol in topics:
            if symbol == "*":
                self.whole.add(ev)
                self.symbols.pop(ev, None)
            elif ev not in self.whole:
                self.symbols.setdefault(ev, set()).add(symbol)

    def remove(self, topics: Iterable[tuple[str, str]]) -> None:
        """Unsubscribe; `*` takes everything of its event type away."""
        for ev, symbol in topics:
            if symbol == "*":
                self.whole.discard(ev)
                self.symbols.pop(ev, None)
            elif ev in self.symbols:
                self.symbols[ev].discard(symbol)

    def has(self, ev: str, symbol: str) -> bool:
        return ev in self.whole or symbol in self.symbols.get(ev, ())


class SplitFrame:
    """A data frame taken apart once for all clients; a client that wants all of it gets the very same bytes."""

    def __init__(self, data: bytes | str) -> None:
        self.data = data
        self._events: list[tuple[str, str, Raw]] | None = None
        self._kinds: frozenset[str] = frozenset()

    def for_client(self, wants: Wants) -> bytes | str | None:
        """Return what `wants` asks of this frame, None when nothing; an undecodable frame goes to everybody."""
        if not wants.whole and not wants.symbols:
            return None
        if self._events is None:
            self._split()
        assert self._events is not None
        if self._kinds <= wants.whole:
            return self.data
        chosen = [raw for ev, symbol, raw in self._events if wants.has(ev, symbol)]
        if len(chosen) == len(self._events):
            return self.data
        return b"[%b]" % b",".join(chosen) if chosen else None

    def _split(self) -> None:
        try:
            pairs = zip(_raws(self.data), _heads(self.data), strict=True)
            self._events = [(head.ev, symbol_of(head), raw) for raw, head in pairs]
        except UNREADABLE:
            self._events = []
        self._kinds = frozenset(ev for ev, _, _ in self._events)
