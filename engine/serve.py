"""The engine's process, wired in data order: disk, sequencer, readers of the journal, gateway, queue. Stopping goes backwards.

`run` ends when it is asked to, and raises when an invariant breaks: the process then dies and recovers at its next start.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

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
from engine.journal.journal import Journal, open_journal, probe
from engine.journal.sequencer import EngineBusy, EngineUnavailable, Sequencer
from engine.orders import recall
from engine.orders.consumer import OrdersQueue
from engine.orders.requeued import Requeued
from engine.recovery.replay import ALL, Recovered, recover
from engine.recovery.snapshotter import SnapshotterProcess, Task
from engine.risk.checker import RiskChecker
from engine.settings import EngineSettings
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


async def run(settings: EngineSettings, shutdown: Shutdown) -> None:
    """Recover, serve until the stop is asked for, write what is under way.  Raises: OperatorError, AssertionError."""
    logs.setup("engine", settings.log_level, settings.log_format)
    log.info("engine_settings", **shown(settings))
    async with AsyncExitStack() as stack:
        engine = Engine(settings, stack, shutdown)
        await engine.start()
        failing = asyncio.create_task(engine.sequencer.failed())
        stopping = asyncio.create_task(shutdown.wait())
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

    async def start(self) -> None:
        """Start every part in data order.  Raises: OperatorError."""
        settings = self._settings
        # 1. The disk: one process has it, and everything starts from what is there.
        self._stack.callback(os.close, lock(settings.folder))
        self._open_keys()
        recovered, journal = await self._recover_or_say_why()
        # 2. The sequencer, the only writer.
        self.sequencer = Sequencer(
            recovered.state, journal, self._rebuild, MessageBuilder, queue_max=settings.queue_max, group_max=settings.group_max,
            time_ns=recovered.time_ns,
        )  # fmt: skip
        self._stack.push_async_callback(self.sequencer.close)
        # 3. The journal's readers.
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
            self.sequencer, self.log, settings.host, settings.port, self.keys, risk=self._risk, doors=self._doors()
        )
        await self.gateway.start()
        self._stack.push_async_callback(self.gateway.stop)
        self._start_orders()
        admin = AdminServer(
            "engine", settings.admin_host, settings.admin_port, admin_token(settings), self._not_ready, self._recall(),
            settings.host_names, self._shutdown.ask,
        )  # fmt: skip
        await admin.start()
        heartbeat = Heartbeat("engine", settings, admin.port, self._not_ready, self._vitals)
        await heartbeat.start()
        self._stack.push_async_callback(heartbeat.stop)
        self._stack.push_async_callback(admin.stop)
        log.info("engine_started", port=self.gateway.port, admin_port=admin.port, index=self.sequencer.committed_index)

    def _open_keys(self) -> None:
        token = self._settings.api_token.get_secret_value() if self._settings.api_token else ""
        register = Register(token, self._settings.sockets_max)
        self.keys = KeyWatch(KeyFile(self._settings.keys_file), register, SystemClock())
        self.keys.open(bool(token))
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
        journal = open_journal(self._journal_folder)
        recovered = recover(self._journal_folder, self._snapshot_folder)
        assert recovered.chain == journal.chain, "the journal ends with the last record that was applied"
        log.info(
            "engine_recovered", index=recovered.last_index, snapshot=recovered.snapshot_index, replayed=recovered.replayed
        )  # fmt: skip
        return recovered, journal

    def _start_streams(self) -> None:
        self._sink: StreamSink | None = None
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
            sink = self._sink
            written = (lambda: sink.position) if sink is not None else (lambda: ALL)
            self._snapshotter = SnapshotterProcess(
                task, recovered.last_index, recovered.chain, recovered.snapshot_index, written
            )  # fmt: skip
            self.sequencer.on_commit(self._snapshotter.on_commit)
            self._task("snapshots", self._snapshotter.run())

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
        self._orders: OrdersQueue | None = None
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
        state = self.sequencer.state
        return Vitals(
            {"commands": self.sequencer.committed_index},
            more={
                "gateway_port": self.gateway.port, "index": self.sequencer.committed_index, "suspended": sorted(state.suspended),
                "stores": len(state.stores), "orders_queue": self._orders is not None,
            },
        )  # fmt: skip

    def _not_ready(self) -> list[str]:
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

    async def _tick(self) -> None:
        """Let time pass for the exchange: orders expire, timers run out, INSURANCE trades without other commands."""
        while True:
            await asyncio.sleep(self._settings.tick_ms / 1_000)
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


def lock(folder: Path) -> int:
    """Return the open lock of the engine's folder.  Raises: OperatorError when another process has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o640)
    except OSError as error:
        raise OperatorError(f"Cannot use ENGINE_DIR {folder}: {error}", "Give a folder that can be written") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise OperatorError(f"Another engine has {folder}", "Stop it, or set ENGINE_DIR to another folder", 3) from None
    return handle
