"""The worker's timers: one that breaks ends the worker."""

from __future__ import annotations

import asyncio

import pytest

from wds.server import Server


async def test_a_broken_invariant_ends_the_worker(wds: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in a loop of the worker is not swallowed: the process shall end and be restarted."""
    monkeypatch.setattr(wds.hub, "tick", lambda *_: 1 / 0)
    async with asyncio.timeout(5):
        fault = await wds.failed
    assert "the task wds timer of" in str(fault)
    assert isinstance(fault.__cause__, ZeroDivisionError)
