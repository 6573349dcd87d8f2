"""Runs one worker of the widget data service: wiring, admission, drain. One worker, one event loop.

Flow: Upstream → Hub → Connection. What waits for the outside (keys, lists, snapshots) is a task of `answers.py`; handing frames
to sockets never waits. A task that ends unexpectedly ends the worker: without it clients would wait and not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import secrets
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from litestar import get

from service import metrics
from service.admin import AdminServer, bind
from service.clock import Clock, SystemClock
from service.errors import OperatorError
from service.heartbeat import Heartbeat, Vitals
from service.run import Shutdown
from service.settings import admin_token
from service.tasks import TaskEnded, Tasks
from service.tracing import Tracer, open_tracer
from wds import clients, meter
from wds.access.ended import Ended
from wds.access.handshake import address_key, is_trusted
from wds.access.keys import KeySource, local_key
from wds.access.limits import Census, Lobby
from wds.access.tickets import Tickets
from wds.access.tokens import KeyRing
from wds.compat.relay import Relay
from wds.compat.session import CompatSession
from wds.fanout.framing import text_frame
from wds.fanout.freshness import PIPELINE, Freshness
from wds.fanout.hub import Hub
from wds.fanout.outbox import Ladder
from wds.fanout.traced_hub import TracedHub
from wds.fanout.upstream import Upstream, named
from wds.protocol import DRAINING
from wds.session.session import Session, SessionLimits
from wds.settings import WdsSettings
from wds.timers import Timers, sparing_others
from wds.transport.answers import Answers
from wds.transport.connection import Connection
from wds.transport.roster import Roster

CLOSING_S = 2.5
# Clients sent off in a second, while that takes no longer than WDS_DRAIN_S. Each comes back within five seconds more and costs
# the next worker 0.8 ms: 2,000 are there again after 7.5 s, at most 400 a second, a third of a core.
SENT_OFF_A_S = 800
PROBE_NS = 2_000_000_000  # between two looks at whether the connections of a user or an address still answer
PROBED_MAX = 1000
FILES_KEPT = 64  # of the process's open files: the cache, the admin port, logs
SCRIPT = Path(__file__).parent / "static" / "tapeline.js"
log = structlog.get_logger()


class Server:
    """One worker. `files_max` = how many files the process may open; 0 = not to be thought of."""

    def __init__(
        self, settings: WdsSettings, clock: Clock | None = None, files_max: int = 0, tracer: Tracer | None = None
    ) -> None:
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
        wall_ns = self.clock.wall_ns
        traced = Hub if tracer is None else partial(TracedHub, spans=tracer, wall_ns=wall_ns)
        self.hub = traced(text_frame, freshness, settings.linger_s, base_ms=wall_ns() // 1_000_000)
        self.relay = Relay(self.hub) if settings.compat else None
        self.tasks = Tasks("wds", self._fail)
        self.upstream = Upstream(self.hub, settings, self.clock, self._fail)
        self.keys = _keys(settings)
        self.tickets = Tickets(settings.run_dir / "tickets", settings.per_user_max)
        self.roster = Roster()
        self.sockets_max = settings.connections_max + 1000
        if files_max:
            self.sockets_max = max(1, min(self.sockets_max, files_max - FILES_KEPT))
        self.lobby = Lobby(min(settings.handshakes_max, max(1, self.sockets_max // 4)))
        self._probed: dict[str, int] = {}  # user or address → when its connections were last asked
        self.ended = Ended(settings.mdc_url)
        self.answers = Answers(self.hub, self.upstream, self.keys, self.ended, self.clock, self.tasks)
        self._timers = Timers(self.hub, self.upstream, self.roster, self.census, self.keys, self.ended, self.clock, self.tasks)
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
        pause_s = min(self.settings.drain_s, len(everybody) / SENT_OFF_A_S) / max(1, len(everybody))
        for at, connection in enumerate(everybody):
            with sparing_others(connection):
                connection.bye(DRAINING)
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
        self.tickets.close()
        await self.tasks.close()
        await self.upstream.close()
        await self.ended.close()

    def ready(self) -> list[str]:
        """Return why no data can flow to a client now."""
        if self.draining:
            return ["draining"]
        verdict = self.hub.verdict
        nothing_comes = verdict.state == "stale" and not verdict.reason.startswith("feed ")
        return [verdict.reason] if nothing_comes else []

    def vitals(self) -> Vitals:
        """Return what the heartbeat tells."""
        verdict = self.hub.verdict
        return Vitals(
            {"frames": metrics.total(meter.frames), "client_frames": metrics.total(meter.commands)},
            more={
                "worker": self.settings.worker, "connections": self.census.connections, "channels": self.hub.watched,
                "state": verdict.state, "cache_away": named(self.upstream.away), "draining": self.draining, "port": self.port,
            },
        )  # fmt: skip

    # Connections

    def enter(self, connection: Connection, address: str) -> str | None:
        """Look after a new socket; return why not when there is no room for it, not even to hear what it wants."""
        if len(self.roster) >= self.sockets_max:
            return "files"
        if not is_trusted(address, self.settings.trusted_proxies) and not self.lobby.enter(address_key(address)):
            return "handshakes"
        self.roster.enter(connection)
        return None

    def arrived(self, address: str) -> None:
        """A socket has finished its request, or ended."""
        if not is_trusted(address, self.settings.trusted_proxies):
            self.lobby.leave(address_key(address))

    def full_house(self, user: str | None, address: str) -> None:
        """Somebody is refused: ask those in its way whether they are still there. Who is not makes room in two seconds."""
        now_ns = self.now_ns()
        key = f"user {user}" if user is not None else f"address {address}"
        if now_ns < self._probed.get(key, 0) + PROBE_NS:
            return
        if len(self._probed) >= PROBED_MAX:
            self._probed.clear()
        self._probed[key] = now_ns
        for connection in self.roster:
            if connection.shares(user, address):
                with sparing_others(connection):
                    connection.probe(now_ns)

    def forget(self, connection: Connection) -> None:
        """The socket is gone."""
        self.roster.forget(connection)
        if self.draining and not self.roster:
            self._empty.set()
        self.settle()

    def new_session(self, deaf: bool, compat: bool) -> Session:
        """Return a session for a connection that finished its handshake; `deaf` = its client can only listen."""
        if compat:
            return CompatSession(secrets.token_hex(6), self.limits, self.now_ns())
        return Session(secrets.token_hex(6), self.limits, self.now_ns(), self.hub.base_ms, deaf)

    def wall_s(self) -> float:
        """The clock by which tokens and tickets expire."""
        return self.clock.wall_ns() / 1e9

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
            "cache_away": named(server.upstream.away),
            "draining": server.draining,
        }

    return state


def raise_files() -> int:
    """Raise the soft limit of open files to the hard one; return how many there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def run(settings: WdsSettings, shutdown: Shutdown) -> None:
    """Serve until asked to stop, then drain."""
    files_max = raise_files()
    tracer = open_tracer("wds", settings)
    server = Server(settings, files_max=files_max, tracer=tracer)
    log.info("open_files", most=files_max, sockets=server.sockets_max)
    if server.sockets_max < 0.9 * settings.connections_max:
        log.warning("few_open_files", fix="raise the hard limit of open files (ulimit -Hn), or lower WDS_CONNECTIONS_MAX")
    port = settings.admin_port + settings.worker if settings.admin_port else 0
    admin = AdminServer(
        "wds", settings.admin_host, port, admin_token(settings), server.ready, [_state_route(server), *clients.routes(server)],
        settings.host_names, shutdown.ask,
    )  # fmt: skip
    await admin.start()
    heartbeat = Heartbeat("wds", settings, admin.port, server.ready, server.vitals, f"wds-{settings.worker}")
    await heartbeat.start()
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
        if tracer is not None:
            await tracer.close()
        await heartbeat.stop()
        await admin.stop()
