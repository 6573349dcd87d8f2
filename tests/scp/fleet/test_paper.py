"""Paper trading through a real control plane on a real exchange: one's own account, orders that are entered once, clear refusals."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

from scp.fleet.paper import client_id, units_of
from tests.engine_process import OPERATOR, EngineProcess
from tests.scp.conftest import Person, ScpProcess
from tests.scp.fleet.paper_ground import BTC, ORDERS, exchange_in, opened, order, plane_of
from tests.waiting import until_sync


def test_two_people_trade_with_each_other(plane: ScpProcess) -> None:
    """An order rests, is amended, meets a market order; each sees positions, fills and money of their own and nothing else."""
    ann, bob = opened(plane), opened(plane)
    assert ann.change("POST", "/api/v1/paper/account").body["money"]["balance"] == 1e6, "the deposit comes once"
    placed = order(ann, "Buy", 10, 49_900, "a-1")
    assert placed.status == 200, placed.body["detail"]
    assert (placed.status, placed.body["state"], placed.body["left"]) == (200, "New", 10), placed.body
    name = placed.body["id"]
    assert [one["id"] for one in ann.get("/api/v1/paper").body["orders"]] == [name]
    amended = ann.change("PUT", f"{ORDERS}/{name}", {"qty": 6, "price": 49_950}, Idempotency_Key="a-2")
    assert (amended.body["qty"], amended.body["price"]) == (6, 49_950)
    assert order(bob, "Sell", 4, None, "b-1").body["state"] == "Filled"
    mine, his = ann.get("/api/v1/paper").body, bob.get("/api/v1/paper").body
    assert [(one["qty"], one["entry"]) for one in mine["positions"]] == [(4, 49_950)]
    assert [(one["qty"], one["entry"]) for one in his["positions"]] == [(-4, 49_950)]
    assert [(one["qty"], one["price"], one["maker"]) for one in mine["fills"]] == [(4, 49_950, True)]
    assert his["orders"] == []
    assert (mine["orders"][0]["left"], mine["orders"][0]["filled"]) == (2, 4)
    assert bob.change("DELETE", f"{ORDERS}/{name}", Idempotency_Key="b-2").status in (404, 422), "it is hers"
    assert ann.change("DELETE", f"{ORDERS}/{name}", Idempotency_Key="a-3").body["state"] == "Canceled"
    said = ann.scp.api("GET", "/api/v1/audit?limit=30", cookie=plane.admin["value"]).body["entries"]
    assert {"paper.place.begin", "paper.place", "paper.amend", "paper.cancel", "paper.cancel.failed"} <= {
        e["action"] for e in said
    }


def test_an_order_that_is_sent_again_is_one_order(plane: ScpProcess, exchange: EngineProcess) -> None:
    """Also after both were killed: the exchange keeps the key. Another order under the same key is refused."""
    trader = opened(plane)
    first = order(trader, "Buy", 3, 48_000, "once")
    exchange.end(signal.SIGKILL)
    away = order(trader, "Buy", 3, 48_000, "once")
    assert (away.status, away.body["code"]) == (503, "engine_unavailable")
    exchange.start()
    exchange.ready()
    until_sync(lambda: order(trader, "Buy", 3, 48_000, "once").status == 200, 20, "the exchange answers")
    assert order(trader, "Buy", 3, 48_000, "once").body == first.body
    assert len(trader.get("/api/v1/paper").body["orders"]) == 1
    other = order(trader, "Buy", 4, 48_000, "once")
    assert (other.status, other.body["code"]) == (422, "IdempotencyKeyReused")
    bare = trader.change("POST", ORDERS, {"symbol": "BTC-PERP", "side": "Buy", "qty": 1})
    assert (bare.status, bare.body["code"]) == (400, "key_needed")


def test_what_the_exchange_refuses_is_said_in_its_words(plane: ScpProcess) -> None:
    """A wrong size, price or contract, no money, no account, suspended trading; nothing rests afterwards."""
    trader = opened(plane)
    for n, (qty, price) in enumerate([(0, 48_000), (-1, 48_000), (1, 48_000.3), (1, 1e12), (450_000, 50_000)]):
        refused = order(trader, "Buy", qty, price, f"bad-{n}")
        assert (refused.status, bool(refused.body["detail"])) == (422, True), refused.body
    stranger = plane.person("trader")
    assert order(stranger, "Buy", 1, 48_000, "s").body["code"] == "no_paper_account"
    boss = Person(plane, plane.admin["value"])
    assert boss.change("POST", "/api/v1/trading/suspend", {"reason": "a try"}).status == 200
    held = order(trader, "Buy", 1, 48_000, "held")
    assert held.status == 422, held.body
    until_sync(lambda: trader.get("/api/v1/paper").body["suspended"] == ["manual"], 10, "the desk says why")
    assert boss.change("POST", "/api/v1/trading/resume", {"reason": "over"}).status == 200
    assert trader.get("/api/v1/paper").body["orders"] == []


def test_who_may_not_trade_gets_nothing(plane: ScpProcess) -> None:
    """Neither a viewer nor an operator; a question with the tag of the last answer costs nothing."""
    for role in ("viewer", "operator"):
        assert plane.person(role).get("/api/v1/paper").body["code"] == "forbidden"
    trader = opened(plane)
    tag = trader.get("/api/v1/paper").raw.getheader("ETag")
    again = trader.get("/api/v1/paper", If_None_Match=tag)
    assert (again.status, again.body) == (304, "")


def test_units_and_names() -> None:
    """A lot of 0.001 moves by 0.0005 a tick, which is 500 units: a unit is a millionth. One key is one name."""
    assert units_of([BTC]) == 1_000_000
    assert client_id("a") == client_id("a") != client_id("b")


def test_who_loses_the_right_to_trade_leaves_no_orders_behind(plane: ScpProcess, exchange: EngineProcess) -> None:
    """Another role, disabled, removed: orders are cancelled at once, and the answer says what is left; kept ones are counted."""
    boss = Person(plane, plane.admin["value"])
    users = "/api/v1/users"

    def left(account: int) -> list[Any]:
        asked = urllib.request.Request(f"{exchange.url}/Account/{account}", headers=OPERATOR)
        return list(json.load(urllib.request.urlopen(asked, timeout=10))["openOrders"])

    def with_orders(name: str) -> tuple[Person, int]:
        trader = opened(plane)
        for number, at in enumerate((48_000, 48_100)):
            assert order(trader, "Buy", 1, at, f"{name}-{number}").status == 200
        return trader, int(trader.get("/api/v1/paper").body["account"])

    trader, account = with_orders("role")
    assert boss.change("PATCH", f"{users}/{trader.id}", {"email": "a@example.org"}).body["paper"] is None, "no right was lost"
    assert boss.change("PATCH", f"{users}/{trader.id}", {"role": "admin"}).body["paper"] is None, (
        "an administrator may trade, too"
    )
    assert len(left(account)) == 2
    kept = boss.change("PATCH", f"{users}/{trader.id}", {"role": "viewer", "paper_orders": "keep"}).body["paper"]
    assert kept == {"account": account, "canceled": 0, "open_orders": 2, "positions": 0, "problem": ""}
    done = boss.change("DELETE", f"{users}/{trader.id}/paper-orders")
    assert (done.status, done.body["canceled"], done.body["open_orders"]) == (200, 2, 0), done.body
    assert left(account) == []

    trader, account = with_orders("disabled")
    gone = boss.change("PATCH", f"{users}/{trader.id}", {"disabled": True}).body["paper"]
    assert gone == {"account": account, "canceled": 2, "open_orders": 0, "positions": 0, "problem": ""}
    assert left(account) == []

    trader, account = with_orders("removed")
    assert boss.change("DELETE", f"{users}/{trader.id}").status == 204
    assert left(account) == []
    entries = boss.get("/api/v1/audit?limit=50").body["entries"]
    assert str(account) in {one["target"] for one in entries if one["action"] == "paper.cancel_all"}


def test_the_right_ends_while_the_exchange_is_away_and_the_orders_are_named(tmp_path: Path) -> None:
    """Nobody keeps a right because something is away: the answer says which orders are still there, and how they go."""
    engine = exchange_in(tmp_path)
    plane = plane_of(engine, tmp_path)
    try:
        boss, trader = Person(plane, plane.admin["value"]), opened(plane)
        assert order(trader, "Buy", 1, 48_000, "away").status == 200
        engine.end(signal.SIGKILL)
        said = boss.change("PATCH", f"/api/v1/users/{trader.id}", {"role": "viewer"})
        assert (said.status, said.body["role"]) == (200, "viewer")
        assert "cancel them when it answers" in said.body["paper"]["problem"]
        engine.start()
        engine.ready()
        assert boss.change("DELETE", f"/api/v1/users/{trader.id}/paper-orders").body["canceled"] == 1
        engine.end(signal.SIGKILL)
        assert boss.change("DELETE", f"/api/v1/users/{trader.id}").status == 204
        actions = [one["action"] for one in boss.get("/api/v1/audit?limit=50").body["entries"]]
        assert {"paper.cancel_all.begin", "paper.cancel_all.failed", "paper.cancel_all"} <= set(actions)
    finally:
        plane.end()
        if engine.process is not None:
            engine.process.kill()
            engine.process.wait(20)
