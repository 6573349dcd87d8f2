"""The gateway's door over real sockets: who is let in to what, with which key, and what a withdrawn or another's key gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import websockets

from engine.access.keys import Role
from engine.access.rules import RULES, Need
from engine.core import events as ev
from engine.core.commands import Tick
from engine.gateway.app import Doors
from engine.gateway.door import DoorLimits
from engine.journal.reader import read
from service.clock import ManualClock
from tests.engine.gateway.ground import Ground, asked, exchange, order_body
from tests.engine_process import OPERATOR
from tests.waiting import until

NOBODY: dict[str, str] = {}


async def test_each_role_gets_to_its_routes_and_no_further(ground: Ground) -> None:
    """The whole table, once for every role and without a key: 401 or 403 with what to do, or past the door."""
    keys = {Role.TRADER: ground.key(Role.TRADER, "1"), Role.MARKET_DATA: ground.key(Role.MARKET_DATA), Role.OPERATOR: OPERATOR}
    allowed = {Need.PUBLIC: set(Role), Need.KEY: set(Role), Need.OWN: {Role.TRADER, Role.OPERATOR},
               Need.READ: set(Role), Need.STORE: {Role.MARKET_DATA, Role.OPERATOR}, Need.OPERATOR: {Role.OPERATOR},
               Need.REPLICA: {Role.OPERATOR}}  # fmt: skip
    before = ground.digest
    for (method, path), rule in RULES.items():
        if method == "WEBSOCKET":
            continue
        path = path.replace("{account}", "1")
        status, problem = await asked(ground, NOBODY, method, path)
        assert (status == 401) is (rule.need is not Need.PUBLIC), (method, path, status)
        assert status != 401 or "python -m engine keys create" in problem["detail"]
        for role, headers in keys.items():
            if path.endswith(("ResumeTrading", "SuspendTrading")) or (method, path) == ("PUT", "/MessageStore"):
                continue  # what needs no arguments and would be done
            status, problem = await asked(ground, headers, method, path)
            assert (status == 403) is (role not in allowed[rule.need]), (method, path, role, status)
            assert status != 403 or rule.need.value in problem["detail"]
    assert ground.digest == before


async def test_a_key_that_does_not_count_is_told_so_everywhere(ground: Ground) -> None:
    """Unknown, mangled, of another scheme; on public routes, too, so that a mistake is noticed."""
    good = ground.key(Role.OPERATOR)["Authorization"]
    for value in ("Bearer wrong", "Bearer", good[:-1], good.replace("Bearer", "Basic"), "tl_x", "Bearer ö"):
        for path in ("/OrderBook?symbol=BTC-PERP", "/Account", "/nothing"):
            answer = await ground.http.get(ground.url + path, headers=[(b"Authorization", value.encode())])
            assert answer.status_code == 401, (value, path)
            assert answer.headers["www-authenticate"] == "Bearer"
    assert (await asked(ground, {"Authorization": good}, "GET", "/Account"))[0] == 200
    assert (await asked(ground, {"Authorization": good.replace("Bearer", "bearer")}, "GET", "/Account"))[0] == 200


async def test_a_trader_moves_and_sees_its_accounts_only(ground: Ground) -> None:
    """Another's account, INSURANCE and FEES are refused on every route that names an account; nothing changes."""
    desk = ground.key(Role.TRADER, "1,10-19")
    await ground.order(2, "theirs", "Buy", 1, 99)
    before = ground.digest
    for account in (2, 0, -1, 9, 20):
        query, amend = f"account={account}&clOrdID=theirs", {"account": account, "clOrdID": "theirs", "orderQty": 5}
        for method, path, body in (
            ("POST", "/Order", order_body(account, "x")), ("PUT", "/Order", amend), ("DELETE", f"/Order?{query}", None),
            ("GET", f"/Order?{query}", None), ("DELETE", f"/Order/All?account={account}", None),
            ("PUT", f"/Order/CancelAllAfter?account={account}&timeoutMillis=1", None), ("GET", f"/Account/{account}", None),
            ("PUT", f"/KillSwitch?account={account}&on=true", None), ("POST", f"/Account/{account}/Withdraw", {"amount": 1}),
            ("POST", f"/Account/{account}/Deposit", {"amount": 1}),
        ):  # fmt: skip
            status, problem = await asked(ground, desk, method, path, body)
            if account == -1 and path == "/Order":
                assert status in (400, 403)  # FEES is no account of orders at all
                continue
            assert status == 403, (method, path, problem)
            assert problem["code"] == ("Forbidden" if "Deposit" in path else "ForeignAccount")
    assert ground.digest == before
    status, own = await asked(ground, desk, "POST", "/Order", order_body(1, "mine"))
    assert (status, own["ordStatus"]) == (201, "New")
    assert (await asked(ground, desk, "GET", "/Order?account=1&clOrdID=mine"))[0] == 200
    assert [one["account"] for one in (await asked(ground, desk, "GET", "/Account"))[1]] == [1]
    assert (await asked(ground, desk, "POST", "/Account/1/Withdraw", {"amount": 1}))[0] == 200
    assert (await asked(ground, desk, "PUT", "/KillSwitch?account=1&on=true"))[1]["canceled"] == [own["orderId"]]
    assert (await asked(ground, desk, "PUT", "/KillSwitch?account=1&on=false"))[0] == 403, "an operator may have pulled it"
    assert (await asked(ground, OPERATOR, "PUT", "/KillSwitch?account=1&on=false"))[0] == 200


async def test_a_market_data_key_reads_its_stores(ground: Ground) -> None:
    """It makes, reads and purges those it names, sees no others, and deletes none."""
    headers = ground.key(Role.MARKET_DATA, stores=("mine",))
    await ground.ask("PUT", "/MessageStore?storeId=theirs")
    assert (await asked(ground, headers, "PUT", "/MessageStore?storeId=mine"))[0] == 200
    assert [one["storeId"] for one in (await asked(ground, headers, "GET", "/MessageStore"))[1]] == ["mine"]
    index = (await ground.order(1, "a", "Buy", 1, 99))["messageIndex"]
    assert (await asked(ground, headers, "DELETE", f"/MessageStore/Purge?storeId=theirs&messageIndex={index}"))[0] == 403
    assert (await asked(ground, headers, "PUT", "/MessageStore?storeId=another"))[1]["code"] == "ForeignStore"
    async with websockets.connect(f"{ground.ws_url}/joined?storeId=mine", additional_headers=headers) as socket:
        assert json.loads(await socket.recv())["messageIndex"] == index
    async with websockets.connect(f"{ground.ws_url}/joined?storeId=theirs", additional_headers=headers) as socket:
        assert "none of this key's" in await socket.recv()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4403
    assert (await asked(ground, headers, "DELETE", f"/MessageStore/Purge?storeId=mine&messageIndex={index}"))[0] == 200
    assert (await asked(ground, headers, "DELETE", "/MessageStore?storeId=mine&force=true"))[0] == 403


async def test_a_flood_is_refused_and_others_are_served(tmp_path: Path) -> None:
    """429 with Retry-After for the key that sends too much; orders and other requests are counted apart; so is the public."""
    async with exchange(
        tmp_path, clock=ManualClock(), doors=Doors(DoorLimits(orders_per_s=5, requests_per_s=5, public_per_s=5))
    ) as ground:
        flood, honest = ground.key(Role.TRADER, "1"), ground.key(Role.TRADER, "2")
        statuses = [(await asked(ground, flood, "GET", "/Account"))[0] for _ in range(12)]
        assert statuses[:10] == [200] * 10
        assert statuses[10] == 429
        answer = await ground.http.get(f"{ground.url}/Account", headers=flood)
        assert (answer.status_code, answer.headers["retry-after"], answer.json()["code"]) == (429, "1", "TooManyRequests")
        assert (await asked(ground, flood, "POST", "/Order", order_body(1, "x")))[0] == 404, "orders are counted apart"
        assert (await asked(ground, honest, "GET", "/Account"))[0] == 200
        public = [(await asked(ground, NOBODY, "GET", "/Instrument"))[0] for _ in range(11)]
        assert public[-1] == 429
        guessing = [(await asked(ground, {"Authorization": "Bearer x"}, "GET", "/Account"))[0] for _ in range(11)]
        assert 429 in guessing, "wrong keys are counted with the public"
        assert (await asked(ground, honest, "GET", "/Account"))[0] == 200


async def test_a_replayed_order_is_done_once(ground: Ground) -> None:
    """Word for word the same request again: 409 with the first order's id."""
    desk = ground.key(Role.TRADER, "1")
    _, first = await asked(ground, desk, "POST", "/Order", order_body(1, "once"))
    status, again = await asked(ground, desk, "POST", "/Order", order_body(1, "once"))
    assert (status, again["orderId"]) == (409, first["orderId"])
    assert len(ground.sequencer.state.orders) == 1


async def test_the_journal_names_who_sent_each_command(ground: Ground, tmp_path: Path) -> None:
    """The key's id, `token` for ENGINE_API_TOKEN, `engine` for what nobody sent; refused commands too."""
    desk = ground.key(Role.TRADER, "1")
    key_id = desk["Authorization"].split("_")[1]
    _, placed = await asked(ground, desk, "POST", "/Order", order_body(1, "a"))
    await asked(ground, desk, "POST", "/Order", order_body(1, "b", symbol="NOPE"))
    await ground.order(2, "c", "Sell", 1, 99)
    await ground.ask("PUT", "/Order/CancelAllAfter?account=2&timeoutMillis=1")

    async def has_run_out() -> bool:
        await ground.sequencer.submit(Tick())
        return not ground.sequencer.state.ledger.accounts[2].deadline_ns

    await until(has_run_out)
    senders: dict[str, set[str]] = {}
    for record in read(tmp_path):
        first, *events = ev.decode(record.payload)
        assert isinstance(first, ev.SentBy)
        assert not any(isinstance(event, ev.SentBy) for event in events)
        for event in events:
            senders.setdefault(first.sender, set()).add(type(event).__name__)
        if record.command_index == int(placed["orderId"]):
            assert first.sender == key_id
    assert senders.keys() == {key_id, "token", "engine"}
    assert {"OrderAccepted", "OrderRejected"} <= senders[key_id]
    assert "Transferred" in senders["token"]
    assert "TimerSet" in senders["engine"]


async def test_the_public_sees_the_top_of_a_book(ground: Ground) -> None:
    """A hundred levels a side; whole books are for keys."""
    for depth, status in ((1, 200), (100, 200), (101, 401), (0, 401)):
        assert (await asked(ground, NOBODY, "GET", f"/OrderBook?symbol=BTC-PERP&depth={depth}"))[0] == status
        assert (await asked(ground, OPERATOR, "GET", f"/OrderBook?symbol=BTC-PERP&depth={depth}"))[0] == 200
