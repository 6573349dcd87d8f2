"""What the gateway answers waits for the standby, whatever route or stream it comes by."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import websockets

from engine.access.keys import Role
from engine.standby.leader import Standbys
from tests.engine.gateway.ground import Ground, asked, exchange, order_body
from tests.waiting import until


async def led(ground: Ground) -> None:
    """Let a standby that is in step be there."""
    ground.sequencer.in_step(ground.sequencer.journal.last_index)
    confirming = asyncio.create_task(_confirm(ground))
    await ground.market(1)
    confirming.cancel()
    await asyncio.gather(confirming, return_exceptions=True)


async def _confirm(ground: Ground) -> None:
    while True:
        ground.sequencer.in_step(ground.sequencer.journal.last_index)
        await asyncio.sleep(0.001)


async def test_nobody_sees_what_the_standby_lacks(tmp_path: Path) -> None:
    """An order, a look at it, a retry with its key, its stream: all answered by the standby's word, and not before."""
    async with exchange(tmp_path / "journal", sync_s=30.0) as ground:
        await led(ground)
        private = f"{ground.ws_url}/v1/trade"
        header = {"Authorization": ground.http.headers["Authorization"]}
        async with websockets.connect(private, additional_headers=header) as socket:
            confirming = asyncio.create_task(_confirm(ground))
            await socket.send(json.dumps({"op": "subscribe", "accounts": [1]}))
            assert json.loads(await socket.recv())["type"] == "subscribed"
            await until(lambda: not ground.sequencer.unsettled)
            confirming.cancel()
            await asyncio.gather(confirming, return_exceptions=True)
            keyed = {"Idempotency-Key": "deposit-1"}
            tasks = [
                asyncio.create_task(ground.http.post(f"{ground.url}/Account/1/Deposit", json={"amount": 5}, headers=keyed)),
            ]
            await until(lambda: ground.sequencer.unsettled)
            tasks += [
                asyncio.create_task(ground.http.get(f"{ground.url}/Account/1")),
                asyncio.create_task(ground.http.post(f"{ground.url}/Account/1/Deposit", json={"amount": 5}, headers=keyed)),
                asyncio.create_task(ground.http.post(f"{ground.url}/Order", json=order_body(1, "later"))),
            ]
            await socket.send(json.dumps({"op": "ping", "id": 1}))
            assert json.loads(await socket.recv())["type"] == "pong"
            before = ground.sequencer.committed_index
            answered = await asyncio.wait(tasks, timeout=0.3)
            assert answered[0] == set(), "nothing is answered"
            assert ground.sequencer.committed_index == before
            confirming = asyncio.create_task(_confirm(ground))
            first, shown, again, order = await asyncio.gather(*tasks)
            assert (first.status_code, first.content) == (again.status_code, again.content)
            assert shown.json()["balance"] >= first.json()["balance"]
            assert order.status_code == 201
            assert json.loads(await socket.recv())["type"] == "update"
            confirming.cancel()
            await asyncio.gather(confirming, return_exceptions=True)


async def test_the_view_is_for_standbys_and_operators(tmp_path: Path) -> None:
    """A trader has no business with it."""
    async with exchange(tmp_path / "journal") as ground:
        assert isinstance(ground.standbys, Standbys)
        for role, accounts, expected in ((Role.TRADER, "1", 403), (Role.MARKET_DATA, "", 403), (Role.REPLICA, "", 200)):
            status, _ = await asked(ground, ground.key(role, accounts), "GET", "/Replication")
            assert status == expected
        for path in ("/Account", "/MessageStore", "/Key", "/Order?account=1&clOrdID=x"):
            assert (await asked(ground, ground.key(Role.REPLICA), "GET", path))[0] == 403
