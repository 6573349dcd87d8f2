"""Signs of life of cache and pipeline in, one verdict out: live, stale or closed, with the reason in words."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Raw, Struct

SECOND_NS = 1_000_000_000
PIPELINE = "status:pipeline"


class Verdict(NamedTuple):
    """What is told to every subscriber."""

    state: Literal["live", "stale", "closed"]
    reason: str = ""


class _Listener(Struct):
    state: str = "missing"


class _Pipeline(Struct):
    listener: _Listener | None = None


_decoder = msgspec.json.Decoder(_Pipeline)
LIVE = Verdict("live")
STARTING = Verdict("stale", "waiting for the pipeline's first sign of life")


class Freshness:
    """Judges by: cache up or down, age of the last status:pipeline document, the listener's state in it."""

    def __init__(self, silence_s: float, now_ns: int) -> None:
        self._silence_ns = int(silence_s * SECOND_NS)
        self._cache_reason: str | None = None
        self._heard_ns: int | None = None
        self._listener: str | None = None
        self.verdict = STARTING

    def on_cache(self, up: bool, reason: str, now_ns: int) -> Verdict:
        """The cache went away or came back; a return gives the processors a fresh silence period."""
        self._cache_reason = None if up else (f"cache unavailable: {reason}" if reason else "cache unavailable")
        if up and self._heard_ns is not None:
            self._heard_ns = max(self._heard_ns, now_ns - self._silence_ns // 2)
        return self.on_time(now_ns)

    def on_pipeline(self, data: bytes | Raw, now_ns: int) -> Verdict:
        """A live status:pipeline document arrived."""
        self._heard_ns = now_ns
        self._listener = _state_of(data)
        return self.on_time(now_ns)

    def on_time(self, now_ns: int) -> Verdict:
        """Judge again."""
        self.verdict = self._judge(now_ns)
        return self.verdict

    def _judge(self, now_ns: int) -> Verdict:
        if self._cache_reason is not None:
            return Verdict("stale", self._cache_reason)
        if self._heard_ns is None:
            return STARTING
        if now_ns - self._heard_ns > self._silence_ns:
            return Verdict("stale", "processors silent")
        if self._listener == "live":
            return LIVE
        if self._listener == "ended":
            return Verdict("closed", "replay ended")
        return Verdict("stale", f"feed {self._listener or 'missing'}")


def _state_of(data: Any) -> str | None:
    try:
        listener = _decoder.decode(data).listener
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "unreadable"
    return listener.state if listener else None
