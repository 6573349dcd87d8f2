"""Simulated days through the real processes: every quote, window, bar, print, board and alert equals a brute-force oracle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.days import comparing
from tests.days.calendar import AROUND_IT, AUTUMN, SPRING, THANKSGIVING, at
from tests.days.comparing import Listening
from tests.days.oracle import Oracle
from tests.days.tape import Plan, excerpt, write, write_reference
from tests.stack import Stack
from tests.waiting import PATIENCE, until_reached

pytestmark = pytest.mark.live
SETTLED_S = 40  # the widest bars of what nobody watches are added up within 10 s each, one width after the other


def plans(symbols: int) -> dict[str, Plan]:
    """Three tapes: clocks go forward, until Monday at eleven; back; a holiday with stray prints and the half day after it."""
    return {
        "spring": Plan(symbols, SPRING, at(SPRING[1], 11)),
        "autumn": Plan(symbols, AUTUMN, at(AUTUMN[1], 20, 0, 30)),
        "thanksgiving": Plan(symbols, AROUND_IT, at(AROUND_IT[1], 17, 0, 30), THANKSGIVING),
    }


class Market:
    """Processors that live through several tapes."""

    def __init__(self, running: Stack, plan: Plan) -> None:
        self.running = running
        self.reference = running.folder / "reference.csv"
        write_reference(self.reference, plan)
        self.events = 0

    def work(self, name: str) -> None:
        self.running.start(name, "mdp", MDP_WORKER=name, MDP_REFERENCE=self.reference)

    def owned(self, workers: int) -> bool:
        owners = self.running.owners()
        return len(owners) == 8 and len(set(owners.values())) == workers

    def play(self, tape: Path, events: int, speed: str = "max") -> None:
        """Start a replay; what it adds to the events is waited for by `wait_for`."""
        self.events += events
        self.running.start("mdl", "mdl", MDL_FEED="replay", MDL_TAPE=tape, MDL_SPEED=speed, MDL_LEASE="off")

    def wait_for(self, events: int) -> None:
        """Wait until so many events were counted; fail when nothing has come for a while."""
        asyncio.run(until_reached(self._counted, events, 20 * PATIENCE, "events that were counted"))

    def _counted(self) -> int:
        counts = self.running.counts()
        assert counts["expired"] == counts["dropped"] == counts["bad"] == 0, counts
        return counts["events"]

    def discarded(self, why: str) -> int:
        return sum(json.loads(body)["discarded"].get(why, 0) for body in self.running.redis.hvals("part:counts"))

    def check(self, oracle: Oracle, heard: Listening, before: dict[str, int]) -> None:
        """Compare everything, again and again until it is equal: the last windows and bars come with the feed's time."""
        deadline = time.monotonic() + SETTLED_S * PATIENCE
        while faults := self._differences(oracle, heard.since(before)):
            assert time.monotonic() < deadline, "\n".join([f"{len(faults)} differences", *faults[:40]])
            time.sleep(0.5)
        assert self.running.counts()["events"] == self.events

    def _differences(self, oracle: Oracle, told: dict[str, list[dict[str, Any]]]) -> list[str]:
        cache = self.running.redis
        boards, symbols = comparing.of_boards(cache, oracle), comparing.of_symbols(cache, oracle, sides=False)
        return comparing.of_alerts(told, oracle) + boards + symbols


def play_through(running: Stack, symbols: int, workers: int) -> None:
    """Play all tapes one after the other; in the first one a worker is killed and another comes."""
    tapes = plans(symbols)
    market = Market(running, tapes["spring"])
    for n in range(workers):
        market.work(f"w{n}")
    running.wait("every partition owned", lambda: market.owned(workers))
    with Listening(running.cache.url) as heard:
        for name, plan in tapes.items():
            tape, before, earlier = running.folder / f"{name}.ndjson", heard.counts(), market.discarded("earlier_day")
            market.play(tape, total := write(tape, plan))
            if name == "spring":
                market.wait_for(total // 5)
                running.stop("w0", signal.SIGKILL)
                market.work("added")
            market.wait_for(market.events)
            oracle = Oracle(tape, market.reference)
            market.check(oracle, heard, before)
            assert market.discarded("earlier_day") - earlier == oracle.earlier_day
            assert "added" in running.owners().values()
            running.stop("mdl")
        assert not comparing.of_lists(running.redis, heard.since({}))


@pytest.mark.faults
def test_days_equal_the_oracle_with_a_worker_killed_and_one_added(running: Stack) -> None:
    """Two changes of the clocks, a holiday and a half day, two workers: every number is the oracle's, every alert told once."""
    play_through(running, 60, 2)


@pytest.mark.faults
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_whole_market_equals_the_oracle(running: Stack, workers: int) -> None:
    """The same with 5,000 symbols (DAYS_SYMBOLS) and 1, 2 or 4 workers, of which one is killed and another comes."""
    play_through(running, int(os.environ.get("DAYS_SYMBOLS", "5000")), workers)


@pytest.mark.faults
def test_a_replay_at_full_speed_gives_the_alerts_of_one_at_ten_times(running: Stack) -> None:
    """Two minutes around an opening, once at `max` and once at x10: the same alerts, in the same order within a partition."""
    plan = Plan(400, SPRING, at(SPRING[1], 11))
    whole, tape, opens = running.folder / "whole.ndjson", running.folder / "opening.ndjson", at(SPRING[1], 9, 30)
    write(whole, plan)
    events = excerpt(whole, tape, opens - 60_000, opens + 60_000)
    market = Market(running, plan)
    market.work("w0")
    running.wait("every partition owned", lambda: market.owned(1))
    told = []
    with Listening(running.cache.url) as heard:
        for speed in ("max", "10"):
            before = heard.counts()
            market.play(tape, events, speed)
            market.wait_for(market.events)
            running.wait("the alerts of the last pauses", lambda: settled(running, opens + 30_000), SETTLED_S)
            told.append(comparing.by_partition(heard.since(before)))
            running.stop("mdl")
    assert sum(map(len, told[0].values())) > 20
    assert told[0] == told[1]


def settled(running: Stack, slice_ms: int) -> bool:
    """Return whether the feed's time has reached the end of the tape everywhere: all windows have moved on."""
    bodies = [running.redis.get(key) for key in running.redis.scan_iter("ch:stats:*")]
    return bool(bodies) and all(json.loads(body)["data"]["ts"] >= slice_ms for body in bodies)
