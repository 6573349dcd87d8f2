"""What passes is said with when to come back, and everybody does: restarts, cut lines, changed networks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.raw import Raw
from tests.wds.talk import Talk
from wds.client import Client
from wds.protocol import CLOSE_CODES, FINAL
from wds.session.session import Session, SessionLimits

Token = Callable[..., str]


@pytest.mark.parametrize("code", sorted(CLOSE_CODES))
def test_every_code_that_passes_says_when_to_come_back(code: int) -> None:
    """`after_ms` lies in the code's range and differs from connection to connection; a final code has none."""
    spread = CLOSE_CODES[code].spread_ms
    found = {Session(f"c{n}", SessionLimits(), 0).spread_ms(code) for n in range(200)}
    if spread is None:
        assert code in FINAL
        assert len(found) == 1
        return
    assert len(found) > 100
    assert all(isinstance(ms, int) and spread[0] <= ms < spread[1] <= 15_000 for ms in found)


async def test_a_late_token_is_no_reason_to_give_up(serve: Any, publisher: Publisher, token: Token) -> None:
    """A token that takes longer than the server waits costs a reconnect, after `after_ms`."""
    wds = await serve(auth_s=0.3)
    waits = [1.5, 0.0]

    async def slow_token() -> str:
        await asyncio.sleep(waits.pop(0))
        return token()

    talk = await Talk.to(wds.port)
    assert await talk.closed() == 4008
    assert talk.all(t="bye")[0]["after_ms"] >= 500
    async with Client(f"ws://127.0.0.1:{wds.port}", slow_token) as client:
        assert "error" not in (await client.subscribe("quote:A"))[0]


async def test_dead_sockets_of_a_person_make_room_for_living_ones(serve: Any, publisher: Publisher, token: Token) -> None:
    """15 tabs change the network: their old sockets answer no longer and give way within seconds; one that answers stays."""
    wds = await serve(per_user_max=20)
    old = [await Raw.to(wds.port) for _ in range(15)]
    for raw in old:
        await raw.sign_in(token(sub="p"))
    async with Client(f"ws://127.0.0.1:{wds.port}", lambda: token(sub="p")) as answering:
        answered = {one for one in wds.roster if one.user == "p"}
        clients = [Client(f"ws://127.0.0.1:{wds.port}", lambda: token(sub="p")) for _ in range(15)]
        async with asyncio.timeout(15):
            await asyncio.gather(*(client.__aenter__() for client in clients))
        assert len([one for one in wds.roster if one.user == "p"]) >= 16
        assert (await answering.command({"op": "set"}))["ok"]
        assert any(one in answered for one in wds.roster)
        for client in clients:
            await client.close()
    for raw in old:
        raw.close()


async def test_everybody_behind_one_address_comes_back_after_a_restart(serve: Any, publisher: Publisher, token: Token) -> None:
    """300 clients of one address, room for 20 strangers at a time: all are back within 15 s, none has given up."""
    first = await serve(per_user_max=1000)
    clients = [Client(f"ws://127.0.0.1:{first.port}", lambda: token()) for _ in range(300)]
    for at in range(0, 300, 50):
        await asyncio.gather(*(client.__aenter__() for client in clients[at : at + 50]))
    second = await serve(per_user_max=1000, unauthenticated_max=20, handshakes_max=20)
    for client in clients:
        client.url = f"ws://127.0.0.1:{second.port}/v1/stream"
    for connection in first.roster:
        connection.cut()
    await until(lambda: len(second.hub.members) == 300, 15)
    for client in clients:
        await client.close()
