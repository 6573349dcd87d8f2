"""Checks that the newest event decides a symbol's price bands and trading state."""

from __future__ import annotations

from typing import Any

import pytest

from mdc.channels import HALT_FIELDS
from mdp.analyzers.halts import HaltData
from tests.mdp.feed import START_MS, Desk, Dice


def bands(sym: str = "A", t: int = START_MS, i: list[int] | None = None, h: float = 11.0, low: float = 9.0) -> dict[str, Any]:
    return {"ev": "LULD", "T": sym, "h": h, "l": low, "i": i, "z": 3, "t": t}


@pytest.mark.parametrize("seed", range(3))
def test_the_newest_event_wins(seed: int) -> None:
    """Bands and indicators are those of the newest time; halted lasts until trading resumes."""
    dice, desk = Dice(seed, "AB"), Desk()
    plain: dict[str, dict[str, Any]] = {}
    for n in range(200):
        event = bands(
            dice.random.choice("AB"), START_MS + n - dice.random.choice((0, 0, 40)),
            dice.random.choice((None, [], [17], [18], [2, 17], [6])), dice.random.choice((0, 11.5)), 9.25,
        )  # fmt: skip
        desk.feed(event)
        known = plain.setdefault(event["T"], {"state": "trading", "ts": 0})
        if event["t"] >= known["ts"]:
            codes = set(event["i"] or ())
            state = "halted" if 17 in codes else "trading" if 18 in codes else known["state"]
            plain[event["T"]] = {
                "state": state, "high_band": event["h"] or None, "low_band": 9.25, "indicators": sorted(codes), "ts": event["t"],
            }  # fmt: skip
        if dice.random.random() < 0.2:
            desk.hand_over()
    assert desk.flush().channels("halts") == plain, f"seed {seed}"


def test_fields_are_those_of_the_catalogue() -> None:
    """The published state has the catalogue's fields in its order."""
    assert HaltData.__struct_fields__ == HALT_FIELDS


def test_an_emptied_cache_gets_every_state_again() -> None:
    """Silent symbols are written again with the others."""
    desk = Desk()
    desk.feed(bands("A", i=[17]), bands("B"))
    before = desk.flush().channels("halts")
    desk.cache.log.clear()
    desk.partition.rewrite(1, "e2")
    desk.flush()
    assert {doc["ch"]: doc["data"] for doc in desk.cache.log} == {f"halts:{sym}": data for sym, data in before.items()}
