"""Checks that the newest event decides a symbol's price bands and trading state."""

from __future__ import annotations

from typing import Any

import pytest

from mdc.channels import HALT_FIELDS
from mdp.analyzers.halts import HaltData
from tests.mdp.analyzers.alerts import alerts
from tests.mdp.feed import START_MS, Desk, Dice, trade


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


def test_each_halt_and_each_end_of_one_is_an_alert() -> None:
    """With the bands, the price and how long it lasted; what only repeats or comes late is none, over a hand-over either."""
    desk = Desk()
    desk.feed(trade(p=10.25))
    desk.feed(bands(i=[18]), bands(i=[17], t=START_MS + 5), bands(i=[17], t=START_MS + 6), bands(i=[18], t=START_MS + 4))
    desk.hand_over()
    desk.feed(bands(i=[17], t=START_MS + 7), bands(i=[18], t=START_MS + 303_005, h=0), bands("B", i=[17], h=0, low=0))
    told = [(a["sym"], a["kind"], a["price"], a["high_band"], a["low_band"], a["note"]) for a in alerts(desk.flush(), "halts")]
    assert told == [
        ("A", "halted", 10.25, 11, 9, "trading is halted, bands 9.00 to 11.00"),
        ("A", "resumed", 10.25, None, 9, "trading resumes after 5 min 3 s"),
        ("B", "halted", None, None, None, "trading is halted"),
    ]
    assert [a["quote"] and a["quote"]["last"] for a in alerts(desk.cache, "halts")] == [10.25, 10.25, None]


@pytest.mark.parametrize("seed", range(3))
def test_halt_alerts_equal_the_naive_model(seed: int) -> None:
    """One for each change of state, in the order of the events."""
    dice, desk, told, states = Dice(seed, "ABC"), Desk(), [], dict[str, tuple[str, int]]()
    for n in range(300):
        event = bands(
            dice.random.choice("ABC"), START_MS + n - dice.random.choice((0, 0, 9)), dice.random.choice(([17], [18], [2]))
        )
        desk.feed(event)
        state, ts = states.get(event["T"], ("trading", 0))
        if event["t"] >= ts:
            now = {17: "halted", 18: "trading"}.get(event["i"][0], state)
            if now != state:
                told.append((event["T"], "halted" if now == "halted" else "resumed", event["t"]))
            states[event["T"]] = now, event["t"]
        if dice.random.random() < 0.2:
            desk.hand_over()
    assert [(a["sym"], a["kind"], a["ts"]) for a in alerts(desk.flush(), "halts")] == told, f"seed {seed}"
