"""Polls a condition until it is true or a deadline has passed, so that tests never sleep for a guessed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

POLL_S = 0.01
# Deadlines are written for a quiet machine. Another build on the same cores takes them several times as long and proves nothing.
PATIENCE = 3


async def until(condition: Callable[[], Any], seconds: float = 5, what: str = "", every_s: float = POLL_S) -> Any:
    """Return the first truthy value of `condition()` (plain or async); fail after `PATIENCE` times `seconds`, naming `what`.

    An exception of the condition fails the test at once: a broken probe must not look like a slow system.
    """
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        _check(deadline, seconds, what, condition, value)
        await asyncio.sleep(every_s)


async def until_reached(read: Callable[[], int], wanted: int, stall_s: float = 20, what: str = "") -> None:
    """Wait until a number that grows has reached `wanted`; fail when it has stood still for `stall_s`, however slow it is."""
    value, deadline = read(), time.monotonic() + stall_s
    while value < wanted:
        _check(deadline, stall_s, f"any step towards {wanted}: {what}", read, value)
        await asyncio.sleep(POLL_S)
        if (now := read()) != value:
            value, deadline = now, time.monotonic() + stall_s


def until_sync(condition: Callable[[], Any], seconds: float = 5, what: str = "", every_s: float = POLL_S) -> Any:
    """The same for tests without an event loop."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not (value := condition()):
        _check(deadline, seconds, what, condition, value)
        time.sleep(every_s)
    return value


def _check(deadline: float, seconds: float, what: str, condition: Callable[[], Any], value: Any) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"not within {PATIENCE} × {seconds} s: {what or _source(condition)} (last value: {value!r})")


def _source(condition: Callable[[], Any]) -> str:
    try:
        return " ".join(inspect.getsource(condition).split())[:200]
    except (OSError, TypeError):
        return repr(condition)
