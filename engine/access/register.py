"""Recognises who sends a request, by the keys that count now, and ends what was opened with a key that no longer does."""

from __future__ import annotations

from collections.abc import Callable

from engine.access.keys import HOLDER_OF_TOKEN, PUBLIC, READER_OF_ALL, Caller, KeyRing, digest, same
from engine.access.limits import Places

SOCKETS_MAX = 64
BEARER = "bearer "


class Unknown(Exception):
    """The key that was shown does not count; the text says what to do."""


class TooManySockets(Exception):
    """A key has as many WebSockets open as it may."""


class Register:
    """The keys of one gateway.

    `api_token` is a further operator's, `market_data_token` a further reader's of everything; `sockets_max` is how many
    WebSockets each key may have.
    """

    def __init__(self, api_token: str = "", sockets_max: int = SOCKETS_MAX, market_data_token: str = "") -> None:
        self.ring = KeyRing()
        self.used_ns: dict[str, int] = {}  # key id → when it was shown last
        holders = ((api_token, HOLDER_OF_TOKEN), (market_data_token, READER_OF_ALL))
        self._tokens = [(digest(token), holder) for token, holder in holders if token]
        self._places = Places(sockets_max)
        self._sockets: dict[object, tuple[Caller, Callable[[], object]]] = {}

    def take(self, ring: KeyRing, now_ns: int) -> None:
        """Let these keys count from now on, and no others."""
        self.ring = ring
        self.used_ns = {key_id: at_ns for key_id, at_ns in self.used_ns.items() if key_id in ring.keys}
        self.look(now_ns)

    def look(self, now_ns: int) -> None:
        """End what was opened with a key that is withdrawn, changed or expired."""
        for caller, close in list(self._sockets.values()):
            if not self.ring.counts(caller, now_ns):
                close()

    def identify(self, authorization: str, now_ns: int) -> Caller:
        """Return who sends this header, the public without one.  Raises: Unknown."""
        if not authorization:
            return PUBLIC
        if authorization[: len(BEARER)].lower() != BEARER:
            raise Unknown("Send a key of this exchange: Authorization: Bearer tl_…")
        return self.bearer(authorization[len(BEARER) :].strip(), now_ns)

    def bearer(self, text: str, now_ns: int) -> Caller:
        """Return who shows a key or the token.  Raises: Unknown."""
        caller = self.ring.bearer(text, now_ns)
        if caller is not None:
            self.used_ns[caller.sender] = now_ns
            return caller
        for kept, holder in self._tokens:
            if same(digest(text), kept):
                return holder
        raise Unknown("This key is unknown, withdrawn or expired; an operator makes keys: python -m engine keys create")

    def enter(self, caller: Caller, close: Callable[[], object]) -> object:
        """Take a place for a WebSocket; `close` is called when the key no longer counts.  Raises: TooManySockets."""
        if not self._places.enter(caller.sender):
            raise TooManySockets(f"This key has {self._places.most} WebSockets open, which is the most; close one.")
        place = object()
        self._sockets[place] = caller, close
        return place

    def leave(self, place: object) -> None:
        """Give the place of a WebSocket back."""
        caller, _ = self._sockets.pop(place)
        self._places.leave(caller.sender)
