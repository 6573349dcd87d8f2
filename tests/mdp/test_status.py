"""Counts and stats in, the pipeline's status out."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from mdc.channels import STATUS_FIELDS
from mdp.partition import Counts
from mdp.status import LISTENER_SILENT_MS, PipelineStatus, WorkerStats, forgotten

NOW = 1_700_000_000_000


def build(
    status: PipelineStatus, now_ms: int, *counts: Counts, workers: list[WorkerStats] | None = None, listener: Any = None
) -> Any:
    bodies = [msgspec.json.encode(stats) for stats in workers or []]
    return json.loads(status.build(now_ms, [msgspec.json.encode(c) for c in counts], bodies, listener, 8))


def test_counts_of_all_partitions_are_summed() -> None:
    """Every loss of every partition is in the totals, also of a stream from which nothing came through."""
    one = Counts({"trades": 5}, {"quotes": 2}, {"trades": 1}, 3, 4, 1, {"ZZ": 2}, 6)
    two = Counts({"trades": 7, "quotes": 1}, {"quotes": 1, "books": 9}, {}, 1, 0, 0, {"ZZ": 1, "YY": 1}, 0)
    facts = build(PipelineStatus(), NOW, one, two)
    assert tuple(facts) == STATUS_FIELDS
    found = facts["processors"]
    wanted = {
        "events": 13, "expired_events": 12, "dropped_events": 1, "redelivered_events": 4, "bad_events": 4,
        "malformed_batches": 1, "unknown_events": 4, "unknown_types": {"ZZ": 3, "YY": 1}, "late_bar_trades": 6,
        "partitions_expected": 8, "workers": 0, "events_s": 0,
        "by_stream": {
            "books": {"events": 0, "expired": 9, "dropped": 0},
            "quotes": {"events": 1, "expired": 3, "dropped": 0},
            "trades": {"events": 12, "expired": 0, "dropped": 1},
        },
    }  # fmt: skip
    assert found | wanted == found


def test_the_rate_is_what_came_since_the_last_status() -> None:
    """Events a second between two calls; a cache that begins anew gives none, not a negative one."""
    status = PipelineStatus()
    rates = [
        build(status, NOW + after, Counts({"trades": events}))["processors"]["events_s"]
        for after, events in ((0, 1_000), (1_000, 1_500), (3_000, 2_500), (4_000, 10), (4_000, 20))
    ]
    assert rates == [0, 500, 500, 0, 0]


def test_only_workers_that_were_heard_lately_count() -> None:
    """The worst lag of those alive is told; who has been silent for three seconds is not among them."""
    workers = [
        WorkerStats("a", NOW - 500, 5, 12.34, 1.5),
        WorkerStats("b", NOW - 2_900, 3, 7, 9.99),
        WorkerStats("c", NOW - 3_000, 8, 99, 99),
    ]
    found = build(PipelineStatus(), NOW, workers=workers)["processors"]
    assert (found["workers"], found["partitions"], found["lag_ms"], found["flush_ms"]) == (2, 8, 12.3, 10.0)


def test_a_listener_that_says_nothing_new_is_silent() -> None:
    """Its last words are kept with the state `silent`; the next ones count again."""
    status = PipelineStatus()
    said = {"state": "live", "feed": "replay"}
    assert build(status, NOW)["listener"] is None
    assert build(status, NOW, listener=said)["listener"] == said
    assert build(status, NOW + LISTENER_SILENT_MS, listener=said)["listener"] == said
    assert build(status, NOW + LISTENER_SILENT_MS + 1, listener=said)["listener"] == {"state": "silent", "feed": "replay"}
    assert build(status, NOW + 9_000, listener=dict(said))["listener"] == said


def test_workers_gone_for_a_minute_are_forgotten() -> None:
    """The table of workers stays as short as there are workers."""
    table = {b"a": msgspec.json.encode(WorkerStats("a", NOW)), b"b": msgspec.json.encode(WorkerStats("b", NOW - 60_001))}
    assert forgotten(table, NOW) == [b"b"]
