"""Builds a deployment of real components on the virtual loop, runs it through its faults and hands what happened to the checks.

Invariant: between two worlds nothing is shared; dice, clocks, names and the network come from the seed.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import random
import secrets
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from tests.sim.cache import CacheServer, clocked_by
from tests.sim.checks import Checks
from tests.sim.components import Component, DataService, ListenerProcess, WorkerProcess
from tests.sim.faults import Faults
from tests.sim.links import NETWORK, Network
from tests.sim.loop import EPOCH_NS, PROCESS, START_S, Process, VirtualLoop
from tests.sim.plan import END_S, HEAL_S, OWNED_S, QUIET_S, Plan
from tests.sim.queues import QueueServer
from tests.sim.vendor import Market, sold_by

LOOK_S = 0.25
TRACE_MAX = 400
BURIAL_ROUNDS_MAX = 20
_worlds = itertools.count()  # no two have a broker in common, not even two of one seed


@dataclass(frozen=True)
class Run:
    """What became of a plan: a digest of everything that went over the links, and what failed ("" = nothing)."""

    plan: Plan
    digest: str
    steps: int
    failure: str
    report: str


def simulate(plan: Plan) -> Run:
    """Run a plan in a world of its own."""
    with seeded(plan.seed):
        run = World(plan).run()
        if plan.seed % 8 == 0:
            gc.collect()
    return run


class World:
    """One run of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.loop = VirtualLoop()
        self.digest = hashlib.blake2b(digest_size=8)
        self.story: deque[str] = deque(maxlen=TRACE_MAX)
        self.dice = random.Random(f"world:{plan.seed}")
        self.processes: list[Process] = []
        self.network = Network(self.loop, plan.seed, self._trace)
        self.checks = Checks(self)
        self.cache = CacheServer(self.process("cache"), self.network, self.checks.on_publish)
        self.queues = QueueServer(self.process("queues"), self.network, f"sim-{next(_worlds)}")
        self.network.servers = {"cache": self.cache, "queues": self.queues}
        self.workers = [WorkerProcess(self, f"worker-{n}") for n in range(plan.workers)]
        self.markets = {name: Market(self, name) for name in plan.sources}
        self.listeners = [ListenerProcess(self, f"listener-{name}", name) for name in plan.sources]
        self.listeners += [ListenerProcess(self, f"standby-{n}", plan.sources[0]) for n in range(plan.standbys)]
        self.services = [DataService(self, f"service-{n}") for n in range(plan.services)]
        self.faults = Faults(self)

    @property
    def now_s(self) -> float:
        """Seconds since the beginning."""
        return self.loop.time() - START_S

    @property
    def components(self) -> list[Component]:
        return [*self.workers, *self.listeners, *self.services]

    def run(self) -> Run:
        """Run the plan."""
        failure = report = ""
        with clocked_by(self.cache.process), sold_by(self.markets, self.plan.pace_s), self._logged():
            try:
                self.loop.run_until_complete(self.loop.create_task(self._play(), context=NETWORK.copy()))
            except Exception as error:
                failure = f"at {self.now_s:.3f} s: {type(error).__name__}: {error}"
                report = self._report(failure)
            run = Run(self.plan, self.digest.hexdigest(), self.loop.steps, failure, report)
            self._bury()
        return run

    @property
    def quiet_s(self) -> float:
        """When the feeds stop."""
        return QUIET_S

    def true_ms(self) -> int:
        """The time of day, as nobody's clock shows it."""
        return (EPOCH_NS + int(self.loop.time() * 1e9)) // 1_000_000

    def symbols(self) -> list[str]:
        return [symbol for market in self.markets.values() for symbol in market.symbols]

    def channels(self) -> list[str]:
        """The channels that browsers watch."""
        return [*(f"quote:{symbol}" for symbol in self.symbols()), *(f"trades:{symbol}" for symbol in self.symbols()[::2])]

    def tenures(self, source: str) -> int:
        """How many epochs a source has had: of one that ended, nobody knows what was on its way."""
        return len(self.queues.epochs.get(source, ()))

    def tell(self, what: str) -> None:
        """Add a line to the story that a failure prints."""
        self.story.append(f"{self.now_s:8.3f}  {what}")

    async def _play(self) -> None:
        for component in self.components:
            component.boot()
        self.faults.schedule()
        await self._until(HEAL_S)
        self.faults.heal()
        self.tell("healed")
        await self._until(HEAL_S + OWNED_S)
        self.checks.owned_and_fresh()
        await self._until(QUIET_S)
        for market in self.markets.values():
            market.quiet = True
        await self._until(END_S)
        self.checks.at_end()

    async def _until(self, when_s: float) -> None:
        while self.now_s < when_s:
            await asyncio.sleep(min(LOOK_S, when_s - self.now_s))
            self.checks.look()

    def process(self, name: str) -> Process:
        """Return a new process, on a machine whose monotonic clock began at some time."""
        made = Process(name, self.loop, self.dice.random() * 1_000)
        self.processes.append(made)
        return made

    def _trace(self, lane: str, message: Any) -> None:
        size = len(message) if isinstance(message, bytes) else 0
        kind = message[0] if isinstance(message, tuple) else ""
        self.digest.update(f"{self.loop.time():.9f} {lane} {kind} {size}\n".encode())

    @contextmanager
    def _logged(self) -> Iterator[None]:
        before = structlog.get_config()

        def note(_: Any, level: str, event: Any) -> Any:
            process = PROCESS.get()
            name, what = process.name if process else "", event.pop("event")
            fault = event.pop("exc_info", None)
            facts = " ".join(f"{key}={value}" for key, value in event.items())
            self.tell(f"{name}: {what} {facts} {fault or ''}".rstrip())
            expected = what == "checkpoint_cell_unreadable" and self.faults.poisoned
            if level in ("error", "critical") and not expected:
                self.checks.complaints.append(f"{name} logged {what} {facts} {fault or sys.exc_info()[1] or ''}".rstrip())
            raise structlog.DropEvent

        structlog.configure(processors=[note], wrapper_class=structlog.make_filtering_bound_logger(20))
        self.loop.set_exception_handler(self._on_fault)
        try:
            yield
        finally:
            structlog.configure(**before)

    def _on_fault(self, _: Any, context: dict[str, Any]) -> None:
        self.checks.complaints.append(f"unhandled: {context.get('message')} {context.get('exception')!r}")

    def _report(self, failure: str) -> str:
        story = "\n".join(self.story)
        return f"{self.plan}\n{story}\n{failure}\nreplay: make sim SEEDS=1 FIRST={self.plan.seed}"

    def _bury(self) -> None:
        """End every task, those of dead processes too, with all links gone: what is left to the collector would speak up later."""
        self.loop.set_exception_handler(lambda *_: None)
        self.network.gone = True
        for process in self.processes:
            process.dead = False
            process.resume()
        for _ in range(BURIAL_ROUNDS_MAX):
            left = asyncio.all_tasks(self.loop)
            if not left:
                break
            for task in left:
                task.cancel()
            self.loop.run_until_complete(self.loop.create_task(asyncio.sleep(1.0), context=NETWORK.copy()))
        self.loop.run_until_complete(self.loop.create_task(self.loop.shutdown_asyncgens(), context=NETWORK.copy()))
        self.loop.close()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let every die of the process come from the seed, and collect no garbage: a finalizer would run at any moment."""
    dice = random.Random(f"machine:{seed}")
    state, token_hex, unraisable = random.getstate(), secrets.token_hex, sys.unraisablehook
    random.seed(dice.random())
    secrets.token_hex = lambda nbytes=8: f"{dice.getrandbits(8 * nbytes):0{2 * nbytes}x}"  # type: ignore[assignment]
    sys.unraisablehook = lambda _: None
    gc.disable()
    try:
        yield
    finally:
        random.setstate(state)
        secrets.token_hex = token_hex
        gc.enable()
        sys.unraisablehook = unraisable
