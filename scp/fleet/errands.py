"""Runs what waits for the network on one loop in a thread of its own; no thread of a request waits longer than it says."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from scp.problems import Problem

T = TypeVar("T")
SPARE_S = 0.5  # for the loop to end what it was told to end


class Errands:
    """The loop; it begins with the first errand and ends with the process."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    def run(self, work: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
        """Return what `work` returns; after `seconds` it is cancelled.  Raises: Problem 503 naming `what`; what `work` raises."""
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
