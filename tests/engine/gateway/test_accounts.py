"""An account over real sockets: its money, positions and open orders."""

from __future__ import annotations

from tests.engine.gateway.ground import MONEY, Ground


async def test_an_account_shows_money_positions_and_open_orders(ground: Ground) -> None:
    """Units of money throughout; the unrealised profit is at the mark."""
    await ground.order(1, "a", "Buy", 10, 100)
    await ground.order(2, "b", "Sell", 4, 100)
    await ground.ask("PUT", "/MarkPrice?symbol=BTC-PERP&price=101.5")
    account = await ground.ask("GET", "/Account/1")
    assert account["positions"] == [
        {"symbol": "BTC-PERP", "qty": 4, "entryValue": 400_000, "markPrice": 101.5, "unrealisedPnl": 6_000}
    ]
    assert [order["clOrdID"] for order in account["openOrders"]] == ["a"]
    assert account["equity"] == account["balance"] + 6_000
    listed = await ground.ask("GET", "/Account")
    assert [one["account"] for one in listed] == [-1, 0, 1, 2]
    assert [one["account"] for one in await ground.ask("GET", "/Account?after=0&limit=1")] == [1]
    taken = await ground.ask("POST", "/Account/2/Withdraw", amount=1_000)
    assert (taken["amount"], taken["balance"]) == (-1_000, MONEY - 1_000 - 200)
