"""Runs one worker of the widget data service: wiring, admission, drain. One worker, one event loop.

Flow: Upstream → Hub → Connection. What waits for the outside (keys, lists, snapshots) is a task of `answers.py`; handing frames
to sockets never waits. A task that ends unexpectedly ends the worker: without it clients would wait and not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from pathlib import Path
from typing import Any

import structlog
from litestar import get

from service.admin import AdminServer, bind
from service.clock import Clock, SystemClock
from service.errors import OperatorError
from service.run import Shutdown
from service.settings import admin_token
from service.tasks import TaskEnded, Tasks
from wds import meter
from wds.answers import Answers
from wds.connection import Connection
from wds.framing import text_frame
from wds.freshness import PIPELINE, Freshness
from wds.hub import Hub
from wds.keys import KeySource, local_key
from wds.limits import Census
from wds.outbox import Ladder
from wds.protocol import DRAINING
from wds.roster import Roster
from wds.session import Session, SessionLimits
from wds.settings import WdsSettings
from wds.timers import Timers
from wds.tokens import KeyRing
from wds.upstream import Upstream

CLOSING_S = 2.5
RECONNECT_SPREAD_MS = 5000
SCRIPT = Path(__file__).parent / "static" / "tapeline.js"
log = structlog.get_logger()


class Server:
    """One worker."""

    def __init__(self, settings: WdsSettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.port = settings.port
        self.draining = False
        self.script = SCRIPT.read_bytes()
        self.limits = _session_limits(settings)
        self.ladder = _ladder(settings)
        self.census = Census(
            settings.connections_max, settings.per_address_max, settings.unauthenticated_max, settings.per_user_max
        )
        freshness = Freshness(settings.silence_s, self.now_ns())
        self.hub = Hub(text_frame, freshness, settings.linger_s)
        self.tasks = Tasks("wds", self._fail)
        self.upstream = Upstream(self.hub, settings, self.clock, self._fail)
        self.keys = _keys(settings)
        self.roster = Roster()
        self.answers = Answers(self.hub, self.upstream, self.keys, self.clock, self.tasks)
        self._timers = Timers(self.hub, self.upstream, self.roster, self.census, self.keys, self.clock, self.tasks)
        self._listening: asyncio.Server | None = None
        self._empty = asyncio.Event()
        self.failed: asyncio.Future[OperatorError] = asyncio.get_running_loop().create_future()

    def now_ns(self) -> int:
        """The monotonic clock of everything in this worker."""
        return self.clock.mono_ns()

    # Life

    async def start(self) -> None:
        """Listen.  Raises: OperatorError when the port is taken or keys cannot be kept."""
        loop = asyncio.get_running_loop()
        sock = bind(self.settings.host, self.settings.port, "WDS_PORT", reuse_port=self.settings.workers > 1)
        self.port = sock.getsockname()[1]
        self.hub.pin(PIPELINE)
        await self.upstream.start()
        self._listening = await loop.create_server(lambda: Connection(self), sock=sock, backlog=1024)
        self._timers.start()

    async def drain(self) -> None:
        """Take nobody new, send everybody off in a spread order, close within 10 s."""
        self.draining = True
        if self._listening is not None:
            self._listening.close()
        everybody = list(self.roster)
        log.info("draining", connections=len(everybody))
        pause_s = min(self.settings.drain_s, len(everybody) / 400) / max(1, len(everybody))
        for at, connection in enumerate(everybody):
            connection.bye(DRAINING, random.randint(200, RECONNECT_SPREAD_MS))
            if at % 20 == 19:
                await asyncio.sleep(20 * pause_s)
        if self.roster:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSING_S):
                    await self._empty.wait()

    async def stop(self) -> None:
        """Cut who is left and release everything."""
        self.draining = True
        if self._listening is not None:
            self._listening.close()
        for connection in self.roster:
            connection.cut()
        await self.tasks.close()
        await self.upstream.close()

    def ready(self) -> list[str]:
        """Return why no data can flow to a client now."""
        if self.draining:
            return ["draining"]
        verdict = self.hub.verdict
        nothing_comes = verdict.state == "stale" and not verdict.reason.startswith("feed ")
        return [verdict.reason] if nothing_comes else []

    # Connections

    def enter(self, connection: Connection) -> bool:
        """Look after a new socket; False when there are far too many even to refuse politely."""
        if len(self.roster) > self.settings.connections_max + 1000:
            meter.refused.labels("flood").inc()
            return False
        self.roster.enter(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """The socket is gone."""
        self.roster.forget(connection)
        if self.draining and not self.roster:
            self._empty.set()
        self.settle()

    def new_session(self) -> Session:
        """Return a session for a connection that finished its handshake."""
        return Session(secrets.token_hex(6), self.limits, self.now_ns())

    def settle(self) -> None:
        """Carry out what the hub asked for."""
        self.upstream.carry_out()

    def _fail(self, fault: BaseException) -> None:
        # A broken invariant: without what broke clients would wait and not know. The process ends and is restarted.
        log.critical("worker_failed", exc_info=fault)
        if not self.failed.done():
            self.failed.set_result(fault if isinstance(fault, OperatorError) else TaskEnded("wds hub", fault))


def _session_limits(settings: WdsSettings) -> SessionLimits:
    return SessionLimits(
        settings.frame_bytes_max, settings.subs_max, settings.commands_s, settings.commands_burst,
        settings.violations_max, settings.auth_s, settings.ping_s,
    )  # fmt: skip


def _ladder(settings: WdsSettings) -> Ladder:
    return Ladder(
        settings.buffer_high_bytes, settings.buffer_low_bytes, settings.buffer_max_bytes,
        settings.slow_pause_s, settings.slow_close_s,
    )  # fmt: skip


def _keys(settings: WdsSettings) -> KeySource:
    ring = KeyRing(settings.issuers)
    if settings.local_keys:
        ring.add_local(local_key(settings.run_dir).public_key())
    return KeySource(ring, settings.jwks_url, settings.jwks_ttl_s)


def _state_route(server: Server) -> Any:
    @get("/state", sync_to_thread=False)
    def state() -> dict[str, Any]:
        verdict = server.hub.verdict
        return {
            "worker": server.settings.worker,
            "connections": server.census.connections,
            "subscriptions": sum(len(member.groups) for member in server.hub.members),
            "channels": server.hub.watched,
            "state": verdict.state,
            "reason": verdict.reason,
            "draining": server.draining,
        }

    return state


async def run(settings: WdsSettings, shutdown: Shutdown) -> None:
    """Serve until asked to stop, then drain."""
    server = Server(settings)
    port = settings.admin_port + settings.worker if settings.admin_port else 0
    admin = AdminServer("wds", settings.admin_host, port, admin_token(settings), server.ready, [_state_route(server)])
    await admin.start()
    try:
        await server.start()
        log.info("serving", url=f"ws://{settings.host}:{server.port}/v1/stream", worker=settings.worker, admin_port=admin.port)
        server.failed.add_done_callback(lambda _: shutdown.ask())
        await shutdown.wait()
        await server.drain()
        if server.failed.done():
            raise server.failed.result()
    finally:
        await server.stop()
        await admin.stop()
