"""The gateway over real sockets on a real engine: what each route answers, and that a refused request changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from engine.core.commands import CreateStore
from engine.gateway.app import GatewayServer
from engine.journal.sequencer import Sequencer
from service.errors import OperatorError
from tests.engine.gateway.ground import BTC, MONEY, Ground, exchange, order_body
from tests.engine_process import OPERATOR, TOKEN
from tests.waiting import until

HUGE = 10**30

AUTHORIZED_HALF = (
    f"POST /Order HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    'Content-Length: 500\r\n\r\n{"account":'
).encode()
AS_JSON = {"Content-Type": "application/json"}


# Orders


async def test_an_order_is_answered_as_it_is_right_after_its_command(ground: Ground) -> None:
    """Resting, partly filled, filled, cancelled at once; prices in price units, cost in money units."""
    resting = await ground.order(1, "a", "Buy", 10, 99.5)
    assert resting == {
        "messageIndex": resting["messageIndex"], "orderId": str(resting["messageIndex"]), "clOrdID": "a", "account": 1,
        "symbol": "BTC-PERP", "side": "Buy", "ordType": "Limit", "timeInForce": "GoodTillCancel", "price": 99.5, "stopPx": None,
        "ordStatus": "New", "orderQty": 10, "leavesQty": 10, "cumQty": 0, "cumCost": 0, "avgPx": 0.0,
    }  # fmt: skip
    filled = await ground.order(2, "b", "Sell", 4, 99)
    assert (filled["ordStatus"], filled["leavesQty"], filled["cumQty"], filled["avgPx"]) == ("Filled", 0, 4, 99.5)
    assert filled["cumCost"] == 4 * 99_500
    more = await ground.order(2, "c", "Sell", 10, 99.5)
    assert (more["ordStatus"], more["leavesQty"], more["cumQty"]) == ("PartiallyFilled", 4, 6)
    gone = await ground.order(1, "d", "Buy", 9, 99.5, timeInForce="ImmediateOrCancel")
    assert (gone["ordStatus"], gone["leavesQty"], gone["cumQty"], gone["text"]) == ("Canceled", 0, 4, "Unfilled")


async def test_prices_may_be_decimal_strings(ground: Ground) -> None:
    """A string is taken to the digit, a number as the shortest decimal it prints as."""
    assert (await ground.order(1, "a", "Buy", 1, "99.50"))["price"] == 99.5
    stop = await ground.order(1, "b", "Sell", 1, 90.5, stopPx="91.0")
    assert (stop["ordType"], stop["stopPx"], stop["price"], stop["ordStatus"]) == ("StopLimit", 91.0, 90.5, "New")


async def test_an_amend_is_answered_with_what_was_filled_before(ground: Ground) -> None:
    """Size, price and fills belong to the amend's own index."""
    await ground.order(1, "a", "Buy", 10, 99)
    await ground.order(2, "b", "Sell", 3, 99)
    less = await ground.ask("PUT", "/Order", account=1, clOrdID="a", orderQty=8)
    assert (less["orderQty"], less["leavesQty"], less["cumQty"], less["ordStatus"]) == (8, 5, 3, "PartiallyFilled")
    await ground.order(2, "c", "Sell", 2, 101)
    crossing = await ground.ask("PUT", "/Order", account=1, clOrdID="a", price=101)
    assert (crossing["cumQty"], crossing["leavesQty"], crossing["price"]) == (5, 3, 101.0)
    assert crossing["cumCost"] == 3 * 99_000 + 2 * 101_000


async def test_answers_of_one_group_show_each_order_at_its_own_index(ground: Ground) -> None:
    """Amends, fills and a cancel of one order that are decided in one group do not see each other's future."""
    await ground.order(1, "a", "Buy", 20, 99)
    asked: list[asyncio.Task[Any]] = []

    def later(method: str, **body: Any) -> None:
        asked.append(asyncio.create_task(ground.ask(method, "/Order", None, **body)))

    for number in range(5):  # connections of their own: what arrives in one turn of the loop is one group
        later("PUT", account=1, clOrdID="a", orderQty=19 - number)
        sell = {"account": 2, "symbol": "BTC-PERP", "clOrdID": f"s{number}", "side": "Sell", "orderQty": 1, "price": 99}
        later("POST", **sell)
    answers = sorted(await asyncio.gather(*asked), key=lambda answer: int(answer["messageIndex"]))
    sold = 0
    for answer in answers:
        if answer["clOrdID"] == "a":
            assert (answer["cumQty"], answer["cumCost"]) == (sold, sold * 99_000)
            assert answer["leavesQty"] == answer["orderQty"] - sold
        else:
            sold += 1
    gone = await ground.ask("DELETE", "/Order?account=1&clOrdID=a")
    assert (gone["ordStatus"], gone["text"], gone["cumQty"], gone["leavesQty"]) == ("Canceled", "Requested", 5, 0)


async def test_a_client_id_is_used_once_and_names_the_first_order(ground: Ground) -> None:
    """Also after that order is closed; so a lost answer can be asked for again."""
    first = await ground.order(1, "a", "Buy", 1, 99)
    body = {"account": 1, "symbol": "BTC-PERP", "clOrdID": "a", "side": "Sell", "orderQty": 5}
    problem = await ground.ask("POST", "/Order", 409, **body)
    assert (problem["code"], problem["orderId"]) == ("DuplicateClOrdID", first["orderId"])
    await ground.ask("DELETE", "/Order?account=1&clOrdID=a")
    assert (await ground.ask("POST", "/Order", 409, **body))["orderId"] == first["orderId"]
    closed = await ground.ask("GET", "/Order?account=1&clOrdID=a", 404)
    assert (closed["code"], closed["orderId"]) == ("UnknownOrder", first["orderId"])


async def test_all_orders_of_an_account_are_cancelled(ground: Ground) -> None:
    """Of one contract, of all, by the timer's deadline or by the kill switch."""
    await ground.ask("PUT", "/Instrument", **{**BTC, "symbol": "ETH-PERP"})
    orders = [await ground.order(1, f"o{number}", "Buy", 1, 90 + number) for number in range(3)]
    ids = [order["orderId"] for order in orders]
    assert (await ground.ask("DELETE", "/Order/All?account=1&symbol=ETH-PERP"))["canceled"] == []
    assert (await ground.ask("DELETE", "/Order/All?account=1&symbol=BTC-PERP"))["canceled"] == ids
    kept = await ground.order(1, "x", "Buy", 1, 90)
    timer = await ground.ask("PUT", "/Order/CancelAllAfter?account=1&timeoutMillis=60000")
    assert timer["deadline"] > "2026"
    assert (await ground.ask("PUT", "/Order/CancelAllAfter?account=1&timeoutMillis=0"))["deadline"] is None
    switched = await ground.ask("PUT", "/KillSwitch?account=1&on=true")
    assert (switched["killSwitch"], switched["canceled"]) == (True, [kept["orderId"]])
    assert (await ground.ask("POST", "/Order", 422, **order_body(1, "y")))["code"] == "KillSwitchOn"
    assert (await ground.ask("PUT", "/KillSwitch?account=1&on=false"))["canceled"] == []
    await ground.ask("DELETE", "/Order/All?account=1")


# What is refused


REFUSED: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", "/Order", order_body(1, "x", symbol="NOPE"), 404, "UnknownSymbol"),
    ("POST", "/Order", order_body(77, "x"), 404, "UnknownAccount"),
    ("POST", "/Order", order_body(1, "x", price=99.3), 422, "InvalidPrice"),
    ("POST", "/Order", order_body(1, "x", price=-1), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x", price="abc"), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x", orderQty=0), 422, "InvalidSize"),
    ("POST", "/Order", order_body(1, "x", orderQty=1.5), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x", orderQty="1"), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x", orderQty=True), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x", orderQty=HUGE), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x", orderQty=10**6), 422, "InsufficientMargin"),
    ("POST", "/Order", order_body(1, ""), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x" * 65), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, 5), 400, "BadRequest"),
    ("POST", "/Order", order_body(None, "x"), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x", side="BUY"), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x", surprise=1), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x", timeInForce="Never"), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x", timeInForce="GoodTillDate"), 422, "InvalidExpiry"),
    ("POST", "/Order", order_body(1, "x", timeInForce="GoodTillDate", expireTime="tomorrow"), 400, "BadRequest"),
    ("POST", "/Order", order_body(1, "x", reduceOnly=True), 422, "ReduceOnlyWouldIncrease"),
    ("POST", "/Order", order_body(1, "x", postOnly=True, timeInForce="ImmediateOrCancel"), 422, "InvalidCombination"),
    ("POST", "/Order", {}, 400, "BadRequest"),
    ("PUT", "/Order", {"account": 1, "clOrdID": "nobody"}, 404, "UnknownOrder"),
    ("PUT", "/Order", {"account": 1, "clOrdID": "kept", "price": 99.3}, 422, "InvalidPrice"),
    ("PUT", "/Order", {"account": 1, "clOrdID": "kept", "price": "x"}, 400, "BadRequest"),
    ("PUT", "/Order", {"account": 1, "clOrdID": "kept", "orderQty": 0}, 422, "InvalidSize"),
    ("PUT", "/Order", {"account": 1, "clOrdID": "kept", "stopPx": 99}, 422, "InvalidCombination"),
    ("DELETE", "/Order?account=1&clOrdID=nobody", {}, 404, "UnknownOrder"),
    ("DELETE", "/Order?account=99&clOrdID=kept", {}, 404, "UnknownOrder"),
    ("DELETE", "/Order?account=1", {}, 400, "BadRequest"),
    ("GET", "/Order?account=one&clOrdID=kept", {}, 400, "BadRequest"),
    ("DELETE", "/Order/All?account=99", {}, 404, "UnknownAccount"),
    ("DELETE", "/Order/All?account=1&symbol=NOPE", {}, 404, "UnknownSymbol"),
    ("PUT", "/Order/CancelAllAfter?account=99&timeoutMillis=5", {}, 404, "UnknownAccount"),
    ("PUT", "/Order/CancelAllAfter?account=1&timeoutMillis=-5", {}, 400, "BadRequest"),
    ("PUT", "/KillSwitch?account=99&on=true", {}, 404, "UnknownAccount"),
    ("PUT", "/KillSwitch?account=1&on=perhaps", {}, 400, "BadRequest"),
    ("GET", "/OrderBook?symbol=NOPE", {}, 404, "UnknownSymbol"),
    ("GET", "/OrderBook?symbol=BTC-PERP&depth=-1", {}, 400, "BadRequest"),
    ("GET", "/Instrument?symbol=NOPE", {}, 404, "UnknownSymbol"),
    ("PUT", "/Instrument", {**BTC, "symbol": "NEW", "tickSize": "0"}, 422, "InvalidInstrument"),
    ("PUT", "/Instrument", {**BTC, "symbol": "NEW", "tickSize": "1e-30"}, 422, "InvalidInstrument"),
    ("PUT", "/Instrument", {**BTC, "symbol": "NEW", "markPrice": 99.3}, 422, "InvalidPrice"),
    ("PUT", "/Instrument", {**BTC, "symbol": "NEW", "takerFee": 0.00000001}, 422, "InvalidInstrument"),
    ("PUT", "/Instrument", {**BTC, "symbol": "NEW", "takerFee": "1e-999999999"}, 422, "InvalidInstrument"),
    ("PUT", "/Instrument", {**BTC, "symbol": "NEW", "initialMargin": 0.01}, 422, "InvalidInstrument"),
    ("PUT", "/Instrument", {**BTC, "symbol": "NEW", "orderQtyMax": 10**15}, 422, "InvalidInstrument"),
    ("PUT", "/Instrument", {**BTC, "symbol": ""}, 400, "BadRequest"),
    ("PUT", "/Instrument", {"symbol": "NEW"}, 400, "BadRequest"),
    ("GET", "/Account/99", {}, 404, "UnknownAccount"),
    ("GET", f"/Account/{HUGE}", {}, 400, "BadRequest"),
    ("GET", "/Account?limit=0", {}, 400, "BadRequest"),
    ("POST", "/Account/1/Deposit", {"amount": 0}, 400, "BadRequest"),
    ("POST", "/Account/1/Deposit", {"amount": 10**15 + 1}, 422, "InvalidAmount"),
    ("POST", "/Account/-1/Deposit", {"amount": 1}, 404, "UnknownAccount"),
    ("POST", "/Account/99/Withdraw", {"amount": 1}, 404, "UnknownAccount"),
    ("POST", "/Account/1/Withdraw", {"amount": MONEY + 1}, 422, "InsufficientMargin"),
    ("PUT", "/MarkPrice?symbol=NOPE&price=1", {}, 404, "UnknownSymbol"),
    ("PUT", "/MarkPrice?symbol=BTC-PERP&price=99.3", {}, 422, "InvalidPrice"),
    ("PUT", "/MarkPrice?symbol=BTC-PERP&price=NaN", {}, 422, "InvalidPrice"),
    ("PUT", "/MarkPrice?symbol=BTC-PERP&price=1e999999999", {}, 422, "InvalidPrice"),
    ("PUT", "/MarkPrice?symbol=BTC-PERP&price=x", {}, 400, "BadRequest"),
    ("PUT", "/Funding?symbol=NOPE&rate=0", {}, 404, "UnknownSymbol"),
    ("PUT", "/Funding?symbol=BTC-PERP&rate=1.5", {}, 422, "InvalidAmount"),
    ("PUT", "/Funding?symbol=BTC-PERP&rate=1e-999999999", {}, 422, "InvalidAmount"),
    ("PUT", "/LivenessCheck?checkId=", {}, 400, "BadRequest"),
    ("DELETE", "/MessageStore?storeId=nobody", {}, 404, "UnknownStore"),
    ("DELETE", "/MessageStore/Purge?storeId=nobody&messageIndex=1", {}, 404, "UnknownStore"),
    ("DELETE", "/MessageStore/Purge?storeId=kept&messageIndex=99999", {}, 400, "InvalidIndex"),
    ("DELETE", "/MessageStore/Purge?storeId=kept&messageIndex=-1", {}, 400, "BadRequest"),
    ("DELETE", "/MessageStore/Purge?storeId=kept&messageIndex=1.5", {}, 400, "BadRequest"),
    ("DELETE", f"/MessageStore/Purge?storeId=kept&messageIndex={HUGE}", {}, 400, "BadRequest"),
    ("DELETE", "/MessageStore/Purge?storeId=kept", {}, 400, "BadRequest"),
    ("PUT", "/MessageStore/Suspension?storeId=nobody&maximumUnpurgedItemAgeMillis=5", {}, 404, "UnknownStore"),
    ("PUT", "/MessageStore/Suspension?storeId=kept&maximumUnpurgedItemAgeMillis=0", {}, 400, "BadRequest"),
    ("PUT", f"/MessageStore?storeId={'x' * 65}", {}, 400, "BadRequest"),
    ("GET", "/nothing", {}, 404, "NotFound"),
    ("GET", "/docs/nothing", {}, 404, "NotFound"),
    ("GET", "/Account/one", {}, 404, "NotFound"),
    ("PATCH", "/Order", {}, 405, "MethodNotAllowed"),
    ("GET", "/joined", {}, 405, "MethodNotAllowed"),
]  # fmt: skip


async def test_what_is_refused_is_a_problem_and_changes_nothing(ground: Ground) -> None:
    """Every code of every route; the state's digest is the same afterwards, apart from the index of the last message."""
    await ground.sequencer.submit(CreateStore("kept"))
    await ground.order(1, "kept", "Buy", 1, 99)
    await ground.ask("DELETE", "/MessageStore?storeId=kept&force=true")
    await ground.sequencer.submit(CreateStore("kept"))
    for method, path, body, status, code in REFUSED:
        state = ground.sequencer.state
        before, heard = ground.digest, state.message_index
        problem = await ground.ask(method, path, status, **body)
        assert problem["code"] == code, (method, path, body, problem)
        state.message_index = heard  # a rejected order is told to the stores
        assert ground.digest == before, (method, path, body)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b"5", b"\xff\xfe", b'{"account":1', b"[" * 5_000, b'{"account": 01}', b'"\\ud800"']
)
async def test_a_body_that_is_no_order_is_a_problem(ground: Ground, body: bytes) -> None:
    """Whatever the bytes are; nothing of ours is told."""
    before = ground.digest
    answer = await ground.http.post(f"{ground.url}/Order", content=body, headers=AS_JSON)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert ".py" not in answer.text
    assert ground.digest == before


async def test_a_large_body_is_a_problem_before_it_is_read(ground: Ground) -> None:
    """Announced or in chunks: more than 64 kB is 413."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 8_000

    for content in (b" " * 70_000, chunks()):
        answer = await ground.http.post(f"{ground.url}/Order", content=content, headers=AS_JSON)
        assert answer.status_code == 413
        assert answer.json()["code"] == "RequestEntityTooLarge"


async def test_a_full_queue_and_a_closed_engine_say_when_to_come_again(tmp_path: Path) -> None:
    """503 with Retry-After. While the journal refuses, nothing is shown either: it may not have happened."""
    async with exchange(tmp_path) as ground:
        await ground.market(1)
        ground.sequencer._queue_max = 0
        answer = await ground.http.post(f"{ground.url}/Order", json=order_body(1, "x"))
        assert (answer.status_code, answer.headers["retry-after"], answer.json()["code"]) == (503, "1", "EngineBusy")
        ground.sequencer._queue_max = 100
        ground.sequencer._refuse("the disk is full")
        answer = await ground.http.post(f"{ground.url}/Order", json=order_body(1, "x"))
        assert (answer.status_code, answer.json()["code"]) == (503, "JournalUnavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert (await ground.ask("GET", "/OrderBook?symbol=BTC-PERP", 503))["code"] == "JournalUnavailable"
        assert (await ground.http.get(f"{ground.url}/docs/")).status_code == 200
        async with websockets.connect(f"{ground.ws_url}/joined", additional_headers=OPERATOR) as socket:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013


async def test_a_fault_of_ours_is_a_problem_that_tells_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """500, and neither the exception's text nor a path is in it."""

    def broken(_: Sequencer) -> int:
        raise RuntimeError("the secret is in /etc/secret.py")

    monkeypatch.setattr(Sequencer, "committed_index", property(broken, lambda *_: None), raising=False)
    answer = await ground.http.get(f"{ground.url}/ExchangeWideControls")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert answer.json()["code"] == "InternalError"


async def test_a_client_that_goes_in_the_middle_is_no_fault(ground: Ground) -> None:
    """Half a body, then the end: nothing changes, nothing is logged as ours, and the next client is served."""
    before = ground.digest
    with capture_logs() as logged:
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", ground.gateway.port)
            writer.write(AUTHORIZED_HALF)
            await writer.drain()
            await ground.ask("GET", "/ExchangeWideControls")
            writer.transport.abort()
        await ground.ask("GET", "/ExchangeWideControls")
    assert [line for line in logged if line["log_level"] == "error"] == []
    assert ground.digest == before


async def test_the_documentation_is_openapi_with_every_status(ground: Ground) -> None:
    """3.1, every route with its problems and examples; the page for people needs nothing from elsewhere."""
    document = (await ground.http.get(f"{ground.url}/docs/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert {"/Order", "/MessageStore", "/MessageStore/Purge", "/Account/{account}/Deposit"} <= document["paths"].keys()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            statuses = operation["responses"].keys()
            assert {"400", "401", "405", "500", "503"} <= statuses, (path, method)
            assert operation["summary"]
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert response["content"]["application/problem+json"]["examples"]
            if "requestBody" in operation:
                assert "413" in statuses
                assert operation["requestBody"]["content"]["application/json"]["schema"]["examples"]
    for path in ("/docs", "/docs/"):
        page = await ground.http.get(ground.url + path)
        assert page.status_code == 200
        assert "/MessageStore/Purge" in page.text
        assert "http://" not in page.text.replace("lang=en", "")
        assert "https://" not in page.text
        assert "<script" not in page.text


async def test_a_taken_port_is_the_operators_to_mend(ground: Ground) -> None:
    """The message names the port and the variable."""
    second = GatewayServer(ground.sequencer, ground.messages, "127.0.0.1", ground.gateway.port, ground.keys)
    with pytest.raises(OperatorError, match=f"{ground.gateway.port}.*ENGINE_PORT"):
        await second.start()


async def test_requests_under_way_are_answered_when_the_gateway_stops(tmp_path: Path) -> None:
    """What was accepted is told; only then is the port closed."""
    async with exchange(tmp_path) as ground:
        await ground.market(1)
        asked = [asyncio.create_task(ground.http.post(f"{ground.url}/Order", json=order_body(1, f"o{n}"))) for n in range(5)]
        await until(lambda: ground.sequencer.state.orders, every_s=0)
        await ground.gateway.stop()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        told = [answer for answer in answers if isinstance(answer, httpx.Response)]
        assert all(answer.status_code == 201 for answer in told)
        assert len(ground.sequencer.state.orders) == len(told) > 0


async def test_a_page_of_another_origin_can_do_nothing(ground: Ground) -> None:
    """No form, no foreign origin, no rebound name gets through, over HTTP or to `/joined`; the state stays as it is."""
    before = ground.digest
    money = {"url": f"{ground.url}/Account/1/Withdraw", "content": b'{"amount": 1}'}
    for headers, status in (
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (AS_JSON | {"Origin": "http://127.0.0.1:8000"}, 403),
        (AS_JSON | {"Origin": "null"}, 403),
        (AS_JSON | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        (AS_JSON | {"Host": "exchange.evil.example"}, 421),
    ):
        answer = await ground.http.post(**money, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == status, headers
        assert answer.json()["detail"]
    assert ground.digest == before
    url = f"{ground.url.replace('http', 'ws', 1)}/joined"
    for options in ({"origin": "http://127.0.0.1:8000"}, {"additional_headers": {"Sec-Fetch-Site": "same-site"}}):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, **options):  # type: ignore[arg-type]
                pass
        assert refused.value.response.status_code == 403
