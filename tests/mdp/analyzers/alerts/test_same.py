"""Shows that alerts are the same, in the same order, at any speed of the feed and over crashes at any moment."""

from __future__ import annotations

import random
from itertools import groupby
from typing import Any

import pytest

from mdp.analyzers.alerts.alert import Thresholds
from mdp.partitions.partition import Partition
from mdp.reference import Known
from tests.mdp.analyzers.alerts import build, plain
from tests.mdp.analyzers.alerts.plain_ranges import OPENS_MS
from tests.mdp.analyzers.test_halts import bands
from tests.mdp.feed import STREAMS, Desk, Dice, Event, batch, trade
from tests.mdp.partitions.test_ahead import hurry

SYMBOLS = [f"S{n}" for n in range(8)]
NAMES = ("range", "halts", "volume", "gap")
REFERENCE = {sym: Known(8.0, 3_000) for sym in SYMBOLS}
THRESHOLDS = Thresholds(volume_times=2, volume_pause_ms=60_000, gap_pct=1)


def tape(seed: int, events: int) -> list[Event]:
    """Return a tape of half an hour and more from the open on: trades, some late, in bursts and in pauses, quotes and halts."""
    dice, made = Dice(seed, SYMBOLS), list[Event]()
    dice.now = OPENS_MS + 3_000
    for _ in range(events):
        pause_ms = dice.random.choice((20, 60, 4_000))
        kind = dice.random.random()
        if kind < 0.02:
            dice.now += 1
            made.append(bands(dice.random.choice(SYMBOLS), dice.now, [dice.random.choice((17, 18))]))
        else:
            made.append(dice.trade(pause_ms, late_ms=2_500) if kind < 0.7 else dice.quote(pause_ms))
        made[-1]["arrived"] = dice.now
        if made[-1]["ev"] == "T":
            made[-1]["s"] = dice.random.choice((1, 1, 1, 90))
    return [*made, trade("END", t=dice.now + 600_000) | {"arrived": dice.now + 600_000}]


def replay(events: list[Event], seed: int, most: int, pause_ms: float) -> Desk:
    """Play a tape in batches of at most so many events, the wall clock going on by `pause_ms` with each; flush now and then."""
    dice, desk = random.Random(seed), Desk(build(REFERENCE, THRESHOLDS))
    at = 0
    while at < len(events):
        some = events[at : at + dice.randint(1, most)]
        at += len(some)
        for _, same in groupby(sorted(some, key=lambda one: STREAMS[one["ev"]]), key=lambda one: STREAMS[one["ev"]]):
            part = list(same)
            desk.feed(*part, feed_ms=part[-1]["arrived"])
        desk.now_ms += round(pause_ms)
        if dice.random() < 0.2:
            desk.flush(0)
    desk.flush(0)
    return desk


@pytest.mark.parametrize("seed", range(4))
def test_any_speed_gives_the_same_alerts(seed: int) -> None:
    """As they come, ten times as fast, and as fast as possible: one event at a time or hundreds, with marks or without any."""
    events = tape(seed, 1_200)
    slow, quick, fastest = replay(events, 1, 2, 1_000), replay(events, 2, 30, 1_500), replay(events, 3, 500, 1)
    for name in NAMES:
        wanted = plain(slow.cache, name)
        assert len(wanted) >= 2, f"seed {seed} {name}"
        assert plain(quick.cache, name) == wanted, f"seed {seed} {name}"
        assert plain(fastest.cache, name) == wanted, f"seed {seed} {name}"


@pytest.mark.parametrize("seed", range(6))
def test_crashes_at_any_moment_neither_repeat_nor_lose_nor_reorder(seed: int) -> None:
    """Whatever was flushed alone before: what comes again makes no alert again, and what follows comes as it would have."""
    dice, seqs, made = random.Random(seed), dict.fromkeys(("trades", "quotes", "halts"), 0), []
    for stream, run in groupby(tape(seed, 600), key=lambda one: STREAMS[one["ev"]]):
        part = list(run)
        made.append(batch(part, stream, seqs[stream], feed_ms=part[-1]["arrived"]))
        seqs[stream] += len(part)
    calm, desk = Desk(build(REFERENCE, THRESHOLDS)), Desk(build(REFERENCE, THRESHOLDS))
    for n, one in enumerate(made):
        calm.deliver(one)
        desk.deliver(one)
        what = dice.random()
        if what < 0.4:
            hurry(desk)
        elif what < 0.5:
            desk.flush()
        elif what < 0.6:
            desk.partition = Partition(3, 2, "e1", build(REFERENCE, THRESHOLDS))
            desk.partition.restore(dict(desk.cache.cells), desk.now_ms)
            for again in made[: n + 1]:
                desk.deliver(again, redelivered=True)
        desk.watch(*dice.sample(SYMBOLS, dice.randint(0, 4)))
    told: Any = [(name, plain(desk.flush(), name)) for name in NAMES]
    assert told == [(name, plain(calm.flush(), name)) for name in NAMES], f"seed {seed}"
    assert len(told[0][1]) > 20
