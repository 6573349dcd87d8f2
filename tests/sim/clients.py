"""Keeps what a browser would show: a copy of each channel, made of nothing but the frames it was sent.

Invariant: a break of a channel's chain fails at once (see tests/wds/replica.py); a copy knows when its newest event happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from tests.wds.replica import Replica
from wds.fanout.hub import Hub
from wds.fanout.member import Member, Want
from wds.fanout.outbox import Ladder
from wds.protocol import Since


class Browser:
    """One client of a data service; it reconnects with what it has when the service comes back."""

    def __init__(self, name: str, hz: Any) -> None:
        self.name = name
        self.hz = hz
        self.replica = Replica()
        self.ts: dict[str, int] = {}  # channel → ms, of the newest document seen
        self.member: Member | None = None

    def connect(self, hub: Hub, channels: Iterable[str], now_ns: int) -> None:
        """Subscribe to `channels`, resuming where the copies stand."""
        replica = self.replica
        replica.status.clear()  # a new connection assumes "live" until told otherwise
        member = self.member = Member(self._take, Ladder())
        hub.add(member)
        wants = [
            Want(ch, self.hz, None, Since(replica.epoch[ch], replica.seq[ch]) if ch in replica.seq else None) for ch in channels
        ]
        hub.join(member, wants, self._joined, now_ns)

    def _joined(self, outcomes: list[Any]) -> Callable[[], None]:
        for outcome in outcomes:
            if outcome.recovered is False:
                self.replica.forget(outcome.ch)
        return lambda: None

    def _take(self, payload: bytes) -> None:
        self.replica.take(payload)
        for line in payload.splitlines():
            frame = json.loads(line)
            for item in frame if isinstance(frame, list) else [frame]:
                if "ts" in item and "ch" in item:
                    self.ts[item["ch"]] = item["ts"]
