"""Builds `status:pipeline` from what workers, partitions and listeners say of themselves. Pure; times are arguments.

Invariant: a partition or a source is called fresh only on the word of somebody who was heard within the last seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mdp.leader.reading import Reading
from mdp.partitions.counts import Counts

SILENT_MS = 3_000  # of a worker
UNHEARD_MS = 2_500  # of a source, whose marks and status come once a second; that nobody hears it is as old already
FORGOTTEN_MS = 60_000  # a worker
SOURCE_FORGOTTEN_MS = 24 * 3_600_000
PLUGIN_STATES = ("refused", "off", "paused", "running")  # the worst first
LAST_WORDS = ("ended", "stopped")  # after them silence is no fault


class PluginStats(msgspec.Struct):
    """One plug-in, in one worker or in all. `state`: running, paused (it is started again), off (somebody must), refused.

    `off`: the partitions in which it does not run; `error`: why, or the last failure; `gaps`: how often its state stopped and
    went on later; `missed_events`: what it did not have in them.
    """

    name: str
    version: str
    state: str
    off: list[int] = []
    error: str = ""
    failures: int = 0
    gaps: int = 0
    missed_events: int = 0
    boards: list[str] = []


class WorkerStats(msgspec.Struct):
    """One worker's last second.

    `flowing`: the partitions it reads and whose flushes the cache takes; `heard`: source → the partitions in which it was
    heard lately; `lag_ms`: source → receive to cache of what is watched (of all, where
    nobody watches), worst of the second; `flush_ms`: the last round; `boards`: the operators' own ones that it ranks;
    `plugins`: those that are installed there; `days`: the trading days (starts, ms) of stocks that its symbols are in.
    """

    worker: str
    ts: int
    flowing: list[int] = []
    heard: dict[str, list[int]] = {}
    lag_ms: dict[str, float] = {}
    flush_ms: float = 0
    interval_ms: float = 0
    boards: list[str] = []
    plugins: list[PluginStats] = []
    days: list[int] = []


@dataclass(slots=True)
class _Seen:
    """A worker's last words, and when they were new (our monotonic ms): no two machines' clocks are compared."""

    body: bytes
    new_ms: int


@dataclass(slots=True)
class _Source:
    """What is remembered of a source."""

    facts: dict[str, Any] | None = None  # its listener's newest status event
    facts_ms: int = 0
    heard_ms: int = 0
    events: int = 0


class _View(msgspec.Struct):
    state: str
    events: int
    listener: dict[str, Any] | None = None


class _Before(msgspec.Struct):
    sources: dict[str, _View]


_counts = msgspec.json.Decoder(Counts)
_stats = msgspec.json.Decoder(WorkerStats)


class PipelineStatus:
    """Builds the status once a second; keeps the last totals to tell rates, and when who was heard."""

    def __init__(self, reading: Reading | None = None) -> None:
        self._reading = reading or Reading()
        self.lost = 0  # events that are missing by sequence numbers, as of the last status
        self.alive: list[WorkerStats] = []  # the workers that were heard, as of the last status
        self._last_ms = 0
        self._workers: dict[bytes, _Seen] = {}
        self._sources: dict[str, _Source] = {}

    def build(
        self,
        now_ms: int,
        mono_ms: int,
        counts: Iterable[bytes],
        workers: Mapping[bytes, bytes],
        listeners: Mapping[str, dict[str, Any]],
        partitions: int,
    ) -> bytes:
        """Return the document's data: `{sources, processors, ts}`.

        `counts` are the partitions' shares and `workers` the table of WorkerStats, JSON as they were written; `listeners` the
        newest status event by source. `now_ms` is the wall clock, `mono_ms` a monotonic one.
        """
        shares = [self._reading.read(f"counts {at}", body, _counts.decode) for at, body in enumerate(counts)]
        total = add_up([share for share in shares if share is not None])
        self.lost = sum(total.expired.values()) + sum(total.dropped.values())
        alive = self.alive = self._alive(workers, now_ms, mono_ms)
        seconds = (mono_ms - self._last_ms) / 1000 if self._last_ms else 0.0
        self._last_ms = mono_ms
        heard = _heard(alive)
        flowing = {number for stats in alive for number in stats.flowing}
        stale = [number for number in range(partitions) if number not in flowing]
        self._hear(total, heard, listeners, mono_ms)
        sources = {
            name: self._view(name, total, alive, heard.get(name, set()), stale, partitions, seconds, mono_ms)
            for name in sorted(self._sources)
        }
        processors = _processors(total, alive, stale, partitions)
        processors["events_s"] = sum(view["events_s"] for view in sources.values())
        return msgspec.json.encode({"sources": sources, "processors": processors, "ts": now_ms})

    def go_on_from(self, data: bytes, mono_ms: int) -> None:
        """Begin with what the last status said: the sources do not begin anew because partition 0 has another owner."""
        try:
            before = msgspec.json.decode(data, type=_Before)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # of another version
        for name, view in before.sources.items():
            heard_ms = mono_ms if view.state != "silent" else mono_ms - UNHEARD_MS - 1
            self._sources.setdefault(name, _Source(view.listener, heard_ms, heard_ms, view.events))

    def gone(self, mono_ms: int) -> list[bytes]:
        """Return the workers that are gone for so long that nobody asks for them any more."""
        found = [name for name, seen in self._workers.items() if mono_ms - seen.new_ms > FORGOTTEN_MS]
        for name in found:
            del self._workers[name]
        return found

    def _alive(self, workers: Mapping[bytes, bytes], now_ms: int, mono_ms: int) -> list[WorkerStats]:
        alive = []
        for name, body in workers.items():
            stats = self._reading.read(f"worker {name!r}", body, _stats.decode)
            if stats is None:
                continue
            seen = self._workers.get(name)
            if seen is None:  # of before our time: as old as it says
                seen = self._workers[name] = _Seen(body, mono_ms - max(0, now_ms - stats.ts))
            elif seen.body != body:
                seen.body, seen.new_ms = body, mono_ms
            if mono_ms - seen.new_ms < SILENT_MS:
                alive.append(stats)
        for name in self._workers.keys() - workers.keys():
            del self._workers[name]
        return alive

    def _hear(self, total: Counts, heard: Mapping[str, set[int]], listeners: Mapping[str, dict[str, Any]], mono_ms: int) -> None:
        for name in {*heard, *listeners}:
            source = self._sources.setdefault(name, _Source(heard_ms=mono_ms, events=_of(total.events, name)))
            facts = listeners.get(name)
            if facts is not None and facts is not source.facts:
                source.facts, source.facts_ms = facts, mono_ms
            if name in heard:
                source.heard_ms = mono_ms
        for name in [name for name, source in self._sources.items() if mono_ms - source.heard_ms > SOURCE_FORGOTTEN_MS]:
            del self._sources[name]

    def _view(
        self,
        name: str,
        total: Counts,
        alive: list[WorkerStats],
        heard: set[int],
        stale: list[int],
        partitions: int,
        seconds: float,
        mono_ms: int,
    ) -> dict[str, Any]:
        source = self._sources[name]
        events = _of(total.events, name)
        rate = max(0.0, (events - source.events) / seconds) if seconds > 0 else 0.0
        source.events = events
        state, reason = self._state(source, heard, mono_ms)
        return {
            "state": state,
            "reason": reason,
            "events_s": round(rate),
            "lag_ms": max((stats.lag_ms.get(name, 0.0) for stats in alive), default=0.0),
            "events": events,
            "expired_events": _of(total.expired, name),
            "dropped_events": _of(total.dropped, name),
            "fenced_events": _of(total.fenced, name),
            "stale_partitions": sorted({*stale, *(set(range(partitions)) - heard)}),
            "listener": source.facts,
        }

    def _state(self, source: _Source, heard: set[int], mono_ms: int) -> tuple[str, str]:
        said = (source.facts or {}).get("state", "silent")
        reason = str((source.facts or {}).get("reason", ""))
        quiet = not heard and mono_ms - source.facts_ms > UNHEARD_MS
        if quiet and said not in LAST_WORDS:
            return "silent", f"nothing was heard of it for {(mono_ms - source.heard_ms) / 1000:.0f} s"
        return str(said), reason


def _heard(alive: Iterable[WorkerStats]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for stats in alive:
        for source, numbers in stats.heard.items():
            found.setdefault(source, set()).update(numbers)
    return {source: numbers for source, numbers in found.items() if numbers}


def _processors(total: Counts, alive: list[WorkerStats], stale: list[int], partitions: int) -> dict[str, Any]:
    streams: dict[str, dict[str, int]] = {}
    for what, found in (("events", total.events), ("expired", total.expired), ("dropped", total.dropped)):
        for key, n in found.items():
            stream = streams.setdefault(key.partition("/")[2], {"events": 0, "expired": 0, "dropped": 0})
            stream[what] += n
    return {
        "workers": len(alive),
        "partitions": partitions - len(stale),
        "partitions_expected": partitions,
        "stale_partitions": stale,
        "events_s": 0,
        "lag_ms": max((lag for stats in alive for lag in stats.lag_ms.values()), default=0.0),
        "flush_ms": round(max((stats.flush_ms for stats in alive), default=0.0), 1),
        "events": sum(total.events.values()),
        "bad_events": total.bad,
        "expired_events": sum(total.expired.values()),
        "dropped_events": sum(total.dropped.values()),
        "fenced_events": sum(total.fenced.values()),
        "redelivered_events": total.redelivered,
        "unknown_events": sum(total.unknown.values()),
        "malformed_batches": total.malformed_batches,
        "unreadable_cells": total.unreadable_cells,
        "late_bar_trades": total.discarded.get("late_bar", 0),
        "discarded": total.discarded,
        "forgotten_symbols": total.forgotten,
        "unknown_types": total.unknown,
        "by_stream": dict(sorted(streams.items())),
        "plugins": _plugins(alive),
    }


def _plugins(alive: list[WorkerStats]) -> dict[str, dict[str, Any]]:
    """Return the plug-ins that any worker has, over all workers; who has one not leaves out its partitions."""
    told: dict[str, dict[str, Any]] = {}
    for name in sorted({plugin.name for stats in alive for plugin in stats.plugins}):
        having = {stats.worker: plugin for stats in alive for plugin in stats.plugins if plugin.name == name}
        many = sorted(having.values(), key=_badness)
        missing = {number for stats in alive if stats.worker not in having for number in stats.flowing}
        told[name] = {
            "state": many[0].state,
            "off": sorted(missing.union(*(plugin.off for plugin in many))),
            "error": next((plugin.error for plugin in many if plugin.error), ""),
            "versions": sorted({plugin.version for plugin in many}),
            "workers": len(many),
            "failures": sum(plugin.failures for plugin in many),
            "gaps": sum(plugin.gaps for plugin in many),
            "missed_events": sum(plugin.missed_events for plugin in many),
        }
    return told


def _badness(plugin: PluginStats) -> int:
    return PLUGIN_STATES.index(plugin.state) if plugin.state in PLUGIN_STATES else len(PLUGIN_STATES)


def _of(counts: Mapping[str, int], source: str) -> int:
    return sum(n for key, n in counts.items() if key.startswith(f"{source}/"))


def add_up(parts: list[Counts]) -> Counts:
    """Return the sum of several partitions' counts."""
    total = Counts()
    for part in parts:
        for name in Counts.__struct_fields__:
            mine, theirs = getattr(total, name), getattr(part, name)
            if isinstance(theirs, dict):
                for key, n in theirs.items():
                    mine[key] = mine.get(key, 0) + n
            else:
                setattr(total, name, mine + theirs)
    return total
