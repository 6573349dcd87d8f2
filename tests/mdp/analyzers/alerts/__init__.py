"""Alerts against naive models, and against themselves at another speed and over crashes."""

from __future__ import annotations

from typing import Any

from mdp import roster
from mdp.analyzer import Analyzer
from mdp.analyzers.alerts.alert import Thresholds
from mdp.partitions.partition import Partition
from mdp.reference import Reference
from tests.mdp.feed import Desk
from tests.mdp.mirror import Mirror


def build(reference: Reference, thresholds: Thresholds) -> list[Analyzer]:
    """Return all analyzers of a partition with these thresholds."""
    return roster.build(roster.ANALYZERS, reference, 5, thresholds=thresholds)


def hand_over(desk: Desk, reference: Reference, thresholds: Thresholds) -> None:
    """Go on with a new partition that has these thresholds and knows the checkpoint."""
    desk.flush()
    desk.partition = Partition(3, 2, "e1", build(reference, thresholds))
    desk.partition.restore(dict(desk.cache.cells))


def alerts(cache: Mirror, name: str = "range") -> list[dict[str, Any]]:
    """Return what `alerts:{name}` has been told, in order."""
    return [data for channel, _, data in cache.shared if channel == f"alerts:{name}"]


def plain(cache: Mirror, name: str) -> list[tuple[Any, ...]]:
    """Return a channel's alerts without what comes on another queue than theirs: the best bid and offer, for halts all prices."""
    aside = {"bid", "ask", "bid_size", "ask_size", "spread", "ts"}
    halts = {"quote", "price", "session"} if name == "halts" else set()
    return [
        tuple(
            {k: v for k, v in value.items() if k not in aside} if isinstance(value, dict) else value
            for field, value in alert.items()
            if field not in halts
        )
        for alert in alerts(cache, name)
    ]
