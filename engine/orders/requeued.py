"""Lets the engine know an order again that an operator gives back from the dead letters: a key good for that body alone.

Dead letters carry no sender's key: people read them. What stands in for it opens nothing but this one message.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from engine.access.keys import Caller, Role

BY_OPERATOR = Caller("requeue", Role.OPERATOR)
PREFIX = "requeue:"


class Requeued:
    """Makes and knows such keys; engines that share the admin token know each other's."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def key(self, body: bytes) -> str:
        """Return the key of this body."""
        return PREFIX + hmac.new(self._secret, b"tapeline requeue\n" + body, hashlib.sha256).hexdigest()

    def shows(self, shown: Any, body: bytes) -> bool:
        """Return whether a message shows the key of its own body."""
        text = shown.decode("latin-1") if isinstance(shown, bytes) else shown
        return isinstance(text, str) and hmac.compare_digest(text.encode(), self.key(body).encode())
