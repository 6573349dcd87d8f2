"""Simulated days through the real processes: every quote, window, bar, print, board and alert equals a brute-force oracle."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.days import comparing
from tests.days.calendar import AROUND_IT, AUTUMN, SPRING, THANKSGIVING, at
from tests.days.comparing import Listening
from tests.days.oracle import Oracle
from tests.days.tape import Plan, write, write_reference
from tests.stack import Stack
from tests.waiting import PATIENCE

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
        """Start a replay; what it adds to the events is waited for by `finish`."""
        self.events += events
        self.running.start("mdl", "mdl", MDL_FEED="replay", MDL_TAPE=tape, MDL_SPEED=speed, MDL_LEASE="off")

    def finish(self) -> None:
        """Wait until every event was counted."""
        self.running.wait("the whole tape", self._finished, 300)

    def _finished(self) -> bool:
        counts = self.running.counts()
        assert counts["expired"] == counts["dropped"] == counts["bad"] == 0, counts
        return counts["events"] >= self.events

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
        return comparing.of_alerts(told, oracle) + comparing.of_boards(cache, oracle) + comparing.of_symbols(cache, oracle)


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
            total, begins = write(tape, plan), market.events
            market.play(tape, total)
            if name == "spring":
                running.wait("a part of the tape", lambda: market.events and running.counts()["events"] > total * 0.2)
                running.stop("w0", signal.SIGKILL)
                market.work("added")
            market.finish()
            oracle = Oracle(tape, market.reference)
            market.check(oracle, heard, before)
            assert market.discarded("earlier_day") - earlier == oracle.earlier_day
            assert "added" in running.owners().values() and begins + total == market.events
            running.stop("mdl")
        assert not comparing.of_lists(running.redis, heard.since({}))


def test_days_equal_the_oracle_with_a_worker_killed_and_one_added(running: Stack) -> None:
    """Two changes of the clocks, a holiday and a half day, two workers: every number is the oracle's, every alert told once."""
    play_through(running, 60, 2)
