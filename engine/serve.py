"""The engine's process, wired in data order: disk, sequencer, readers of the journal, gateway, queue. Stopping goes backwards.

`run` ends when it is asked to, and raises when an invariant breaks: the process then dies and recovers at its next start.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import structlog
from litestar.types import ControllerRouterHandler

from engine.access.key_file import KeyFile
from engine.access.key_watch import KeyWatch
from engine.access.register import Register
from engine.core.commands import Tick
from engine.core.state import State
from engine.core.unwinding import next_order
from engine.gateway.app import Doors, GatewayServer, check_tls
from engine.gateway.connections import ConnectionLimits
from engine.gateway.door import DoorLimits
from engine.journal.format import Record
from engine.journal.journal import Journal, JournalRefused, open_journal, probe
from engine.journal.sequencer import EngineBusy, EngineUnavailable, Sequencer
from engine.orders import recall
from engine.orders.consumer import OrdersQueue
from engine.orders.requeued import Requeued
from engine.recovery.replay import ALL, Recovered, recover, replay
from engine.recovery.snapshotter import SnapshotterProcess, Task
from engine.risk.checker import RiskChecker
from engine.settings import EngineSettings
from engine.standby import role as roles
from engine.standby import set_aside
from engine.standby.follower import Follower
from engine.standby.leader import Deposed, Standbys
from engine.standby.line import Leader, Line
from engine.standby.parting import Away, leading, parting
from engine.standby.role import Promotion, Role, lock
from engine.stores.message_builder import MessageBuilder
from engine.stores.message_log import MessageLog
from engine.stores.watch import StoreWatch
from engine.streams.sink import SinkLimits, Source, StreamSink
from service import logs
from service.admin import AdminServer
from service.clock import SystemClock
from service.errors import OperatorError
from service.heartbeat import Heartbeat, Vitals
from service.run import Shutdown
from service.settings import admin_token, shown
from service.tasks import Tasks

log = structlog.get_logger()
DRAIN_S = 3.0  # for the streams, at the end
PROMOTION_LOOK_S = 0.05


async def run(settings: EngineSettings, shutdown: Shutdown) -> None:
    """Recover, serve until the stop is asked for, write what is under way.  Raises: OperatorError, AssertionError."""
    logs.setup("engine", settings.log_level, settings.log_format)
    log.info("engine_settings", **shown(settings))
    async with AsyncExitStack() as stack:
        engine = Engine(settings, stack, shutdown)
        stopping = asyncio.create_task(shutdown.wait())
        starting = asyncio.create_task(engine.start())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done() and engine.filling:  # a new standby waits for its leader as long as it takes
            starting.cancel()
            await asyncio.wait({starting})
            return
        await starting
        failing = asyncio.create_task(engine.sequencer.failed())
        await asyncio.wait({failing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if failing.done():
            failing.result()
        failing.cancel()


class Engine:
    """All parts of one process; `stack` closes them, last one first."""

    def __init__(self, settings: EngineSettings, stack: AsyncExitStack, shutdown: Shutdown) -> None:
        self._settings = settings
        self._shutdown = shutdown
        self._stack = stack
        self._journal_folder = settings.folder / "journal"
        self._snapshot_folder = settings.folder / "snapshots"
        self._clock = SystemClock()
        self.filling = False  # a standby that does not have all that its leader had at first
        self.starting = True  # a standby's admin port answers before its journal has been copied and read
        self._follower: Follower | None = None
        self._following: Tasks | None = None
        self._sink: StreamSink | None = None
        self._orders: OrdersQueue | None = None

    async def start(self) -> None:
        """Start every part in data order.  Raises: OperatorError."""
        settings = self._settings
        # 1. The disk: one process has it, and everything starts from what is there.
        self._stack.callback(os.close, lock(settings.folder))
        set_aside.finish(settings.folder)
        self._leader_url = await self._whom_to_follow()
        self._open_keys()
        if self._leader_url:
            await self._prepare_to_follow()
        recovered, journal = await self._recover_or_say_why()
        # 2. The sequencer, the only writer.
        self.sequencer = Sequencer(
            recovered.state, journal, self._rebuild, MessageBuilder, queue_max=settings.queue_max, group_max=settings.group_max,
            time_ns=recovered.time_ns, sync_s=0.0 if self._leader_url else self._sync_s(settings.replication),
            leader=self._leader_url,
        )  # fmt: skip
        self._stack.push_async_callback(self.sequencer.close)
        # 3. The journal's readers.
        self.standbys = Standbys(
            self.sequencer, self._journal_folder, self._snapshot_folder, settings.keys_file, self._clock, self._note_deposed
        )
        self.standbys.sync = settings.replication == "sync"
        if not self._leader_url:
            self._start_streams()
        self._start_snapshots(recovered)
        self.log = MessageLog(self._journal_folder, bytes_max=settings.ring_bytes)
        last = self.sequencer.committed_index, self.sequencer.last_message_index
        await asyncio.to_thread(self.log.restore, list(recovered.state.stores.values()), *last)
        self.sequencer.on_commit(self.log.on_commit)
        # 4. Time, and what time does to stores.
        self._task("time", self._tick())
        self._watch = StoreWatch(self.sequencer, self.log)
        self._task("stores", self._watch.run())
        # 5. Those who send commands, and what they may.
        self._task("keys", self.keys.run())
        self._stack.callback(self.keys.note_used)
        self._start_risk()
        self.gateway = GatewayServer(
            self.sequencer, self.log, settings.host, settings.port, self.keys, risk=self._risk, doors=self._doors(),
            standbys=self.standbys, follower=lambda: self._follower,
        )  # fmt: skip
        await self.gateway.start()
        self._stack.push_async_callback(self.gateway.stop)
        self.filling = self.starting = False
        if self._leader_url:
            self._follow(journal)
        else:
            self._start_orders()
            await self._start_admin()
            if self._promoted and self._other_url:
                self._task("herald", self._follower_of(self._other_url, journal, lambda: self.sequencer.term, None).herald())
        log.info("engine_started", port=self.gateway.port, index=self.sequencer.committed_index, follows=self._leader_url)

    async def _start_admin(self) -> None:
        of = self._settings
        admin = AdminServer(
            "engine", of.admin_host, of.admin_port, admin_token(of), self._not_ready, self._recall(), of.host_names,
            self._shutdown.ask,
        )  # fmt: skip
        await admin.start()
        heartbeat = Heartbeat("engine", of, admin.port, self._not_ready, self._vitals)
        await heartbeat.start()
        self._stack.push_async_callback(heartbeat.stop)
        self._stack.push_async_callback(admin.stop)

    def _sync_s(self, replication: str) -> float:
        return self._settings.replication_timeout_ms / 1_000 if replication == "sync" else 0.0

    # A standby

    @property
    def _other_url(self) -> str:
        """The other one of leader and standby, as far as this engine was told; "" = it is alone."""
        return self._settings.follow or self._settings.standby

    async def _whom_to_follow(self) -> str:
        """Return whom to follow, "" = nobody: this engine leads.

        One that has led asks the other one first: who was replaced while it did not run would else lead beside the later leader
        until that one calls. The term is that of `role.json`: an engine that always led has none, and any promotion is later.
        Raises: OperatorError.
        """
        settings, found = self._settings, roles.read(self._settings.folder)
        self._promoted = found is not None and found.role == "leader"
        follows = found is not None and not self._promoted
        to_follow = roles.to_follow(found, self._other_url if follows else settings.follow, settings.folder)
        if to_follow or not self._other_url:
            return to_follow
        line, term = Line(self._leader_at(self._other_url)), found.term if found is not None else 0
        ahead = await leading(line, self._name, term)
        if ahead is None or ahead.term <= term:
            return ""
        log.warning("engine_replaced", leader=self._other_url, term=ahead.term)
        return self._other_url

    async def _rewound(self, journal: Journal, term: int) -> Journal:
        """Take out of the journal what the leader never had, each command of it kept in a file; return the journal's end.

        A leader that does not answer now is no reason to wait: if the journals part, the connection to it says so later.
        Raises: OperatorError.
        """
        folder, line = self._settings.folder, Line(self._leader_at(self._leader_url))
        try:
            at = await parting(line, self._name, term, self._journal_folder)
        except Away as error:
            log.info("standby_asks_later", leader=self._leader_url, why=str(error))
            return journal
        if at is None:
            return journal
        journal.close()
        try:
            done = await asyncio.to_thread(set_aside.rewind, folder, at, self._leader_url, self._clock.wall_ns())
        except OSError as error:
            raise OperatorError(f"Cannot set aside what {self._leader_url} never had: {error}", "Mend the disk", 3) from None
        if done is not None:
            fix = "See python -m engine set-aside"
            log.warning("engine_rewound", index=done.last_index, commands=done.commands, file=str(done.file), fix=fix)
        return await asyncio.to_thread(open_journal, self._journal_folder, copying=True)

    def _leader_at(self, url: str) -> Leader:
        key = self._settings.follow_key
        return Leader(url, key.get_secret_value() if key is not None else "")

    @property
    def _name(self) -> str:
        return f"{socket.gethostname()}:{self._settings.port}"

    async def _prepare_to_follow(self) -> None:
        """Have all that the leader has now, if this standby is new; a start needs a journal that is complete."""
        settings, found = self._settings, roles.read(self._settings.folder)
        journal = await asyncio.to_thread(open_journal, self._journal_folder, copying=True)
        term = found.term if found is not None else 0
        new = journal.segment_index < 0 or (found is not None and found.filling)
        roles.write(settings.folder, Role("standby", term, self._leader_url, filling=new))
        roles.forget_promotion(settings.folder)
        self.filling = new
        await self._start_admin()
        if settings.rewind and not new:
            journal = await self._rewound(journal, term)
        if new:
            self._follower = self._follower_of(self._leader_url, journal, lambda: term, None)
            filling = Tasks("engine")
            filling.start("replication", self._follower.run())
            try:
                await self._follower.filled.wait()
            finally:
                await filling.close()
            roles.write(settings.folder, Role("standby", term, self._leader_url))
        journal.close()

    def _follower_of(
        self, url: str, journal: Journal, term: Callable[[], int], take: Callable[[list[Record]], None] | None
    ) -> Follower:
        of, leader = self._settings, self._leader_at(url)
        follower = Follower(leader, self._name, journal, self._snapshot_folder, of.keys_file, self._clock, term, take)
        if of.rewind:
            follower.when_parted = "Start it again: it sets aside what the leader never had, and follows"
        return follower

    def _follow(self, journal: Journal) -> None:
        self._follower = self._follower_of(self._leader_url, journal, lambda: self.sequencer.term, self._take_copied)
        self._following = Tasks("engine")
        self._following.start("replication", self._follower.run())
        self._stack.push_async_callback(self._following.close)
        self._task("promotion", self._await_promotion())

    def _take_copied(self, records: list[Record]) -> None:
        """Bring the state up to what the journal has; the readers of the journal hear of it, as they do of the leader."""
        replay(self.sequencer.state, records)
        self.sequencer.followed(records)

    async def _await_promotion(self) -> None:
        while True:
            await asyncio.sleep(PROMOTION_LOOK_S)
            asked = roles.read_promotion(self._settings.folder)
            if asked is not None and not asked.failed and not asked.term and self.sequencer.leader:
                await self._promote(asked)

    async def _promote(self, asked: Promotion) -> None:
        """Lead: the leader of before gets no confirmation any more, and its bytes are not taken.  Raises: JournalRefused."""
        assert self._follower is not None
        assert self._following is not None
        folder, follower = self._settings.folder, self._follower
        replication = asked.replication or self._settings.replication
        missing, heard_ms_ago = follower.missing, follower.heard_ms_ago
        began_ns = self._clock.mono_ns()
        await self._following.close()
        term = max(self.sequencer.term, follower.leader_term) + 1
        try:
            self.sequencer.lead(term, self._sync_s(replication))
        except JournalRefused as error:
            roles.write_promotion(folder, Promotion(replication, failed=str(error)))
            raise
        roles.write(folder, Role("leader", term))
        self.standbys.sync, self._leader_url = replication == "sync", ""
        self._start_streams()
        self._start_orders()
        self._task("herald", follower.herald())
        done = Promotion(replication, "", term, self.sequencer.committed_index, missing, heard_ms_ago)
        roles.write_promotion(folder, done)
        took_ms = round((self._clock.mono_ns() - began_ns) / 1e6, 1)
        log.warning("engine_promoted", took_ms=took_ms, **msgspec.to_builtins(done))

    def _note_deposed(self, why: Deposed) -> None:
        try:
            roles.write(self._settings.folder, Role("deposed", why.term))
        except OSError as error:
            log.error("role_not_written", error=str(error), fix="Do not start this engine as a leader again")

    def _open_keys(self) -> None:
        token = self._settings.api_token.get_secret_value() if self._settings.api_token else ""
        reader = self._settings.market_data_token
        register = Register(token, self._settings.sockets_max, reader.get_secret_value() if reader else "")
        self.keys = KeyWatch(KeyFile(self._settings.keys_file), register, SystemClock())
        self.keys.open(bool(token or self._leader_url))
        if self._settings.tls is not None:
            check_tls(*self._settings.tls)

    def _doors(self) -> Doors:
        of = self._settings
        orders = DoorLimits(of.orders_per_s, of.requests_per_s, of.public_per_s)
        connections = ConnectionLimits(
            of.head_ms / 1_000, of.body_ms / 1_000, per_address=of.connections_max, opened_per_s=of.opened_per_s
        )
        return Doors(orders, connections, of.host_names, of.tls)

    async def _recover_or_say_why(self) -> tuple[Recovered, Journal]:
        try:
            return await asyncio.to_thread(self._recover)
        except OSError as error:
            fix = "Mend the disk, or set ENGINE_DIR to another folder"
            raise OperatorError(f"Cannot read {self._settings.folder}: {error}", fix, exit_code=3) from None

    def _rebuild(self) -> tuple[State, Journal]:
        recovered, journal = self._recover()
        return recovered.state, journal

    def _recover(self) -> tuple[Recovered, Journal]:
        """Take what is on the disk; runs in a thread.  Raises: JournalRefused while the disk takes nothing."""
        self._journal_folder.mkdir(parents=True, exist_ok=True)
        probe(self._journal_folder)
        journal = open_journal(self._journal_folder, copying=bool(self._leader_url))
        recovered = recover(self._journal_folder, self._snapshot_folder)
        assert recovered.chain == journal.chain, "the journal ends with the last record that was applied"
        log.info(
            "engine_recovered", index=recovered.last_index, snapshot=recovered.snapshot_index, replayed=recovered.replayed
        )  # fmt: skip
        return recovered, journal

    def _start_streams(self) -> None:
        if self._settings.streams_url:
            source = Source(
                self._journal_folder, lambda: self.sequencer.committed_index, self._oldest_needed,
                self.sequencer.instrument,
            )  # fmt: skip
            limits = SinkLimits(trades_max=self._settings.streams_trades_max)
            self._sink = StreamSink(self._settings.streams_url, source, limits)
            self.sequencer.on_commit(self._sink.offer)
            self._task("streams", self._sink.run())
            self._stack.push_async_callback(self._sink.drain, DRAIN_S)

    def _start_snapshots(self, recovered: Recovered) -> None:
        settings = self._settings
        self._snapshotter: SnapshotterProcess | None = None
        if settings.snapshot_interval_ms:
            archive = str(settings.archive) if settings.archive else ""
            task = Task(
                str(self._journal_folder), str(self._snapshot_folder), settings.snapshot_interval_ms, settings.snapshots_kept,
                archive, settings.prune, settings.log_level, settings.log_format,
            )  # fmt: skip
            self._snapshotter = SnapshotterProcess(
                task, recovered.last_index, recovered.chain, recovered.snapshot_index, self._copied_index
            )  # fmt: skip
            self.sequencer.on_commit(self._snapshotter.on_commit)
            self._task("snapshots", self._snapshotter.run())

    def _copied_index(self) -> int:
        """Return up to which index stream and standby have everything."""
        streamed = -1 if self._settings.streams_url else ALL
        return min(self._sink.position if self._sink is not None else streamed, self.standbys.needed_index)

    def _oldest_needed(self) -> int:
        """Return what the stream must keep the events after: the oldest snapshot, or the oldest message nobody has purged."""
        if self.sequencer.doubtful:
            return -1  # what was purged last may be taken back
        snapshot = self._snapshotter.oldest_index if self._snapshotter is not None else -1
        return min([snapshot, *(store.purged_index for store in self.sequencer.state.stores.values())])

    def _start_risk(self) -> None:
        settings = self._settings
        self._risk: RiskChecker | None = None
        if settings.risk and not settings.orders_url:
            raise OperatorError("ENGINE_RISK is on without a RabbitMQ", "Set ENGINE_ORDERS_URL, or ENGINE_RISK=false")
        if settings.risk:
            self._risk = RiskChecker(settings.orders_url, timeout_s=settings.risk_timeout_ms / 1_000)
            self._risk.start()
            self._stack.push_async_callback(self._risk.close)

    def _start_orders(self) -> None:
        if self._settings.orders_url:
            self._orders = OrdersQueue(
                self._settings.orders_url, self.sequencer, self._risk,
                register=self.keys.register if self._settings.orders_trust == "keys" else None,
                requeued=Requeued(admin_token(self._settings).encode()),
            )  # fmt: skip
            self._orders.start()
            self._stack.push_async_callback(self._orders.close)

    def _recall(self) -> list[ControllerRouterHandler]:
        """Return the admin routes of dead letters, when there is a queue of orders."""
        url, token = self._settings.orders_url, admin_token(self._settings)
        return recall.routes(recall.DeadLetters(url, Requeued(token.encode()))) if url else []

    def _vitals(self) -> Vitals:
        if self.starting:
            return Vitals(more={"role": "standby"})
        if self.sequencer.doubtful:
            return Vitals({"commands": self.sequencer.committed_index})
        state = self.sequencer.state
        return Vitals(
            {"commands": self.sequencer.committed_index},
            more={
                "gateway_port": self.gateway.port, "index": self.sequencer.committed_index, "suspended": sorted(state.suspended),
                "stores": len(state.stores), "orders_queue": self._orders is not None,
                "role": "standby" if self.sequencer.leader else "leader", "term": self.sequencer.term,
            },
        )  # fmt: skip

    def _not_ready(self) -> list[str]:
        if self.starting:
            return self._not_started()
        if self._follower is not None and self.sequencer.leader:
            return [f"standby of {self._leader_url}: {self._follower.problem}"] if self._follower.problem else []
        found = [self.sequencer.refusal] if self.sequencer.refusal else []
        if self._orders is not None and not self._orders.ready:
            found.append(f"order queue: {self._orders.fault}")
        if self._risk is not None and not self._risk.ready:
            found.append(f"risk: {self._risk.fault}")
        if self._snapshotter is not None and self._snapshotter.problem:
            found.append(f"snapshots: {self._snapshotter.problem}")
        if self._sink is not None and self._sink.state in ("away", "stopped"):
            found.append(f"streams: {self._sink.problem or 'connecting'}")
        return found

    def _not_started(self) -> list[str]:
        follower = self._follower
        if follower is None:
            return ["standby: it reads its journal"]
        return [f"standby: {follower.problem or f'{follower.missing} commands are still to be copied'}"]

    async def _tick(self) -> None:
        """Let time pass for the exchange: orders expire, timers run out, INSURANCE trades without other commands."""
        while True:
            await asyncio.sleep(self._settings.tick_ms / 1_000)
            if self.sequencer.leader:
                continue
            try:
                self.sequencer.proceed()
                if next_order(self.sequencer.state, 0) is not None:
                    await self.sequencer.submit(Tick())
            except (EngineBusy, EngineUnavailable):
                continue  # other commands carry the time, or it is looked at again

    def _task(self, name: str, body: Coroutine[Any, Any, None]) -> None:
        """Run a body until the stack is closed. The process ends when it does: nothing stops silently."""
        tasks = Tasks("engine")
        tasks.start(name, body)
        self._stack.push_async_callback(tasks.close)
