"""Carries what partitions count into Prometheus metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

from mdp.partitions.counts import Counts
from mdp.plugins.host import RUNNING, Host
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
PLUGIN_FAILURES = metrics.counter("mdp", "plugin_failures", "Failures of plug-ins: raised, too slow, unusable", ["plugin"])
PLUGIN_MISSED = metrics.counter("mdp", "plugin_missed_events", "Events that a plug-in did not have", ["plugin"])
PLUGIN_OFF = metrics.gauge("mdp", "plugin_off_partitions", "Partitions in which a plug-in does not run", ["plugin"])
PLUGIN_BUSY = metrics.counter("mdp", "plugin_busy_seconds", "Time spent in a plug-in", ["plugin"])
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

    def take_plugins(self, hosts: Mapping[int, Sequence[Host]]) -> None:
        """Add what plug-ins did in these partitions since the last call."""
        off: dict[str, int] = {}
        for many in hosts.values():
            for host in many:
                name, told = host.plugin.name, host.told
                off[name] = off.get(name, 0) + (host.state != RUNNING)
                PLUGIN_FAILURES.labels(name).inc(max(0, host.tally.failures - told.failures))
                PLUGIN_MISSED.labels(name).inc(max(0, host.tally.missed - told.missed))
                PLUGIN_BUSY.labels(name).inc(host.take_busy_ns() / 1e9)
                host.told = copy(host.tally)
        for name, partitions in off.items():
            PLUGIN_OFF.labels(name).set(partitions)

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
