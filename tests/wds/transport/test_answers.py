"""Answers that wait for the outside: one that fails harms its own client only."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wds.talk import Talk
from wds.server import Server


async def test_an_answer_that_fails_ends_its_client_and_nobody_else(
    wds: Server, token: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would wait in vain: it is cut, and reconnects."""
    unlucky, other = await Talk.to(wds.port, token()), await Talk.to(wds.port, token())

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(wds.answers, "_outcome", broken)
    await unlucky.send(op="get", id=1, ch=["quote:A"])
    assert await unlucky.closed() == 1006
    assert (await other.ask(op="sub", ch=["quote:B"]))["ok"]
    assert not wds.failed.done()
    await other.close()
