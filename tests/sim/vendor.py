"""Plays the vendor: a market whose events are numbered by their price, one connection a source, the newest connection wins.

Invariant: event `n` of a symbol happens at one moment, whoever listens; a listener that slept finds what was sent meanwhile.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import mdl.listener
import mdl.session
from mdl.feeds.feed import Frame, State
from tests.sim.loop import PROCESS

if TYPE_CHECKING:
    from tests.sim.world import World


class Market:
    """The symbols of one source. `taken` counts the events that listeners have taken."""

    def __init__(self, world: World, source: str) -> None:
        self.source = source
        self.symbols = [f"{source[:2].upper()}{n}" for n in range(world.plan.symbols)]
        self.quiet = False
        self.taken = 0
        self.connected: VendorFeed | None = None
        self._world = world

    @property
    def tick(self) -> int:
        """The number of the newest event."""
        return int(self._world.now_s / self._world.plan.pace_s)

    def frame(self, number: int) -> bytes:
        """Return event `number` of every symbol."""
        at_ms = self._world.true_ms() - int(1000 * (self._world.now_s - number * self._world.plan.pace_s))
        events = [{"ev": "T", "sym": sym, "p": number, "s": 1, "t": at_ms, "i": str(number)} for sym in self.symbols]
        return json.dumps(events).encode()


class VendorFeed:
    """One connection to the market."""

    lossless = patient = False

    def __init__(self, market: Market, pace_s: float) -> None:
        self.name = market.source
        self.market = "stocks"
        self.subscriptions: tuple[str, ...] = ("*",)
        self.state: State = "connecting"
        self.reason = ""
        self.reconnects = self.dropped_frames = self.malformed = 0
        self._market = market
        self._pace_s = pace_s

    async def __aiter__(self) -> AsyncIterator[Frame]:
        market, process = self._market, PROCESS.get()
        assert process is not None
        self.state, market.connected = "live", self
        last = market.tick
        while market.connected is self:
            await asyncio.sleep(self._pace_s)
            newest = last if market.quiet else market.tick
            for number in range(last + 1, newest + 1):
                yield Frame(market.frame(number), process.clock.wall_ns())
                market.taken += len(market.symbols)
            last = newest
        self.state, self.reason = "connecting", "the vendor has another connection"
        await asyncio.Event().wait()

    async def close(self) -> None:
        """The iteration is cancelled by who reads."""


@contextmanager
def sold_by(markets: dict[str, Market], pace_s: float) -> Iterator[None]:
    """Let every listener's feed be a connection to one of `markets`, and have no HTTP server."""
    open_feed, admin = mdl.session.open_feed, mdl.listener.AdminServer
    mdl.session.open_feed = lambda settings, _: VendorFeed(markets[settings.source], pace_s)  # type: ignore[assignment]
    mdl.listener.AdminServer = lambda *_: None  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        mdl.session.open_feed, mdl.listener.AdminServer = open_feed, admin  # type: ignore[misc]
