"""Runs asyncio on a virtual clock: time jumps to the next timer, and every callback belongs to a simulated process.

Invariant: the same callbacks run in the same order for the same seed. A callback of a paused process waits until the process
goes on; one of a dead process never runs. A callback's process is found in its context, which asyncio hands on by itself.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

START_S = 1_000.0
EPOCH_NS = 1_700_000_000_000_000_000 - int(START_S * 1e9)  # a Tuesday, 17:13 in New York, when the simulation begins
STEPS_MAX = 50_000  # callbacks without time going on: something spins
PRUNE_AT = 512

Connect = Callable[[str, Callable[[], asyncio.Protocol]], Coroutine[Any, Any, tuple[asyncio.Transport, asyncio.Protocol]]]


class Process:
    """A simulated process: a name, a state, clocks of its own and the context that its callbacks carry."""

    def __init__(self, name: str, loop: VirtualLoop, boot_s: float = 0.0) -> None:
        self.name = name
        self.paused = False
        self.dead = False
        self.clock = ProcessClock(loop, boot_s)
        self.held: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []  # an abandoned task must not be collected, which would run its cleanup
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)
        self._loop = loop

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as a task of this process."""
        return self._loop.create_task(work, context=self.context.copy())

    def keep(self, task: asyncio.Task[Any]) -> None:
        self.tasks.append(task)
        if len(self.tasks) > PRUNE_AT and not self.dead:
            self.tasks = [kept for kept in self.tasks if not kept.done()]

    def resume(self) -> None:
        """Go on: what was due meanwhile runs now, in the order in which it became due."""
        self.paused = False
        self._loop.requeue(self.held)


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)


class ProcessClock:
    """The clocks of one machine. `skew_ns` makes the wall clock wrong; the monotonic one began at another time than others."""

    def __init__(self, loop: VirtualLoop, boot_s: float = 0.0) -> None:
        self.skew_ns = 0
        self._loop = loop
        self._boot_ns = int(boot_s * 1e9)

    def wall_ns(self) -> int:
        return EPOCH_NS + int(self._loop.time() * 1e9) + self.skew_ns

    def mono_ns(self) -> int:
        return int(self._loop.time() * 1e9) + self._boot_ns


class Stuck(AssertionError):
    """Nothing is left to happen, or one instant never ends."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without a selector. `connect` is what `create_connection` means here: a connection over the links."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S
        self.connect: Connect | None = None
        self.steps = 0
        self._steps_here = 0
        self._waiting: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timed = 0

    def time(self) -> float:
        return self.now_s

    def requeue(self, handles: deque[asyncio.Handle]) -> None:
        """Let held callbacks run next."""
        self._waiting.extend(handles)
        handles.clear()

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        context = options.get("context")
        owner = context.get(PROCESS) if context is not None else PROCESS.get()
        if owner is not None:
            owner.keep(task)
        return task

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:  # type: ignore[override]
        """Connect the process that asks to the server `host`."""
        assert self.connect is not None
        return await self.connect(host, factory)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Call at once: there are no threads here."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timed += 1
        heapq.heappush(self._timers, (when, self._timed, timer))  # tuples are compared quicker than handles, and never tie
        return timer

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._waiting.append(handle)
        return handle

    def _run_once(self) -> None:
        ready, timers = self._waiting, self._timers
        while timers and timers[0][2]._cancelled:  # type: ignore[attr-defined]
            heapq.heappop(timers)
        if not ready and timers:
            self._move_to(timers[0][0])
        while timers and timers[0][0] <= self.now_s:
            ready.append(heapq.heappop(timers)[2])
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            raise Stuck("nothing is left to happen")
        for _ in range(len(ready)):
            self._run_one(ready.popleft())
        self._steps_here += 1
        if self._steps_here > STEPS_MAX:
            raise Stuck(f"time stands still at {self.now_s - START_S:.3f} s")

    def _move_to(self, when_s: float) -> None:
        if when_s > self.now_s:
            self.now_s = when_s
            self._steps_here = 0

    def _run_one(self, handle: asyncio.Handle) -> None:
        if handle._cancelled:  # type: ignore[attr-defined]
            return
        owner = handle._context.get(PROCESS)  # type: ignore[attr-defined]
        if owner is not None and (owner.dead or owner.paused):
            owner.held.append(handle)
            return
        self.steps += 1
        handle._run()  # type: ignore[attr-defined]
