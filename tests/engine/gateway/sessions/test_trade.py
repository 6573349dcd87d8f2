"""Order entry and private streams over `/v1/trade`: the same outcomes as over HTTP, in sequence, for own accounts only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from engine.access.keys import Role
from engine.gateway.app import Doors
from engine.gateway.door import DoorLimits
from engine.gateway.sessions.private_streams import RETAIN_S, STORE
from engine.gateway.sessions.trade_frames import BATCH_MAX
from service.clock import ManualClock
from tests.engine.gateway.ground import MONEY, Ground, exchange, order_body
from tests.engine_process import OPERATOR
from tests.waiting import until

SECONDS = 20


class Trader:
    """One WebSocket of `/v1/trade`; answers and updates come in one sequence."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._asked = 0

    async def next(self, kind: str = "") -> Any:
        """Return the next frame, of a kind if it is named."""
        async with asyncio.timeout(SECONDS):
            while True:
                frame = json.loads(await self.socket.recv())
                if kind in ("", frame["type"]):
                    return frame

    async def send(self, op: str, **fields: Any) -> int:
        self._asked += 1
        await self.socket.send(json.dumps({"op": op, "id": self._asked, **fields}))
        return self._asked

    async def ask(self, op: str, **fields: Any) -> Any:
        """Return the only result of a message that asks for one thing."""
        name = await self.send(op, **fields)
        frame = await self.next("results")
        assert frame["id"] == name
        (result,) = frame["results"]
        return result


@asynccontextmanager
async def trader(ground: Ground, headers: dict[str, str]) -> AsyncIterator[Trader]:
    async with websockets.connect(f"{ground.ws_url}/v1/trade", additional_headers=headers, ping_interval=None) as socket:
        yield Trader(socket)


async def test_orders_are_answered_as_over_http(ground: Ground) -> None:
    """Placed, traded, amended, cancelled, refused: the same orders and the same problems."""
    async with trader(ground, ground.key(Role.TRADER, "1-2")) as desk:
        placed = await desk.ask("place", **order_body(1, "a", orderQty=10))
        assert (placed["status"], placed["order"]["ordStatus"], placed["order"]["leavesQty"]) == (201, "New", 10)
        sold = await desk.ask("place", **order_body(2, "s", side="Sell", orderQty=3))
        assert sold["order"]["ordStatus"] == "Filled"
        amended = await desk.ask("amend", account=1, clOrdID="a", orderQty=8, price=98.5)
        assert (amended["status"], amended["order"]["leavesQty"], amended["order"]["cumQty"]) == (200, 5, 3)
        again = await desk.ask("place", **order_body(1, "a"))
        assert (again["status"], again["problem"]["code"]) == (409, "DuplicateClOrdID")
        assert again["problem"]["orderId"] == placed["order"]["orderId"]
        for op, body, status, code in (
            ("place", order_body(1, "x", price=99.3), 422, "InvalidPrice"), ("place", order_body(1, "x", symbol="NO"), 404, "UnknownSymbol"),
            ("place", order_body(1, "x", orderQty=10**6), 422, "InsufficientMargin"), ("cancel", {"account": 1, "clOrdID": "no"}, 404, "UnknownOrder"),
            ("amend", {"account": 1, "clOrdID": "a", "price": 99.3}, 422, "InvalidPrice"), ("place", order_body(3, "x"), 403, "ForeignAccount"),
            ("cancelAll", {"account": 0}, 403, "ForeignAccount"), ("cancel", {"account": 3, "clOrdID": "a"}, 403, "ForeignAccount"),
            ("amend", {"account": 0, "clOrdID": "a"}, 403, "ForeignAccount"), ("cancelAll", {"account": 1, "symbol": "NO"}, 404, "UnknownSymbol"),
        ):  # fmt: skip
            refused = await desk.ask(op, **body)
            assert (refused["status"], refused["problem"]["code"]) == (status, code), (op, body)
        gone = await desk.ask("cancel", account=1, clOrdID="a")
        assert (gone["order"]["ordStatus"], gone["order"]["text"]) == ("Canceled", "Requested")
        await desk.ask("place", **order_body(1, "b"))
        assert len((await desk.ask("cancelAll", account=1))["canceled"]["canceled"]) == 1


async def test_a_batch_is_done_in_its_sequence(ground: Ground) -> None:
    """Each order has its own result; an amend or cancel finds the order placed just before it; messages are not waited for."""
    async with trader(ground, OPERATOR) as desk:
        orders = [
            {"op": "place", **order_body(1, "a", orderQty=5)}, {"op": "amend", "account": 1, "clOrdID": "a", "orderQty": 4},
            {"op": "place", **order_body(1, "a")}, {"op": "place", **order_body(2, "s", side="Sell", orderQty=1)},
            {"op": "cancel", "account": 1, "clOrdID": "a"}, {"op": "place", **order_body(1, "z")}, {"op": "cancelAll", "account": 1},
        ]  # fmt: skip
        await desk.send("batch", orders=orders)
        await desk.send("ping")
        results = (await desk.next("results"))["results"]
        assert [one["status"] for one in results] == [201, 200, 409, 201, 200, 201, 200]
        assert results[4]["order"]["cumQty"] == 1
        assert results[6]["canceled"]["canceled"] == [results[5]["order"]["orderId"]]
        assert (await desk.next())["type"] == "pong"
        many = [{"op": "place", **order_body(1, f"m{n}", price=90)} for n in range(100)]
        before = ground.sequencer.committed_index
        for _ in range(3):
            await desk.send("batch", orders=many)
        found = [(await desk.next("results"))["results"] for _ in range(3)]
        assert [one["status"] for one in found[0]] == [201] * 100
        assert [one["status"] for one in found[1] + found[2]] == [409] * 200
        assert ground.sequencer.committed_index == before + 300


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"op":"nothing"}', '{"op":"batch","orders":[]}', '{"op":"place"}', '{"op":"subscribe","accounts":[]}',
        '{"op":"ping","more":1}', '{"op":"place","account":true}', "[" * 9_000, '{"op":"subscribe","accounts":[1],"lastSeq":-1}',
        json.dumps({"op": "batch", "orders": [{"op": "cancel", "account": 1, "clOrdID": "a"}] * (BATCH_MAX + 1)}),
    ],
)  # fmt: skip
async def test_what_is_no_message_is_a_problem(ground: Ground, text: str) -> None:
    """The socket stays open: the next message is answered."""
    before = ground.digest
    async with trader(ground, OPERATOR) as desk:
        await desk.socket.send(text)
        frame = await desk.next()
        assert (frame["type"], frame["problem"]["status"], frame["problem"]["code"]) == ("problem", 400, "BadRequest")
        await desk.send("ping")
        assert (await desk.next())["type"] == "pong"
    assert ground.digest == before


async def test_a_private_stream_goes_on_where_it_was_cut(ground: Ground) -> None:
    """Accounts at the start, then every execution and balance of them, in sequence; after a cut nothing is missed or doubled."""
    headers = ground.key(Role.TRADER, "1")
    async with trader(ground, headers) as desk:
        await desk.send("subscribe", accounts=[1])
        begun = await desk.next("subscribed")
        assert [one["balance"] for one in begun["accounts"]] == [MONEY]
        assert begun["seq"] == ground.sequencer.committed_index
        await ground.order(2, "theirs", "Buy", 1, 90)
        placed = await desk.ask("place", **order_body(1, "a", orderQty=2))
        first = await desk.next("update") if placed else None
        assert first is not None
        assert (first["prevSeq"], str(first["seq"])) == (begun["seq"], placed["order"]["orderId"])
        assert [one["execType"] for one in first["executions"]] == ["New"]
    await ground.order(2, "s", "Sell", 1, 99)
    await ground.order(2, "t", "Sell", 1, 99)
    async with trader(ground, headers) as desk:
        await desk.send("subscribe", accounts=[1], lastSeq=first["seq"])
        again = await desk.next("subscribed")
        assert (again["seq"], again["accounts"]) == (first["seq"], [])
        updates = [await desk.next("update") for _ in range(2)]
        assert [one["prevSeq"] for one in updates] == [first["seq"], updates[0]["seq"]]
        assert [[e["account"] for e in one["executions"]] for one in updates] == [[1], [1]]
        assert updates[1]["executions"][0]["ordStatus"] == "Filled"
        rebate = updates[1]["accountTransactions"][-1]
        assert (rebate["account"], rebate["transactType"]) == (1, "Fee")
        account = await ground.ask("GET", "/Account/1")
        assert rebate["balance"] == account["balance"]
        await desk.send("unsubscribe")
        assert (await desk.next())["type"] == "unsubscribed"
        await ground.order(2, "u", "Buy", 1, 90)
        await desk.send("subscribe", accounts=[2])
        assert (await desk.next())["problem"]["code"] == "ForeignAccount"
        await desk.send("subscribe", accounts=[1], lastSeq=10**9)
        assert (await desk.next())["problem"]["code"] == "MessagesGone"


async def test_a_stream_goes_on_over_a_restart(tmp_path: Path) -> None:
    """What happened after `lastSeq` is told by the next process, from the journal."""
    async with exchange(tmp_path) as ground:
        await ground.market(1)
        async with trader(ground, OPERATOR) as desk:
            await desk.send("subscribe", accounts=[1])
            seq = (await desk.next("subscribed"))["seq"]
        made = await ground.order(1, "a", "Buy", 1, 99)
    async with exchange(tmp_path) as ground, trader(ground, OPERATOR) as desk:
        await desk.send("subscribe", accounts=[1], lastSeq=seq)
        update = await desk.next("update")
        assert (update["seq"], update["prevSeq"]) == (made["messageIndex"], seq)


async def test_what_nobody_resumes_from_is_given_back(tmp_path: Path) -> None:
    """Older messages are purged while somebody listens; when nobody has for long, none are built any more."""
    clock = ManualClock()
    async with exchange(tmp_path, clock=clock) as ground:
        await ground.market(1)
        streams, state = ground.gateway.streams, ground.sequencer.state
        async with trader(ground, OPERATOR) as desk:
            await desk.send("subscribe", accounts=[1])
            seq = (await desk.next("subscribed"))["seq"]
            made = await ground.order(1, "a", "Buy", 1, 99)
            streams.look()
            clock.advance(int(RETAIN_S * 1e9))
            streams.look()
            await until(lambda: state.stores[STORE].purged_index == made["messageIndex"])
            await ground.order(1, "b", "Buy", 1, 99)
            assert [(await desk.next("update"))["executions"][0]["clOrdID"] for _ in range(2)] == ["a", "b"]
            await desk.send("subscribe", accounts=[1], lastSeq=seq)
            assert (await desk.next("problem"))["problem"]["code"] == "MessagesGone"
        await until(lambda: not ground.messages.readers)
        clock.advance(int(RETAIN_S * 1e9))
        streams.look()
        await until(lambda: STORE not in state.stores)


async def test_a_withdrawn_key_ends_the_socket_and_a_flood_is_refused(tmp_path: Path) -> None:
    """4401 at once; too many orders are 429 each, and the next message waits."""
    async with exchange(tmp_path, doors=Doors(DoorLimits(orders_per_s=20)), clock=ManualClock()) as ground:
        await ground.market(1)
        headers = ground.key(Role.TRADER, "1")
        async with trader(ground, headers) as desk:
            orders = [{"op": "place", **order_body(1, f"o{n}")} for n in range(40)]
            await desk.send("batch", orders=orders)
            assert {one["status"] for one in (await desk.next("results"))["results"]} == {201}
            refused = await desk.ask("place", **order_body(1, "more"))
            assert (refused["status"], refused["problem"]["code"]) == (429, "TooManyRequests")
            await ground.ask("DELETE", f"/Key?id={headers['Authorization'].split('_')[1]}")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await desk.next("results")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401
        for wrong, status in ((headers, 401), ({}, 401), (ground.key(Role.MARKET_DATA), 403)):
            with pytest.raises(websockets.InvalidStatus) as denied:
                async with trader(ground, wrong):
                    pass
            assert denied.value.response.status_code == status
            assert json.loads(denied.value.response.body)["status"] == status


async def test_a_message_that_is_too_large_ends_the_socket(ground: Ground) -> None:
    """1009, and nothing of it is done."""
    before = ground.digest
    async with trader(ground, OPERATOR) as desk:
        await desk.socket.send(json.dumps({"op": "ping", "id": "x" * 70_000}))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await desk.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    assert ground.digest == before
