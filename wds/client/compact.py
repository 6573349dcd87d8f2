"""Reads the compact form: makes of each item the frame that the JSON form would have brought.

Invariant: what comes out is the same as without the form, except that `snap` frames also carry the channel's number.
"""

from __future__ import annotations

from typing import Any


class Expander:
    """What one connection was told of numbers and fields."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[str, Any]] = {}
        self._base_ms = 0
        self._names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}

    def learn(self, reply: dict[str, Any]) -> None:
        """Take the reply to auth; one without kinds means that the server writes objects."""
        self._kinds = reply.get("kinds", {})
        self._base_ms = reply.get("base_ms", 0)
        self._names.clear()
        self._numbers.clear()

    def frames(self, payload: Any) -> list[dict[str, Any]]:
        """Return the frames of one decoded message, in order; items of unknown channels are left out."""
        several = isinstance(payload, list) and not (payload and isinstance(payload[0], int))
        items = payload if several else [payload]
        found = []
        for item in items:
            frame = self._expanded(item) if isinstance(item, list) else item
            if frame is not None:
                found.append(frame)
                if isinstance(frame.get("n"), int) and frame.get("t") in ("snap", "num"):
                    self._note(frame["ch"], frame["n"])
        return found

    def _note(self, ch: str, n: int) -> None:
        if self._numbers.get(ch) != n:
            self._names.pop(self._numbers.get(ch, -1), None)
            self._numbers[ch], self._names[n] = n, ch

    def forget(self, ch: str) -> None:
        """The channel is no longer followed."""
        self._names.pop(self._numbers.pop(ch, -1), None)

    def _expanded(self, item: list[Any]) -> dict[str, Any] | None:
        ch = self._names.get(item[0])
        if ch is None:
            return None  # on its way when the channel was left
        first, _, rest = ch.partition(":")
        kind = self._kinds.get(first) or self._kinds[f"{first}:{rest.partition(':')[0]}"]
        _, seq, step, ms, changed, *more = item
        frame = {"t": kind["t"], "ch": ch, "prev": seq - step, "seq": seq, "ts": ms + self._base_ms}
        if kind["t"] != "rows":
            return {**frame, "data": _named(kind["fields"], changed, more, frame["ts"])}
        frame["set"] = {sym: _named(kind["fields"], row[0], row[1:], 0) for sym, row in changed.items()}
        if more and more[0]:
            frame["del"] = more[0]
        if len(more) > 1:
            frame["order"] = more[1]
        return frame


def _named(fields: list[str], mask: int, values: list[Any], ts: int) -> dict[str, Any]:
    names = [name for at, name in enumerate(fields, 1) if mask >> at & 1]
    named = dict(zip(names, values, strict=True))
    return {**named, "ts": ts} if mask & 1 else named
