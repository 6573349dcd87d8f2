"""Closed orders and fills over HTTP: what was answered then, newest first, page by page, after a restart too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.gateway.ground import Ground, exchange


async def trade_some(ground: Ground, count: int) -> None:
    """Buy and sell `count` times, one contract each; every third order is cancelled half filled."""
    for number in range(count):
        await ground.order(1, f"b{number}", "Buy", 2, 100)
        await ground.order(2, f"s{number}", "Sell", 1 if number % 3 == 0 else 2, 100)
        if number % 3 == 0:
            await ground.ask("DELETE", f"/Order?account=1&clOrdID=b{number}")


async def pages(ground: Ground, path: str, what: str) -> list[Any]:
    """Return all pages of a question, put together."""
    found: list[Any] = []
    cursor = None
    while True:
        page = await ground.ask("GET", path + (f"&cursor={cursor}" if cursor else ""))
        found += page[what]
        cursor = page["cursor"]
        if cursor is None:
            return found


async def test_closed_orders_are_told_page_by_page(ground: Ground) -> None:
    """Each once, newest first, as it was when it was closed."""
    await ground.market(1, 2)
    await trade_some(ground, 7)
    found = await pages(ground, "/Order/History?account=1&limit=3", "orders")
    assert [one["order"]["clOrdID"] for one in found] == [f"b{n}" for n in reversed(range(7))]
    assert [one["order"]["ordStatus"] for one in found[:2]] == ["Canceled", "Filled"]
    assert (found[0]["order"]["text"], found[0]["order"]["cumQty"], found[0]["order"]["leavesQty"]) == ("Requested", 1, 0)
    assert found[1]["order"]["cumCost"] == (await ground.ask("GET", "/Fill?account=1&clOrdID=b5"))["fills"][0]["execCost"]
    assert all(one["acceptedTime"] <= one["closedTime"] for one in found)


async def test_one_order_is_found_by_either_id(ground: Ground) -> None:
    """Open or closed; nobody else's."""
    await ground.market(1, 2)
    await trade_some(ground, 3)
    resting = await ground.order(1, "open", "Buy", 5, 99)
    for query in (f"orderId={resting['orderId']}", "clOrdID=open"):
        (one,) = (await ground.ask("GET", f"/Order/History?account=1&{query}"))["orders"]
        assert (one["order"]["ordStatus"], one["closedTime"]) == ("New", None)
        assert (await ground.ask("GET", f"/Order/History?account=2&{query}"))["orders"] == []
    (one,) = (await ground.ask("GET", "/Order/History?account=1&clOrdID=b1"))["orders"]
    assert one["order"]["ordStatus"] == "Filled"


async def test_fills_say_both_sides(ground: Ground) -> None:
    """Maker and taker have the same match; fees are each one's own; times and contracts choose."""
    await ground.market(1, 2)
    await trade_some(ground, 4)
    made, taken = [await pages(ground, f"/Fill?account={n}&limit=2", "fills") for n in (1, 2)]
    assert [one["trdMatchID"] for one in made] == [one["trdMatchID"] for one in taken] == ["4", "3", "2", "1"]
    assert {one["lastLiquidityInd"] for one in made} == {"AddedLiquidity"}
    assert (made[0]["execComm"] < 0 < taken[0]["execComm"], taken[0]["lastPx"]) == (True, 100)
    assert (await ground.ask("GET", "/Fill?account=1&to=2020-01-01T00:00:00Z"))["fills"] == []
    assert len((await ground.ask("GET", "/Fill?account=1&from=2020-01-01T00:00:00Z"))["fills"]) == 4
    assert (await ground.ask("GET", "/Fill?account=1&symbol=OTHER"))["fills"] == []


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """The journal is the memory; a bracket and its exits are in it."""
    exits = {"takeProfit": {"clOrdID": "p", "price": 105}, "stopLoss": {"clOrdID": "l", "trailRate": 0.02}}
    async with exchange(tmp_path) as ground:
        await ground.market(1, 2)
        await ground.order(1, "entry", "Buy", 4, 100, **exits)
        await ground.order(2, "met", "Sell", 4, 100)
        await ground.order(2, "out", "Buy", 4, 105)
        before = await ground.ask("GET", "/Order/History?account=1")
    async with exchange(tmp_path) as ground:
        assert await ground.ask("GET", "/Order/History?account=1") == before
        status = {one["order"]["clOrdID"]: (one["order"]["ordStatus"], one["order"].get("text")) for one in before["orders"]}
        assert status == {"entry": ("Filled", None), "p": ("Filled", None), "l": ("Canceled", "Linked")}


async def test_what_is_older_than_is_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded: `sinceIndex` tells from where on orders are all there."""
    monkeypatch.setattr("engine.gateway.history.COMMANDS", 6)
    monkeypatch.setattr("engine.gateway.history.KEPT", 12)
    async with exchange(tmp_path) as ground:
        await ground.market(1, 2)
        await trade_some(ground, 1)
        assert (await ground.ask("GET", "/Fill?account=1"))["sinceIndex"] == 0
        await trade_some(ground, 0)
        for number in range(10, 20):
            await ground.order(1, f"x{number}", "Buy", 1, 100)
            await ground.order(2, f"y{number}", "Sell", 1, 100)
        page = await ground.ask("GET", "/Fill?account=1")
        assert page["sinceIndex"] == ground.sequencer.committed_index - 6
        assert [one["clOrdID"] for one in page["fills"]] == ["x19", "x18", "x17"]


@pytest.mark.parametrize("query", ["cursor=5", "cursor=a.b", "from=yesterday", "limit=0", "limit=9999", "orderId=0", "account=x"])
async def test_a_question_that_makes_no_sense_is_refused(ground: Ground, query: str) -> None:
    """With what would."""
    await ground.ask("GET", f"/Order/History?account=1&{query}", 400)
