"""Runs what waits for the network on one loop in a thread of its own; no thread of a request waits longer than it says.

Invariant: those who wait for somebody slow never hold every thread of the server: signing in and tokens go on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from scp.problems import Problem

T = TypeVar("T")
ROOM_S = 0.5  # how long a place is waited for
SPARE_S = 0.5  # for the loop to end what it was told to end


class Errands:
    """The loop; it begins with the first errand and ends with the process."""

    def __init__(self, at_once: int) -> None:
        """`at_once` = how many threads may wait here at the same time; fewer than the server has."""
        self._room = threading.BoundedSemaphore(at_once)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    def run(self, work: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
        """Return what `work` returns; after `seconds` it is cancelled.  Raises: Problem 503 naming `what`; what `work` raises."""
        if not self._room.acquire(timeout=ROOM_S):
            work.close()
            raise Problem(503, "busy", f"Too many wait for slow components already; {what} was not asked", [("Retry-After", "5")])
        try:
            return self._result(work, seconds, what)
        finally:
            self._room.release()

    def _result(self, work: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
        future = asyncio.run_coroutine_threadsafe(_within(work, seconds), self._running())
        try:
            return future.result(seconds + SPARE_S)
        except (TimeoutError, concurrent.futures.TimeoutError):
            future.cancel()
            words = f"{what} did not answer within {seconds:g} s; look at its log, or try again"
            raise Problem(503, "no_answer", words, [("Retry-After", "5")]) from None

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` go on beside the errands, to the end of the process."""
        asyncio.run_coroutine_threadsafe(work, self._running())

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="errands", daemon=True).start()
            return self._loop


async def _within(work: Coroutine[Any, Any, T], seconds: float) -> T:
    async with asyncio.timeout(seconds):
        return await work
