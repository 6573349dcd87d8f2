"""Clients and the cache in, the widget data service out: wiring, timers, admission, drain. One worker, one event loop.

Flow: Upstream → Hub → Connection. Everything that waits for the outside (keys, lists, snapshots) is a task here; handing
frames to sockets never waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog
from litestar import get
from msgspec import UNSET, Raw

from mdc.channels import kind_of
from service.admin import AdminServer, bind
from service.clock import Clock, SystemClock
from service.run import Shutdown
from service.settings import admin_token
from wds import meter
from wds.connection import Connection
from wds.delta import parse_fields
from wds.framing import text_frame
from wds.freshness import PIPELINE, Freshness
from wds.hub import Hub
from wds.keys import KeySource, local_key
from wds.limits import Census
from wds.outbox import Ladder, Step
from wds.protocol import DRAINING, PERIOD_S, PHASES, GetOutcome, Hz, error
from wds.session import Session, SessionLimits
from wds.settings import WdsSettings
from wds.tokens import KeyRing, TokenRefused
from wds.upstream import FAILURES, Upstream

SLOTS = 10  # connections are looked after once a second, a tenth of them every 100 ms
GET_BYTES_MAX = 524_288  # of one reply; the ladder would end a client that asked for more
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
        self.upstream = Upstream(self.hub, settings, self.clock, self._fail)
        self.keys = _keys(settings)
        self._slots: list[set[Connection]] = [set() for _ in range(SLOTS)]
        self._slot_of: dict[Connection, int] = {}
        self._patterned: set[Connection] = set()
        self._listening: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

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
        for loop_of_ours in (*map(self._tick, PERIOD_S), self._look_after(), self._housekeeping()):
            self.spawn(self._forever(loop_of_ours))

    async def drain(self) -> None:
        """Take nobody new, send everybody off in a spread order, close within 10 s."""
        self.draining = True
        if self._listening is not None:
            self._listening.close()
        everybody = list(self._slot_of)
        log.info("draining", connections=len(everybody))
        pause_s = min(self.settings.drain_s, len(everybody) / 400) / max(1, len(everybody))
        for at, connection in enumerate(everybody):
            connection.bye(DRAINING, random.randint(200, RECONNECT_SPREAD_MS))
            if at % 20 == 19:
                await asyncio.sleep(20 * pause_s)
        if self._slot_of:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSING_S):
                    await self._empty.wait()

    async def stop(self) -> None:
        """Cut who is left and release everything."""
        self.draining = True
        if self._listening is not None:
            self._listening.close()
        for connection in list(self._slot_of):
            connection.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
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
        if len(self._slot_of) > self.settings.connections_max + 1000:
            meter.refused.labels("flood").inc()
            return False
        slot = len(self._slot_of) % SLOTS
        self._slot_of[connection] = slot
        self._slots[slot].add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """The socket is gone."""
        slot = self._slot_of.pop(connection, None)
        if slot is not None:
            self._slots[slot].discard(connection)
        self._patterned.discard(connection)
        if self.draining and not self._slot_of:
            self._empty.set()
        self.settle()

    def new_session(self) -> Session:
        """Return a session for a connection that finished its handshake."""
        return Session(secrets.token_hex(6), self.limits, self.now_ns())

    def note_patterns(self, connection: Connection) -> None:
        """Remember who subscribed to patterns: they are told of new channels."""
        session = connection.session
        if session is not None and session.subscriptions.patterns and not session.closed:
            self._patterned.add(connection)
        else:
            self._patterned.discard(connection)

    def settle(self) -> None:
        """Carry out what the hub asked for."""
        self.upstream.carry_out()

    # What waits for the outside

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside; a fault in it is logged and ends nothing else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task_failed", exc_info=task.exception())

    def verify(self, connection: Connection, token: str) -> None:
        """Judge a token now, or after fetching keys when it names one we do not know."""
        try:
            claims = self.keys.verify(token)
        except TokenRefused as refused:
            if refused.unknown_kid is not None and self.settings.jwks_url is not None:
                self.spawn(self._verify_anew(connection, token))
            else:
                connection.verified(refused, 0.0)
        else:
            connection.verified(claims, claims.exp_s - self.clock.wall_ns() / 1e9)

    async def _verify_anew(self, connection: Connection, token: str) -> None:
        try:
            claims = await self.keys.verify_anew(token)
        except TokenRefused as refused:
            connection.verified(refused, 0.0)
        else:
            connection.verified(claims, claims.exp_s - self.clock.wall_ns() / 1e9)
        self.settle()

    def list_kinds(self, connection: Connection, kinds: list[str]) -> None:
        """Find the known channels for a session that expands patterns."""
        self.spawn(self._list_kinds(connection, kinds))

    async def _list_kinds(self, connection: Connection, kinds: list[str]) -> None:
        known = await self.upstream.known(kinds)
        if connection.session is not None:
            connection.run(connection.session.on_listed(known))

    def fetch(self, connection: Connection, channels: list[str], limit: int | None) -> None:
        """Answer a get."""
        self.spawn(self._fetch(connection, channels, limit))

    async def _fetch(self, connection: Connection, channels: list[str], limit: int | None) -> None:
        member = connection.member
        assert member is not None
        read = [name for name in channels if name not in member.groups or _has_history(name)]
        found = dict(zip(read, await asyncio.gather(*(self._outcome(name, limit) for name in read)), strict=True))
        outcomes: dict[str, GetOutcome] = {}
        room = GET_BYTES_MAX
        for name in channels:  # no await from here: the answer and the chain must belong together
            outcome = self._position(connection, name, limit, found.get(name)) if room > 0 else None
            if outcome is None:
                outcome = GetOutcome(name, error=error("limit", "the reply is full; ask for fewer channels, or set limit"))
            room -= len(bytes(outcome.data)) if outcome.data is not UNSET else 0
            outcomes[name] = outcome
        if connection.session is not None:
            connection.run(connection.session.on_fetched(outcomes))

    async def _outcome(self, channel: str, limit: int | None) -> GetOutcome:
        try:
            snapshot = await self.upstream.fetch(channel, limit)
        except FAILURES:
            return GetOutcome(channel, error=error("unavailable", "the cache cannot be read now"))
        if snapshot is None:
            return GetOutcome(channel, error=error("unavailable", "no data yet"))
        return GetOutcome(channel, snapshot.epoch, snapshot.seq, snapshot.ts, Raw(snapshot.data))

    def _position(self, connection: Connection, name: str, limit: int | None, read: GetOutcome | None) -> GetOutcome | None:
        assert connection.member is not None
        history = None
        if read is not None and _has_history(name) and read.data is not UNSET:
            history = parse_fields(read.data).get("history")
        subscribed = self.hub.position(connection.member, name, limit, history)
        if subscribed is not None:
            return subscribed
        return read or GetOutcome(name, error=error("unavailable", "unsubscribed meanwhile"))

    # Time

    async def _forever(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as fault:
            self._fail(fault)

    def _fail(self, fault: BaseException) -> None:
        # A broken invariant: without this loop clients would wait for ever and not know. The process ends and is restarted.
        log.critical("worker_failed", exc_info=fault)
        if not self.failed.done():
            self.failed.set_result(fault)

    async def _tick(self, hz: Hz) -> None:
        step_s = PERIOD_S[hz] / PHASES[hz]
        loop = asyncio.get_running_loop()
        at = loop.time()
        for phase in itertools.cycle(range(PHASES[hz])):
            at = max(at + step_s, loop.time())
            await asyncio.sleep(at - loop.time())
            began_ns = self.now_ns()
            self.hub.tick(hz, phase, began_ns)
            self.upstream.account(began_ns)

    async def _look_after(self) -> None:
        slot = 0
        while True:
            await asyncio.sleep(1 / SLOTS)
            now_ns, wall_ms = self.now_ns(), self.clock.wall_ns() // 1_000_000
            for connection in list(self._slots[slot]):
                connection.on_time(now_ns, wall_ms)
            slot = (slot + 1) % SLOTS
            self.settle()

    async def _housekeeping(self) -> None:
        while True:
            self.hub.on_time(self.now_ns())
            self.settle()
            self._gauge()
            await self._widen()
            if self.keys.stale:
                self.spawn(self.keys.refresh())
            await asyncio.sleep(1)

    async def _widen(self) -> None:
        kinds = {
            pattern.kind.name for one in self._patterned if one.session for pattern in one.session.subscriptions.patterns.values()
        }
        known = await self.upstream.known(sorted(kinds)) if kinds else None
        for kind, names in (known or {}).items():
            for connection in list(self._patterned):
                if connection.session is not None:
                    connection.run(connection.session.on_known(kind, names))

    def _gauge(self) -> None:
        members = self.hub.members
        meter.connections.set(self.census.connections)
        meter.subscriptions.set(sum(len(member.groups) for member in members))
        meter.channels.set(self.hub.watched)
        meter.slow_clients.set(sum(member.outbox.step is not Step.OPEN for member in members))
        meter.buffer_bytes.set(sum(connection.buffered_bytes for connection in self._slot_of))
        meter.fresh.set(self.hub.verdict.state == "live")


def _has_history(channel: str) -> bool:
    kind = kind_of(channel)
    return kind.mode == "merge" and kind.keep > 0


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
