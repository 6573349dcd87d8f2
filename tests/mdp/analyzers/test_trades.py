"""Checks that every print is published once and in order."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from mdc.channels import PRINT_FIELDS
from mdp.analyzers.trades import PrintData
from tests.mdp.feed import START_MS, Desk, Dice, trade


@pytest.mark.parametrize("seed", range(5))
def test_every_print_is_published_in_order(seed: int) -> None:
    """None conflated, none doubled, however many come between two flushes, through hand-overs too."""
    dice, desk = Dice(seed), Desk()
    wanted: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(20):
        events = [dice.trade() for _ in range(dice.random.choice((0, 1, 5, 400)))]
        desk.now_ms = max(desk.now_ms, dice.now)
        for run in dice.batches(events):
            desk.feed(*run)
        for e in events:
            made = {"price": e["p"], "size": e["s"], "ts": e["t"], "exchange": 4, "conditions": e["c"], "id": "71"}
            wanted[e.get("sym") or e["pair"]].append(made)
        desk.flush()
        if dice.random.random() < 0.2:
            desk.hand_over()
    assert {sym: desk.cache.events(f"trades:{sym}") for sym in wanted} == wanted, f"seed {seed}"


def test_fields_are_those_of_the_catalogue() -> None:
    """The published event has the catalogue's fields in its order."""
    assert PrintData.__struct_fields__ == PRINT_FIELDS


def test_an_emptied_cache_gets_the_recent_prints_again() -> None:
    """The newest prints of each symbol fill the new list, followed by what was not published yet."""
    desk = Desk()
    desk.feed(*[trade(p=n + 1, t=START_MS) for n in range(70)])
    desk.flush()
    desk.feed(*[trade(p=n + 71, t=START_MS) for n in range(55)])
    desk.partition.rewrite(1, "e2")
    desk.cache.log.clear()
    assert [e["price"] for e in desk.flush().events("trades:A")] == list(range(71, 126))
