"""What workers and partitions say of themselves in, the document `status:pipeline` out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mdp.partition import Counts

LISTENER_SILENT_MS = 3_000
WORKER_SILENT_MS = 3_000
WORKER_FORGOTTEN_MS = 60_000


class WorkerStats(msgspec.Struct):
    """One worker's last second; `lag_ms` = receive to cache, worst of the second; `flush_ms` = last round."""

    worker: str
    ts: int
    partitions: int = 0
    lag_ms: float = 0
    flush_ms: float = 0
    interval_ms: float = 0


class PipelineStatus:
    """Builds the status once a second; keeps the last totals to tell rates."""

    def __init__(self) -> None:
        self._last_events = 0
        self._last_ms = 0
        self._listener: dict[str, Any] | None = None
        self._listener_seen_ms = 0

    def build(
        self, now_ms: int, counts: Iterable[bytes], workers: Iterable[bytes], listener: dict[str, Any] | None, partitions: int
    ) -> bytes:
        """Return the document's data: `{listener, processors, ts}`; shares and stats are JSON as they were written."""
        if listener is not None and listener is not self._listener:
            self._listener, self._listener_seen_ms = listener, now_ms
        total = _sum([msgspec.json.decode(body, type=Counts) for body in counts])
        alive = [stats for body in workers if now_ms - (stats := _stats(body)).ts < WORKER_SILENT_MS]
        events = sum(total.events.values())
        seconds = (now_ms - self._last_ms) / 1000
        rate = max(0.0, (events - self._last_events) / seconds) if self._last_ms and seconds > 0 else 0.0
        self._last_events, self._last_ms = events, now_ms
        processors = {
            "workers": len(alive),
            "partitions": sum(stats.partitions for stats in alive),
            "partitions_expected": partitions,
            "events_s": round(rate),
            "lag_ms": round(max((stats.lag_ms for stats in alive), default=0.0), 1),
            "flush_ms": round(max((stats.flush_ms for stats in alive), default=0.0), 1),
            "events": events,
            "bad_events": total.bad,
            "expired_events": sum(total.expired.values()),
            "dropped_events": sum(total.dropped.values()),
            "redelivered_events": total.redelivered,
            "unknown_events": sum(total.unknown.values()),
            "malformed_batches": total.malformed_batches,
            "late_bar_trades": total.late,
            "unknown_types": total.unknown,
            "by_stream": {
                stream: {
                    "events": total.events.get(stream, 0),
                    "expired": total.expired.get(stream, 0),
                    "dropped": total.dropped.get(stream, 0),
                }
                for stream in sorted({*total.events, *total.expired, *total.dropped})
            },
        }
        return msgspec.json.encode({"listener": self._listener_view(now_ms), "processors": processors, "ts": now_ms})

    def _listener_view(self, now_ms: int) -> dict[str, Any] | None:
        if self._listener is None:
            return None
        if now_ms - self._listener_seen_ms > LISTENER_SILENT_MS:
            return {**self._listener, "state": "silent"}
        return self._listener


def forgotten(workers: Mapping[bytes, bytes], now_ms: int) -> list[bytes]:
    """Return the names of workers that are gone for so long that nobody asks for them any more."""
    return [name for name, body in workers.items() if now_ms - _stats(body).ts > WORKER_FORGOTTEN_MS]


def _stats(body: bytes) -> WorkerStats:
    return msgspec.json.decode(body, type=WorkerStats)


def _sum(parts: list[Counts]) -> Counts:
    total = Counts()
    for part in parts:
        total.redelivered += part.redelivered
        total.bad += part.bad
        total.malformed_batches += part.malformed_batches
        total.late += part.late
        for mine, theirs in (
            (total.events, part.events),
            (total.expired, part.expired),
            (total.dropped, part.dropped),
            (total.unknown, part.unknown),
        ):
            for name, n in theirs.items():
                mine[name] = mine.get(name, 0) + n
    return total
