"""Runs the real components as simulated processes: workers, listeners and data services, each started again when it ends.

Invariant: a component reaches the outside only by its links; its clock is the clock of its process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from mdc.connect import AWAY, check_cache, open_cache
from mdl.listener import Listener
from mdl.settings import MdlSettings
from mdp.settings import MdpSettings
from mdp.worker import HEARTBEAT_S, Worker
from mdq.topology import all_queues, progress_queue
from service.run import Shutdown, wait_for
from tests.sim.clients import Browser
from tests.sim.loop import Process
from tests.sim.queues import RemoteBroker
from wds.fanout.freshness import PIPELINE, Freshness
from wds.fanout.hub import Hub
from wds.fanout.upstream import Upstream
from wds.protocol import PERIOD_S, PHASES
from wds.settings import WdsSettings

if TYPE_CHECKING:
    from tests.sim.world import World

CACHE_URL = "redis://cache:6379/0"
TIERS = (4,)  # that browsers ask for, besides raw


class Component:
    """A process under a supervisor that starts it again."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.lives = 0
        self.process: Process | None = None
        self.task: asyncio.Task[Any] | None = None
        self.shutdown = Shutdown()
        self.stopping = False
        self.skew_ns = 0

    @property
    def alive(self) -> bool:
        return self.process is not None and not self.process.dead and not self.process.paused

    @property
    def hale(self) -> bool:
        """Whether it runs and all its links work."""
        return self.process is not None and self.alive and all(link.works for link in self.world.network.of_process(self.process))

    def boot(self) -> None:
        """Start the process."""
        if self.process is not None and not self.process.dead:
            return
        self.world.faults.changed_s = self.world.now_s
        self.lives += 1
        self.stopping = False
        self.process = self.world.process(f"{self.name}.{self.lives}")
        self.process.clock.skew_ns = self.skew_ns
        self.shutdown = Shutdown()
        self.world.tell(f"{self.process.name} starts")
        self.task = self.process.start(self.main(self.process))
        self.task.add_done_callback(self._ended)

    def kill(self) -> None:
        """End it without a word; its operating system closes its connections."""
        process = self.process
        if process is None or process.dead:
            return
        process.paused = False
        process.dead = True
        for link in self.world.network.of_process(process):
            link.hang_up("client")

    def terminate(self) -> None:
        """Ask it to drain and end."""
        self.stopping = True
        self.shutdown.ask()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        assert self.process is not None
        if task.cancelled() or self.process.dead:
            return
        if task.exception() is not None or not self.stopping:
            self.world.checks.complaints.append(f"{self.process.name} ended by itself: {task.exception()!r}")
        self.kill()
        self.world.loop.call_later(0.5, self.boot)

    def main(self, process: Process) -> Coroutine[Any, Any, None]:
        raise NotImplementedError


class WorkerProcess(Component):
    """A processor, as `mdp.worker.run` wires it."""

    worker: Worker | None = None

    async def main(self, process: Process) -> None:
        plan, shutdown = self.world.plan, self.shutdown
        settings = MdpSettings(
            mdc_url=CACHE_URL,
            mdq_partitions=plan.partitions,
            analyzers=plan.analyzers,
            flush_ms=plan.flush_ms,
            flush_ms_max=2 * plan.flush_ms,
            worker=self.name if plan.named else process.name,
        )
        redis, broker = open_cache(CACHE_URL, "mdp"), RemoteBroker(self.world.network, process.name, HEARTBEAT_S)
        await wait_for("Redis", lambda: check_cache(redis, CACHE_URL), shutdown, "-", (), AWAY)
        await wait_for("RabbitMQ", broker.connect, shutdown, "-")
        await wait_for(
            "RabbitMQ", lambda: broker.declare([*all_queues(plan.partitions), progress_queue()]), shutdown, "-"
        )  # fmt: skip
        self.worker = Worker(settings, broker, redis, process.clock, shutdown)
        await self.worker.run()
        await broker.close()
        await redis.aclose()


class ListenerProcess(Component):
    """A listener of one source, as `mdl.listener.Listener.run` starts it, without its admin port."""

    def __init__(self, world: World, name: str, source: str) -> None:
        super().__init__(world, name)
        self.source = source
        self.listener: Listener | None = None

    async def main(self, process: Process) -> None:
        settings = MdlSettings(
            feed="simulator",
            source=self.source,
            mdc_url=CACHE_URL,
            mdq_partitions=self.world.plan.partitions,
            lease="on",
            admin_token=SecretStr("-"),
        )
        broker = RemoteBroker(self.world.network, process.name)
        listener = self.listener = Listener(settings, broker, process.clock)
        await wait_for("RabbitMQ", listener._connect, self.shutdown, "-")
        await listener.work(self.shutdown)
        await broker.close()


class DataService(Component):
    """A widget data service, as `wds.server` wires it, with browsers that come back when it does."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.browsers = [Browser(f"{name}/{hz}", hz) for hz in ("raw", 4)]
        self.hub: Hub | None = None
        self.upstream: Upstream | None = None
        self.fault: BaseException | None = None

    async def main(self, process: Process) -> None:
        settings = WdsSettings(mdc_url=CACHE_URL, mdq_partitions=self.world.plan.partitions)
        clock = process.clock
        hub = self.hub = Hub(lambda payload: payload + b"\n", Freshness(settings.silence_s, clock.mono_ns()), settings.linger_s)
        upstream = self.upstream = Upstream(hub, settings, clock, self._fail)
        hub.pin(PIPELINE)
        await upstream.start()
        tickers = [asyncio.create_task(self._tick(hub, clock, hz)) for hz in TIERS]
        for browser in self.browsers:
            browser.connect(hub, self.world.channels(), clock.mono_ns())
        while not self.shutdown.asked and self.fault is None:
            hub.on_time(clock.mono_ns())
            upstream.carry_out()
            await self.shutdown.sleep(1.0)
        for ticker in tickers:
            ticker.cancel()
        await upstream.close()
        if self.fault is not None:
            raise self.fault

    def _fail(self, fault: BaseException) -> None:
        self.fault = self.fault or fault

    async def _tick(self, hub: Hub, clock: Any, hz: Any) -> None:
        step_s = PERIOD_S[hz] / PHASES[hz]
        while True:
            for phase in range(PHASES[hz]):
                await asyncio.sleep(step_s)
                hub.tick(hz, phase, clock.mono_ns())
