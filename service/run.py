"""Runs a component as a well-behaved process: uvloop, signals, bounded drain, one-line errors.

Invariant: a watched task or a thread that ends unexpectedly ends the process, in order and with a code above zero.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import structlog
import uvloop

from service.errors import OperatorError
from service.tasks import TaskEnded

DRAIN_S_MAX = 10.0
GC_THRESHOLD = (50_000, 20, 50)  # the default of 700 objects is a millisecond of a market's events
log = structlog.get_logger()


class Shutdown:
    """Tells a component to stop: SIGTERM and SIGINT set it, `wait()` returns then."""

    def __init__(self) -> None:
        self.fault: OperatorError | None = None  # why the process ends, when nobody asked it to
        self._event = asyncio.Event()

    @property
    def asked(self) -> bool:
        return self._event.is_set()

    def ask(self) -> None:
        """Ask the component to drain and end."""
        self._event.set()

    def fail(self, fault: OperatorError) -> None:
        """Ask the component to drain and end, because of a fault; the first one is what the process says at its end."""
        self.fault = self.fault or fault
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()

    async def sleep(self, seconds: float) -> bool:
        """Sleep up to `seconds`; return True as soon as the stop is asked for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        return self.asked


Main = Callable[[Shutdown], Coroutine[Any, Any, None]]


def main(component: str, body: Main) -> None:
    """Run `body(shutdown)` to its end and exit the process: 0 clean, the error's code for an OperatorError."""
    try:
        uvloop.run(_supervise(component, body))
    except OperatorError as error:
        fail(component, error)
    except KeyboardInterrupt:
        sys.exit(130)


def fail(component: str, error: OperatorError) -> None:
    """Print the one clear line and exit with the error's code."""
    print(f"tapeline {component}: error: {error}", file=sys.stderr, flush=True)
    sys.exit(error.exit_code)


async def _supervise(component: str, body: Main) -> None:
    shutdown = Shutdown()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, shutdown.ask)
    loop.set_exception_handler(lambda loop, context: _hear_loop(loop, context, shutdown))
    gc.freeze()  # what start-up made lives for ever; collecting it again and again costs milliseconds of pause
    gc.set_threshold(*GC_THRESHOLD)
    task = asyncio.ensure_future(body(shutdown))
    stopping = asyncio.ensure_future(shutdown.wait())
    with _watched_threads(loop, shutdown):
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=DRAIN_S_MAX)
    if not task.done():
        log.error("drain_timed_out", seconds=DRAIN_S_MAX)
        task.cancel()
        await asyncio.wait({task}, timeout=1)  # a task that refuses to be cancelled must not keep the process
        sys.exit(1)  # what it still held may be lost: not a clean end
    stopping.cancel()
    await task
    if shutdown.fault is not None:
        raise shutdown.fault


def _hear_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any], shutdown: Shutdown) -> None:
    """End the process for a fault of a watched task; log what else the loop reports (one socket's broken callback)."""
    fault = context.get("exception")
    if isinstance(fault, OperatorError):
        shutdown.fail(fault)
    else:
        loop.default_exception_handler(context)


@contextlib.contextmanager
def _watched_threads(loop: asyncio.AbstractEventLoop, shutdown: Shutdown) -> Iterator[None]:
    before = threading.excepthook

    def broken(args: threading.ExceptHookArgs) -> None:
        name = args.thread.name if args.thread is not None else "unknown"
        log.error("thread_ended", thread=name, exc_info=args.exc_value)
        fault = TaskEnded(f"(thread) {name}", args.exc_value)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending anyway
            loop.call_soon_threadsafe(shutdown.fail, fault)

    threading.excepthook = broken
    try:
        yield
    finally:
        threading.excepthook = before


async def wait_for(
    name: str,
    probe: Callable[[], Awaitable[object]],
    shutdown: Shutdown,
    fix: str,
    refused: tuple[type[BaseException], ...] = (),
    transient: tuple[type[BaseException], ...] = (OSError, TimeoutError),
) -> None:
    """Wait until `probe()` succeeds, with exponential backoff (0.1 s to 5 s, full jitter), saying so in the log.

    `refused` are faults that waiting does not mend (bad credentials), `transient` those it does; `refused` is asked first.
    Raises: OperatorError for a refusal, with `fix`.
    """
    attempt = 0
    while not shutdown.asked:
        try:
            await probe()
            return
        except refused as error:
            raise OperatorError(f"{name} refused the connection: {error}", fix, exit_code=3) from None
        except transient as error:
            log.warning("waiting_for_dependency", dependency=name, attempt=attempt, error=str(error), fix=fix)
        await shutdown.sleep(backoff_s(attempt, random.random()))
        attempt += 1


def backoff_s(attempt: int, dice: float, first_s: float = 0.1, most_s: float = 5.0) -> float:
    """Return the pause before try `attempt` + 1: exponential with full jitter; `dice` is uniform in [0, 1)."""
    return float(min(most_s, first_s * 2 ** min(attempt, 30)) * (0.1 + 0.9 * dice))
