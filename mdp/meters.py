"""Carries what partitions count into Prometheus metrics."""

from __future__ import annotations

from mdp.partition import Counts
from service import metrics

BY = ["source", "stream"]
LAG = metrics.histogram("mdp", "receive_to_cache_ms", "Age of the oldest event of a flush when the cache had it")
ROUND = metrics.histogram("mdp", "flush_ms", "Duration of a flush round, collecting and writing")
EVENTS = metrics.counter("mdp", "events", "Events processed", BY)
LOST = metrics.counter("mdp", "lost_events", "Events missing by sequence numbers", [*BY, "reason"])
REFUSED = metrics.counter("mdp", "fenced_events", "Events of a publisher that was replaced: its source has a newer one", BY)
BAD = metrics.counter("mdp", "bad_events", "Events that could not be used")
REDELIVERED = metrics.counter("mdp", "redelivered_events", "Events skipped because the checkpoint holds them already")
DISCARDED = metrics.counter("mdp", "discarded_events", "Events that were passed over", ["reason"])
FORGOTTEN = metrics.counter("mdp", "forgotten_symbols", "Symbols deleted because they are not traded any more")
UNKNOWN = metrics.counter("mdp", "unknown_events", "Events of unknown types")
UNREADABLE = metrics.counter("mdp", "unreadable_cells", "Checkpoint cells that could not be read and were set aside")
OWNED = metrics.gauge("mdp", "partitions", "Partitions owned")
FENCED = metrics.counter("mdp", "fenced_flushes", "Flushes refused because another worker owns the partition")
PLAIN = {"bad": BAD, "redelivered": REDELIVERED, "unknown": UNKNOWN, "unreadable": UNREADABLE, "forgotten": FORGOTTEN}


class Meters:
    """Turns the partitions' totals into increments: what earlier owners counted is theirs."""

    def __init__(self) -> None:
        self._before: dict[int, dict[tuple[str, str], int]] = {}

    def take(self, number: int, counts: Counts) -> None:
        """Add what a partition counted since the last call."""
        after = _flat(counts)
        before = self._before.get(number)
        self._before[number] = after
        if before is not None:
            for key, n in after.items():
                _carry(*key, n - before.get(key, 0))

    def forget(self, number: int) -> None:
        """The partition is not ours any more."""
        self._before.pop(number, None)


def _flat(counts: Counts) -> dict[tuple[str, str], int]:
    plain = {
        "bad": counts.bad,
        "redelivered": counts.redelivered,
        "unknown": sum(counts.unknown.values()),
        "unreadable": counts.unreadable_cells,
        "forgotten": counts.forgotten,
    }
    by_key = {"events": counts.events, "expired": counts.expired, "dropped": counts.dropped, "fenced": counts.fenced}
    by_key["discarded"] = counts.discarded
    return {(name, ""): n for name, n in plain.items()} | {
        (name, key): n for name, found in by_key.items() for key, n in found.items()
    }


def _carry(name: str, key: str, more: int) -> None:
    if more <= 0:
        return
    source, _, stream = key.partition("/")
    if name in ("expired", "dropped"):
        LOST.labels(source, stream, name).inc(more)
    elif name == "discarded":
        DISCARDED.labels(key).inc(more)
    elif name in ("events", "fenced"):
        (EVENTS if name == "events" else REFUSED).labels(source, stream).inc(more)
    else:
        PLAIN[name].inc(more)
