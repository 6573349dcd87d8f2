"""The worker's timers: one that breaks ends the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.wds.raw import connection_of
from tests.wds.talk import Talk
from wds.server import Server


async def test_a_broken_invariant_ends_the_worker(wds: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in a loop of the worker is not swallowed: the process shall end and be restarted."""
    monkeypatch.setattr(wds.hub, "tick", lambda *_: 1 / 0)
    async with asyncio.timeout(5):
        fault = await wds.failed
    assert "the task wds timer of" in str(fault)
    assert isinstance(fault.__cause__, ZeroDivisionError)


async def test_a_broken_connection_does_not_end_the_round(
    wds: Server, token: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails for one connection ends that one; the next ones are looked after, and the worker goes on."""
    unlucky, other = await Talk.to(wds.port, token()), await Talk.to(wds.port, token())
    await unlucky.find(t="hello")
    broken = connection_of(wds, unlucky.all(t="hello")[0]["conn"])
    monkeypatch.setattr(broken, "session", None)
    monkeypatch.setattr(broken, "_opened_ns", "never")  # its next look fails
    assert await unlucky.closed() == 1006
    assert (await other.ask(op="sub", ch=["quote:B"]))["ok"]
    assert not wds.failed.done()
    await other.close()
