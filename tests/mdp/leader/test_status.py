"""The pipeline's status: totals, rates, and who is called fresh on whose word."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from mdc.channels import STATUS_FIELDS
from mdp.leader.status import FORGOTTEN_MS, SILENT_MS, PipelineStatus, PluginStats, WorkerStats
from mdp.partitions.counts import Counts

NOW = 1_700_000_000_000
ALL = list(range(8))


class Board:
    """A status and its surroundings; `wall` of the workers runs as far off as a test wants."""

    def __init__(self) -> None:
        self.status = PipelineStatus()
        self.mono_ms = 1_000_000
        self.workers: dict[bytes, bytes] = {}
        self.listeners: dict[str, dict[str, Any]] = {}
        self.counts: list[Counts] = []

    def tell(self, name: str, flowing: list[int], heard: dict[str, list[int]], off_ms: int = 0, **more: Any) -> None:
        ts = NOW + self.mono_ms + off_ms
        self.workers[name.encode()] = msgspec.json.encode(WorkerStats(name, ts, flowing, heard, **more))

    def listen(self, source: str, state: str = "live") -> None:
        self.listeners[source] = {"state": state, "reason": "because", "feed": "simulator"}

    def build(self, after_ms: int = 0) -> Any:
        self.mono_ms += after_ms
        bodies = [msgspec.json.encode(counts) for counts in self.counts]
        return json.loads(self.status.build(NOW + self.mono_ms, self.mono_ms, bodies, self.workers, self.listeners, 8))


def test_counts_of_all_partitions_are_summed() -> None:
    """Every loss of every partition is in the totals and at its source, also of a stream from which nothing came."""
    board = Board()
    board.counts = [
        Counts(
            {"a/trades": 5, "b/trades": 2}, {"a/quotes": 2}, {"a/trades": 1}, {"b/trades": 9}, 3, 4, 1, 2, {"ZZ": 2},
            {"late_bar": 6, "time_ahead": 4}, 2,
        ),
        Counts({"a/trades": 7}, {"a/quotes": 1, "b/books": 9}, {}, {}, 1, 0, 0, 0, {"ZZ": 1, "YY": 1}, {"time_ahead": 1}, 1),
    ]  # fmt: skip
    board.listen("a")
    board.listen("b")
    facts = board.build()
    assert tuple(facts) == STATUS_FIELDS
    found = facts["processors"]
    wanted = {
        "events": 14, "expired_events": 12, "dropped_events": 1, "redelivered_events": 4, "bad_events": 4,
        "malformed_batches": 1, "unknown_events": 4, "unknown_types": {"ZZ": 3, "YY": 1}, "late_bar_trades": 6,
        "discarded": {"late_bar": 6, "time_ahead": 5}, "forgotten_symbols": 3,
        "fenced_events": 9, "unreadable_cells": 2, "partitions_expected": 8, "workers": 0, "events_s": 0,
        "by_stream": {
            "books": {"events": 0, "expired": 9, "dropped": 0},
            "quotes": {"events": 0, "expired": 3, "dropped": 0},
            "trades": {"events": 14, "expired": 0, "dropped": 1},
        },
    }  # fmt: skip
    assert found | wanted == found
    lost = {
        name: [view[f"{what}_events"] for what in ("expired", "dropped", "fenced")] for name, view in facts["sources"].items()
    }
    assert lost == {"a": [3, 1, 0], "b": [9, 0, 9]}


def test_the_rate_is_what_came_since_the_last_status() -> None:
    """Events a second between two calls, by source; a cache that begins anew gives none, not a negative one."""
    board, rates = Board(), []
    board.listen("a")
    for after_ms, events in ((0, 1_000), (1_000, 1_500), (2_000, 2_500), (1_000, 10), (0, 20)):
        board.counts = [Counts({"a/trades": events})]
        facts = board.build(after_ms)
        rates.append((facts["sources"]["a"]["events_s"], facts["processors"]["events_s"]))
    assert rates == [(0, 0), (500, 500), (500, 500), (0, 0), (0, 0)]


def test_only_workers_that_were_heard_lately_count() -> None:
    """Who says nothing new for three seconds is not among them, however far off its clock is."""
    board = Board()
    board.tell("a", [0, 1, 2], {}, lag_ms={"x": 12.3}, flush_ms=1.5)
    board.tell("b", [3, 4], {}, off_ms=-2_000, lag_ms={"x": 7.0, "y": 99.0}, flush_ms=9.99)
    board.tell("old", [5, 6, 7], {}, off_ms=-SILENT_MS)
    found = board.build()["processors"]
    assert (found["workers"], found["partitions"], found["lag_ms"], found["flush_ms"]) == (2, 5, 99.0, 10.0)
    assert found["stale_partitions"] == [5, 6, 7]
    board.mono_ms += 2_500
    board.tell("a", [0, 1, 2], {}, off_ms=3_600_000)
    found = board.build(1_000)["processors"]
    assert (found["workers"], found["stale_partitions"]) == (1, [3, 4, 5, 6, 7])


def test_a_partition_is_stale_for_the_source_that_is_not_heard_in_it() -> None:
    """Others of the source are fresh, and so are other sources in the same partition."""
    board = Board()
    board.listen("a")
    board.listen("b")
    board.tell("w", ALL, {"a": [0, 1, 2, 3], "b": ALL})
    sources = board.build()["sources"]
    assert (sources["a"]["state"], sources["a"]["stale_partitions"]) == ("live", [4, 5, 6, 7])
    assert (sources["b"]["state"], sources["b"]["stale_partitions"]) == ("live", [])


def test_a_partition_without_an_owner_is_stale_for_all() -> None:
    """Whoever looks is told which."""
    board = Board()
    board.listen("a")
    board.tell("w", [0, 1], {"a": [0, 1]})
    facts = board.build()
    assert facts["processors"]["stale_partitions"] == [2, 3, 4, 5, 6, 7]
    assert facts["sources"]["a"]["stale_partitions"] == [2, 3, 4, 5, 6, 7]


def test_a_source_that_nobody_hears_is_silent() -> None:
    """Its last words are kept; the others are what they were; it counts again as soon as it is heard."""
    board = Board()
    board.listen("a")
    board.listen("b")
    for _ in range(2):
        board.tell("w", ALL, {"a": ALL, "b": ALL})
        assert board.build(1_000)["sources"]["a"]["state"] == "live"
    for _ in range(4):
        board.listen("b")
        board.tell("w", ALL, {"b": ALL})
        sources = board.build(1_000)["sources"]
    assert (sources["a"]["state"], sources["b"]["state"]) == ("silent", "live")
    assert "nothing was heard of it for 4 s" in sources["a"]["reason"]
    assert sources["a"]["listener"]["feed"] == "simulator"
    board.tell("w", ALL, {"a": ALL, "b": ALL})
    assert board.build(1_000)["sources"]["a"]["state"] == "live"


def test_a_source_is_not_silent_because_partition_zero_is() -> None:
    """Its marks are heard elsewhere: only what stands in partition 0 is stale."""
    board = Board()
    board.listen("a")
    for _ in range(6):
        board.tell("w", [1, 2, 3, 4, 5, 6, 7], {"a": [1, 2, 3, 4, 5, 6, 7]})
        view = board.build(1_000)["sources"]["a"]
    assert (view["state"], view["stale_partitions"]) == ("live", [0])


def test_after_its_last_words_a_source_is_not_silent() -> None:
    """A tape that was read to its end stays ended."""
    board = Board()
    board.listen("a", "ended")
    board.tell("w", ALL, {})
    assert board.build()["sources"]["a"]["state"] == "ended"
    assert board.build(60_000)["sources"]["a"]["state"] == "ended"


def test_a_new_leader_goes_on_from_the_last_status() -> None:
    """Nobody is told that a feed is missing because partition 0 has another owner; who was silent stays so."""
    before = Board()
    before.listen("a")
    before.listen("b")
    before.tell("w", ALL, {"a": ALL})
    before.build()
    before.mono_ms += SILENT_MS + 1_000
    before.tell("w", ALL, {"a": ALL})
    said = before.build()
    assert (said["sources"]["a"]["state"], said["sources"]["b"]["state"]) == ("live", "silent")
    after = Board()
    after.status.go_on_from(json.dumps(said).encode(), after.mono_ms)
    after.status.go_on_from(b"nonsense", after.mono_ms)
    after.tell("w", ALL, {"a": ALL})
    sources = after.build(100)["sources"]
    assert (sources["a"]["state"], sources["b"]["state"]) == ("live", "silent")
    assert sources["a"]["listener"] == said["sources"]["a"]["listener"]


def test_workers_gone_for_a_minute_are_forgotten() -> None:
    """The table of workers stays as short as there are workers."""
    board = Board()
    board.tell("a", [], {})
    board.tell("b", [], {})
    board.build()
    board.mono_ms += FORGOTTEN_MS
    board.tell("a", [], {})
    board.build(1)
    assert board.status.gone(board.mono_ms) == [b"b"]


def test_a_plugin_is_as_bad_as_in_the_worst_worker() -> None:
    """Partitions of a worker without it count as off; failures and what was missed are summed; a silent worker says nothing."""
    board = Board()
    board.tell("a", [0, 1], {}, plugins=[PluginStats("spread", "1", "running", failures=1, missed_events=5, error="before")])
    board.tell("b", [2, 3], {}, plugins=[PluginStats("spread", "2", "paused", [3], "ValueError: no", 2, 1, 7)])
    board.tell("c", [4, 5], {})
    board.tell("old", [6], {}, off_ms=-SILENT_MS, plugins=[PluginStats("gone", "1", "running")])
    found = board.build()["processors"]["plugins"]
    assert found == {
        "spread": {
            "state": "paused", "off": [3, 4, 5], "error": "ValueError: no", "versions": ["1", "2"], "workers": 2, "failures": 3, "gaps": 1,
            "missed_events": 12,
        }
    }  # fmt: skip
