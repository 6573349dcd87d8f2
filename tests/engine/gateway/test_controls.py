"""Suspending trading by hand and letting it go on, over real sockets."""

from __future__ import annotations

from tests.engine.gateway.ground import Ground, order_body


async def test_trading_is_suspended_and_resumed_by_hand(ground: Ground) -> None:
    """The reason is `manual`, asking twice changes nothing, and orders are refused meanwhile."""
    path = "/ExchangeWideControls"
    assert (await ground.ask("GET", path))["reasons"] == []
    for _ in range(2):
        done = await ground.ask("PUT", f"{path}/SuspendTrading")
        assert (done["suspended"], done["reasons"]) == (True, ["manual"])
    assert (await ground.ask("POST", "/Order", 422, **order_body(1, "a")))["code"] == "TradingSuspended"
    for _ in range(2):
        done = await ground.ask("PUT", f"{path}/ResumeTrading")
        assert (done["suspended"], done["reasons"]) == (False, [])
    assert (await ground.ask("POST", "/Order", 201, **order_body(1, "a")))["ordStatus"] == "New"
