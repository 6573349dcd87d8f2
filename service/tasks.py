"""Watches the tasks of a component: one that ends without being asked to is logged at once and reported, never forgotten.

Invariant: a task started here is running, was asked to end, has done what it was for (`ends`), or is a fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from service.errors import OperatorError

FAULTS_MAX = 10  # kept for readiness; what comes later is in the log
AGAIN_S = 1.0  # a cancellation may be swallowed by what the task awaits: asked again after so long
FIX = "The error is in the log; the process is meant to be started again"
log = structlog.get_logger()

T = TypeVar("T")


class TaskEnded(OperatorError):
    """A task is gone that the process cannot do without."""

    def __init__(self, name: str, error: BaseException | None) -> None:
        why = "it returned" if error is None else f"{type(error).__name__}: {error}".rstrip(": ")
        super().__init__(f"the task {name} ended unexpectedly: {why}", FIX, exit_code=1)
        self.__cause__ = error


OnFault = Callable[[OperatorError], None]


class Tasks:
    """The tasks of one owner. What becomes of a fault says `on_fault`; without it, the process ends (see `service.run`)."""

    def __init__(self, owner: str, on_fault: OnFault | None = None) -> None:
        self.owner = owner
        self.faults: list[OperatorError] = []  # their texts are reasons for `/readyz`
        self._on_fault = on_fault or end_process
        self._running: dict[asyncio.Task[Any], tuple[str, bool, OnFault]] = {}

    def start(
        self, name: str, body: Coroutine[Any, Any, T], ends: bool = False, on_fault: OnFault | None = None
    ) -> asyncio.Task[T]:
        """Run `body` beside, until it is cancelled; with `ends` it may also return.

        Its own `on_fault` is for a task that concerns others less than the owner's tasks do (one client's answer).
        """
        task = asyncio.create_task(body, name=f"{self.owner} {name}")
        self._running[task] = (name, ends, on_fault or self._on_fault)
        task.add_done_callback(self._ended)
        return task

    def check(self) -> None:
        """Raise the first fault there was.  Raises: OperatorError."""
        if self.faults:
            raise self.faults[0]

    async def close(self) -> None:
        """Cancel every task and wait until all have ended."""
        while running := set(self._running):
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=AGAIN_S)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        name, ends, on_fault = self._running.pop(task)
        # A task that awaits a future which somebody else cancels ends as cancelled, too: only `cancelling` tells that we asked.
        error = asyncio.CancelledError("by what it awaited") if task.cancelled() else task.exception()
        if task.cancelling():
            if error is not None and not task.cancelled():
                log.warning("task_ended_badly", owner=self.owner, task=name, exc_info=error)
            return
        if error is None and ends:
            return
        fault = error if isinstance(error, OperatorError) else TaskEnded(f"{self.owner} {name}", error)
        log.error("task_ended", owner=self.owner, task=name, reason=str(fault), exc_info=None if fault is error else error)
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(fault)
        on_fault(fault)


def end_process(fault: OperatorError) -> None:
    """Hand a fault to the loop, where `service.run` ends the process because of it."""
    asyncio.get_running_loop().call_exception_handler({"message": str(fault), "exception": fault})
