"""Checks what operators see of a worker's clients, and that a client that is sent off goes, and comes back only if it may."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from service.admin import AdminServer
from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.talk import Talk
from wds import clients
from wds.server import Server

Token = Callable[..., str]


@pytest.fixture
async def port(wds: Server) -> AsyncIterator[httpx.AsyncClient]:
    """The worker's admin port."""
    admin = AdminServer("wds", "127.0.0.1", 0, "sesame", wds.ready, clients.routes(wds))
    await admin.start()
    headers = {"Authorization": "Bearer sesame"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin.port}", headers=headers) as client:
        yield client
    await admin.stop()


async def test_clients_are_listed_in_pages(wds: Server, port: httpx.AsyncClient, publisher: Publisher, token: Token) -> None:
    """Who it is, from where, how much it follows; only for who has the token."""
    await publisher.publish("quote:AAPL", {"last": 1.0})
    talks = [await Talk.to(wds.port, token(sub=f"user-{n}")) for n in range(3)]
    await talks[0].ask(op="sub", ch=["quote:AAPL"])
    seen, after = [], ""
    while True:
        page = (await port.get("/clients", params={"limit": 2, "after": after})).json()
        assert page["total"] == 3
        seen += page["clients"]
        if page["next"] is None:
            break
        after = page["next"]
    assert sorted(one["user"] for one in seen) == ["user-0", "user-1", "user-2"]
    mine = next(one for one in seen if one["user"] == "user-0")
    assert (mine["subscriptions"], mine["address"], mine["transport"], mine["pace"]) == (1, "127.0.0.1", "websocket", "open")
    assert (await port.get("/clients", headers={"Authorization": "no"})).status_code == 401
    for talk in talks:
        await talk.close()


@pytest.mark.parametrize(("come_back", "code"), [(False, 4003), (True, 4200)])
async def test_a_kicked_client_goes(wds: Server, port: httpx.AsyncClient, token: Token, come_back: bool, code: int) -> None:
    """With the code that tells it whether to return; others stay; who is not there is a 404."""
    gone, stays = await Talk.to(wds.port, token()), await Talk.to(wds.port, token())
    conn = gone.all(t="hello")[0]["conn"]
    assert (await port.post(f"/clients/{conn}/kick", json={"come_back": come_back})).json()["conn"] == conn
    await until(lambda: gone.code == code)
    bye = gone.all(t="bye")[0]
    assert ("after_ms" in bye) is come_back
    assert (await port.post(f"/clients/{conn}/kick", json={})).status_code == 404
    assert (await stays.ask(op="get", ch=["quote:X"]))["ok"]
    for talk in (gone, stays):
        await talk.close()
