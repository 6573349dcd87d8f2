"""How long leases are certainly ours, and what is said of partitions that do not flow."""

from __future__ import annotations

from typing import Any

from mdp.meters import Meters
from mdp.owned import HEARD_NS, STUCK_NS, Owned
from mdp.partitions.counts import Counts
from mdp.partitions.partition import Partition
from mdp.tenure import MARGIN, QUICK_ANSWERS, Steadiness, Tenure
from service.metrics import exposition

MS = 1_000_000


def test_a_lease_is_certain_for_less_time_than_it_lasts() -> None:
    """Counted from the question, not from the answer; without any renewal nothing is ours."""
    tenure = Tenure(2_000)
    assert not tenure.certain(0)
    tenure.renewed(5_000 * MS)
    most = 5_000 * MS + int(2_000 * MS * (1 - MARGIN))
    assert tenure.certain(most - 1)
    assert not tenure.certain(most)


class Link:
    """A subscription that is live or not."""

    def __init__(self, live: bool) -> None:
        self.live = live


def owned(live: bool | None = True, **more: Any) -> Owned:
    return Owned(Partition(0, 1, "e", []), None if live is None else Link(live), **more)  # type: ignore[arg-type]


def test_a_partition_flows_while_it_is_read_and_written() -> None:
    """Not without a subscription, not when a flush was refused, not when the cache has taken nothing for a while."""
    assert owned().flows(0)
    assert not owned(None).flows(0)
    assert not owned(False).flows(0)
    assert not owned(refused=True).flows(0)
    failing = owned(failing_ns=1)
    assert failing.flows(STUCK_NS)
    assert not failing.flows(STUCK_NS + 2)


def test_a_source_is_heard_for_a_few_seconds() -> None:
    """Its marks come once a second."""
    one = owned(heard_ns={"a": 7})
    assert one.hears("a", 7 + HEARD_NS - 1)
    assert not one.hears("a", 7 + HEARD_NS)
    assert not one.hears("b", 0)


def test_who_was_answered_too_late_is_proven_again_by_quick_answers_in_a_row() -> None:
    """At the start nothing speaks against it; one late answer, and all of them have to come anew."""
    steadiness = Steadiness()
    assert steadiness.proven
    for _ in range(2):
        steadiness.late()
        for _ in range(QUICK_ANSWERS):
            assert not steadiness.proven
            steadiness.answered()
        assert steadiness.proven
    steadiness.late()
    steadiness.answered()
    steadiness.late()
    steadiness.answered()
    steadiness.answered()
    assert not steadiness.proven


def test_only_what_a_worker_counted_itself_is_metered() -> None:
    """What it found in the checkpoint was counted by others; a partition that comes back begins anew."""
    meters = Meters()
    meters.take(0, Counts({"t/trades": 100}, fenced={"t/trades": 4}))
    meters.take(0, Counts({"t/trades": 105}, fenced={"t/trades": 9}, bad=2))
    meters.forget(0)
    meters.take(0, Counts({"t/trades": 900}))
    lines = exposition().decode().splitlines()
    assert 'tapeline_mdp_events_total{source="t",stream="trades"} 5.0' in lines
    assert 'tapeline_mdp_fenced_events_total{source="t",stream="trades"} 5.0' in lines
