"""Sends the simulator's frames at a given rate, never slowed by what stands behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from mdl.feeds.feed import Frame, State
from mdl.simulation.market import Simulator

TICK_S, TICK_S_MAX = 0.004, 0.02
TICK_EVENTS = 40  # a slow market comes in fewer frames, not in smaller ones: waking up costs more than an event
FRAME_EVENTS_MAX = 100
DEBT_S_MAX = 0.1  # what a stalled loop could not send is not sent later: a market does not wait either


def tick_s(events_s: float) -> float:
    """Return the pause between frames at that rate."""
    return min(TICK_S_MAX, max(TICK_S, TICK_EVENTS / events_s)) if events_s else TICK_S_MAX


class SimulatorFeed:
    """`events_s` 0 is a market in which nothing happens."""

    lossless = patient = False
    ailing = ""  # a market in which nothing happens was asked for

    def __init__(self, simulator: Simulator, events_s: float, market: str = "stocks") -> None:
        self.name = "simulator"
        self.market = market
        self.subscriptions: tuple[str, ...] = ("*",)
        self.state: State = "connecting"
        self.reason = ""
        self.reconnects = 0
        self.malformed = 0
        self.dropped_frames = 0
        self._simulator = simulator
        self._events_s = events_s
        self._closed = asyncio.Event()

    @property
    def simulated(self) -> Simulator:
        """The market that is sent."""
        return self._simulator

    async def __aiter__(self) -> AsyncIterator[Frame]:
        self.state = "live"
        due, then_s = 0.0, time.monotonic()
        while not self._closed.is_set():
            now_s = time.monotonic()
            events_s = self._events_s * self._simulator.quiet_share()
            due = min(due + (now_s - then_s) * events_s, max(1.0, events_s * DEBT_S_MAX))
            then_s = now_s
            while due >= 1:
                events = min(int(due), FRAME_EVENTS_MAX)
                due -= events
                now_ns = time.time_ns()
                yield Frame(self._simulator.frame(now_ns // 1_000_000, events), now_ns)
            if not events_s:
                self._simulator.frame(time.time_ns() // 1_000_000, 0)  # the clock must go on to find the opening
            await self._pause(tick_s(events_s) - (time.monotonic() - now_s))

    async def close(self) -> None:
        self._closed.set()

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
