"""Does what is due by the clock: pushes of every rate, each connection once a second, housekeeping.

Invariant: the timers run as long as the worker does; one that ends, ends the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator

import structlog
from msgspec import UNSET

from service.clock import Clock
from service.tasks import Tasks
from wds import meter
from wds.access.ended import Ended
from wds.access.keys import KeySource
from wds.access.limits import Census
from wds.fanout.hub import Hub
from wds.fanout.outbox import Step
from wds.fanout.upstream import Upstream
from wds.protocol import BAD_TOKEN, PERIOD_S, PHASES, Hz
from wds.transport.connection import Connection
from wds.transport.roster import SLOTS, Roster

ENDED_EVERY_S = 0.5

log = structlog.get_logger()


@contextlib.contextmanager
def sparing_others(connection: Connection) -> Iterator[None]:
    """What breaks for one connection ends that connection, and the loop over all goes on."""
    try:
        yield
    except Exception:
        log.exception("connection_failed")
        connection.cut()


class Timers:
    """The timers of one worker."""

    def __init__(
        self, hub: Hub, upstream: Upstream, roster: Roster, census: Census, keys: KeySource, ended: Ended, clock: Clock,
        tasks: Tasks,
    ) -> None:  # fmt: skip
        self._hub = hub
        self._upstream = upstream
        self._roster = roster
        self._census = census
        self._keys = keys
        self._ended = ended
        self._clock = clock
        self._tasks = tasks

    def start(self) -> None:
        """Start all of them."""
        for hz in PERIOD_S:
            self._tasks.start(f"timer of {hz} Hz", self._tick(hz))
        self._tasks.start("timer of connections", self._look_after())
        self._tasks.start("housekeeping", self._housekeeping())
        self._tasks.start("ended sessions", self._send_off())

    async def _tick(self, hz: Hz) -> None:
        step_s = PERIOD_S[hz] / PHASES[hz]
        loop = asyncio.get_running_loop()
        at = loop.time()
        for phase in itertools.cycle(range(PHASES[hz])):
            at = max(at + step_s, loop.time())
            await asyncio.sleep(at - loop.time())
            began_ns = self._clock.mono_ns()
            self._hub.tick(hz, phase, began_ns)
            self._upstream.account(began_ns)
            self._upstream.carry_out()

    async def _look_after(self) -> None:
        for slot in itertools.cycle(range(SLOTS)):
            await asyncio.sleep(1 / SLOTS)
            now_ns, wall_ms = self._clock.mono_ns(), self._clock.wall_ns() // 1_000_000
            for connection in self._roster.slot(slot):
                with sparing_others(connection):
                    connection.on_time(now_ns, wall_ms)
            self._upstream.carry_out()

    async def _send_off(self) -> None:
        """Close the sockets of sessions that have ended, within a second of the control plane's saying so."""
        while True:
            await asyncio.sleep(ENDED_EVERY_S)
            if not await self._ended.refresh():
                continue
            for connection in self._roster:
                claims = connection.session.claims if connection.session is not None else None
                if claims is not None and self._ended.has(claims.sid):
                    with sparing_others(connection):
                        connection.bye(BAD_TOKEN, UNSET)

    async def _housekeeping(self) -> None:
        while True:
            self._hub.on_time(self._clock.mono_ns())
            self._upstream.carry_out()
            self.gauge()
            await self._widen()
            if self._keys.stale:
                self._tasks.start("keys", self._keys.refresh(), ends=True)
            await asyncio.sleep(1)

    async def _widen(self) -> None:
        """Tell those who follow patterns of channels that are new."""
        everybody = [one for one in self._roster.patterned if one.session is not None]
        kinds = {pattern.kind.name for one in everybody if one.session for pattern in one.session.subscriptions.patterns.values()}
        known = await self._upstream.known(sorted(kinds)) if kinds else None
        for kind, names in (known or {}).items():
            for connection in list(self._roster.patterned):
                if connection.session is not None:
                    with sparing_others(connection):
                        connection.run(connection.session.on_known(kind, names))

    def gauge(self) -> None:
        """Bring the metrics up to date."""
        members = self._hub.members
        meter.connections.set(self._census.connections)
        meter.subscriptions.set(sum(len(member.groups) for member in members))
        meter.channels.set(self._hub.watched)
        meter.slow_clients.set(sum(member.outbox.step is not Step.OPEN for member in members))
        meter.buffer_bytes.set(sum(connection.buffered_bytes for connection in self._roster))
        meter.fresh.set(self._hub.verdict.state == "live")
