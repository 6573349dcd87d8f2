"""Reads the vendor's answers to our subscriptions and says which of them it refuses.

The vendor confirms by name (`subscribed to: T.*`) and refuses without one: after a successful authentication, a subscription that
the plan does not include is answered `{"ev":"status","status":"error","message":"not authorized"}`, the connection stays and
the other subscriptions flow. So what is refused is what was asked for and not confirmed. Sources: the vendor's knowledge
base ("Why am I not authorized …": each plan has its own kinds of data), its own client (one error a channel, no name), and
a dated observation of the live feed (NOI.* on a key without it, 2026-09-08).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.json import Decoder

from mdl.router import UNREADABLE

CONFIRMED = "subscribed to:"
NAMED_MAX = 5
HEAD_CHARS = 48  # a status frame says so right at its beginning


class _Status(Struct):
    ev: str = ""
    status: str = ""
    message: str = ""


_decode = Decoder(list[_Status]).decode


def is_status(data: bytes | str) -> bool:
    """Return whether a frame speaks of the connection and carries no data.  Cost: a look at its first bytes."""
    return '"status"' in data[:HEAD_CHARS] if isinstance(data, str) else b'"status"' in data[:HEAD_CHARS]


class Answers:
    """The answers on one connection; `asked` are all subscriptions sent on it."""

    def __init__(self, asked: Sequence[str]) -> None:
        self._open = dict.fromkeys(asked)  # not confirmed, in the order they were asked for
        self._refusal = ""

    def hear(self, data: bytes | str) -> None:
        """Take a status frame; what is no answer, or cannot be read, changes nothing (the router counts it)."""
        try:
            told = _decode(data)
        except UNREADABLE:
            return
        for one in told:
            if one.status == "error":
                self._refusal = one.message or "no reason given"
            elif one.status == "success" and one.message.startswith(CONFIRMED):
                for topic in one.message.removeprefix(CONFIRMED).split(","):
                    self._open.pop(topic.strip(), None)

    @property
    def refused(self) -> list[str]:
        """The subscriptions the vendor refuses, as far as its answers tell."""
        return list(self._open) if self._refusal else []

    @property
    def reason(self) -> str:
        """What to tell the operator; empty when nothing is refused."""
        refused = self.refused
        if not refused:
            return ""
        more = f" and {len(refused) - NAMED_MAX} more" if len(refused) > NAMED_MAX else ""
        return f"the vendor refuses the subscription {', '.join(refused[:NAMED_MAX])}{more}: {self._refusal}"
