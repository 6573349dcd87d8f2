"""Keeps each channel's current copy from its frames, as a client does; a broken chain is reported, never hidden.

Invariant: after each frame a copy equals the server's state at (epoch, seq), or the channel is in `broken` until a snap
or the answer to a get mends it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Copy:
    """One channel as the client knows it. `data`: state (merge, rows) or the recent events, oldest first."""

    epoch: str
    seq: int
    ts: int
    data: Any
    state: str = "live"
    reason: str = ""


@dataclass
class Push:
    """One frame that concerns a channel, with the channel's copy after it."""

    kind: str  # snap upd rows event lost status
    ch: str
    frame: dict[str, Any]
    copy: Copy | None


@dataclass
class Follower:
    """All channels of one client."""

    events_max: int = 1000
    copies: dict[str, Copy] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    status: dict[str, tuple[str, str]] = field(default_factory=dict)

    def take(self, frame: dict[str, Any]) -> Push | None:
        """Apply one frame; None when it does not concern a channel, or must wait for the mending of a broken chain."""
        kind, ch = frame.get("t"), frame.get("ch")
        if not isinstance(ch, str) or kind not in ("snap", "upd", "rows", "event", "lost", "status"):
            return None
        if kind == "snap":
            self.mend(frame)
        elif kind == "status":
            self._mark(ch, frame)
        elif not self._advance(kind, ch, frame):
            return None
        return Push(kind, ch, frame, self.copies.get(ch))

    def mend(self, snap: dict[str, Any]) -> None:
        """Take a snap, or one snapshot of a get's answer."""
        ch = snap["ch"]
        state, reason = self.status.get(ch, ("live", ""))
        self.copies[ch] = Copy(snap["epoch"], snap["seq"], snap["ts"], snap["data"], state, reason)
        self.broken.discard(ch)

    def _mark(self, ch: str, frame: dict[str, Any]) -> None:
        self.status[ch] = (frame["state"], frame.get("reason", ""))
        if ch in self.copies:
            self.copies[ch].state, self.copies[ch].reason = self.status[ch]

    def _advance(self, kind: str, ch: str, frame: dict[str, Any]) -> bool:
        copy = self.copies.get(ch)
        if copy is None or ch in self.broken or (kind != "lost" and frame["prev"] != copy.seq):
            self.broken.add(ch)
            return False
        if kind == "lost":
            copy.seq += frame["n"]
            return True
        copy.seq, copy.ts = frame["seq"], frame["ts"]
        if kind == "upd":
            copy.data = {**copy.data, **frame["data"]}
        elif kind == "rows":
            copy.data = _merged(copy.data, frame)
        else:
            copy.data = [*copy.data[-self.events_max + 1 :], frame["data"]]
        return True

    def since(self, channels: list[str]) -> dict[str, dict[str, Any]]:
        """Return where the copies of `channels` stand, as `sub` takes it."""
        known = {ch: self.copies[ch] for ch in channels if ch in self.copies and ch not in self.broken}
        return {ch: {"epoch": copy.epoch, "seq": copy.seq} for ch, copy in known.items()}

    def forget(self, ch: str) -> None:
        """The channel is no longer followed."""
        self.copies.pop(ch, None)
        self.status.pop(ch, None)
        self.broken.discard(ch)


def _merged(board: dict[str, Any], frame: dict[str, Any]) -> dict[str, Any]:
    rows = {**board["rows"], **frame["set"]}
    for gone in frame.get("del", ()):
        rows.pop(gone, None)
    order = frame.get("order", board["order"])
    return {"order": order, "rows": {sym: rows[sym] for sym in order if sym in rows}}
