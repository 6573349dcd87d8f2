"""Books, contracts and what a feed sets, over real sockets."""

from __future__ import annotations

from tests.engine.gateway.ground import BTC, Ground, order_body


async def test_a_book_shows_levels_best_first_with_its_index(ground: Ground) -> None:
    """Quantities are what is shown, prices are numbers; depth 0 is all of it."""
    for number in range(4):
        await ground.order(1, f"b{number}", "Buy", 10, 99 - number, **({"displayQty": 2} if number == 0 else {}))
        await ground.order(2, f"s{number}", "Sell", 5, 101 + number)
    last = await ground.order(2, "s4", "Sell", 1, 101)
    book = await ground.ask("GET", "/OrderBook?symbol=BTC-PERP&depth=2")
    assert book["bids"] == [{"price": 99.0, "qty": 2, "orders": 1}, {"price": 98.0, "qty": 10, "orders": 1}]
    assert book["asks"] == [{"price": 101.0, "qty": 6, "orders": 2}, {"price": 102.0, "qty": 5, "orders": 1}]
    assert (book["messageIndex"], book["lastPrice"], book["markPrice"]) == (last["messageIndex"], None, 100.0)
    assert len((await ground.ask("GET", "/OrderBook?symbol=BTC-PERP&depth=0"))["bids"]) == 4
    assert len((await ground.ask("GET", "/OrderBook?symbol=BTC-PERP"))["bids"]) == 4


async def test_a_contract_is_listed_once_and_shown_in_units_of_people(ground: Ground) -> None:
    """Again with the same terms changes nothing, with others it is a conflict; the tick's money follows from the sizes."""
    (shown,) = await ground.ask("GET", "/Instrument")
    assert shown["tickSize"] == "0.5"
    assert shown["lotSize"] == "0.001"
    assert shown["lotTickUnits"] == 500
    assert (shown["takerFee"], shown["makerFee"], shown["markPrice"]) == (0.0005, -0.0001, 100.0)
    assert await ground.ask("GET", "/Instrument?symbol=BTC-PERP") == [shown]
    digest = ground.digest
    assert await ground.ask("PUT", "/Instrument", **BTC) == shown
    assert (await ground.ask("PUT", "/Instrument", 409, **{**BTC, "takerFee": 0.001}))["code"] == "DuplicateSymbol"
    assert ground.digest == digest


async def test_marks_funding_and_milestones_are_commands(ground: Ground) -> None:
    """Each is answered with its index; while trading is suspended a mark waits."""
    await ground.order(1, "a", "Buy", 4, 100)
    await ground.order(2, "b", "Sell", 4, 100)
    funding = await ground.ask("PUT", "/Funding?symbol=BTC-PERP&rate=0.0001")
    assert (funding["rate"], funding["payments"]) == (0.0001, 2)
    check = await ground.ask("PUT", "/LivenessCheck?checkId=night&source=ops")
    assert check == {"messageIndex": check["messageIndex"], "checkId": "night", "source": "ops"}
    assert (await ground.ask("PUT", "/ExchangeWideControls/SuspendTrading"))["reasons"] == ["manual"]
    mark = await ground.ask("PUT", "/MarkPrice?symbol=BTC-PERP&price=120")
    assert (mark["markPrice"], mark["pending"]) == (120.0, True)
    assert (await ground.ask("POST", "/Order", 422, **order_body(1, "y")))["code"] == "TradingSuspended"
    assert (await ground.ask("PUT", "/ExchangeWideControls/ResumeTrading")) == {
        "messageIndex": mark["messageIndex"] + 2, "suspended": False, "reasons": [],
    }  # fmt: skip
    assert (await ground.ask("GET", "/ExchangeWideControls"))["suspended"] is False
    assert (await ground.ask("GET", "/OrderBook?symbol=BTC-PERP"))["markPrice"] == 120.0


async def test_a_contract_is_delisted_by_an_operator(ground: Ground) -> None:
    """Refused while it has orders or positions, unless they are to be closed; then it is shown only to those who ask for it."""
    for number in range(200):
        await ground.order(1, f"far{number}", "Sell", 1, 105)
    conflict = await ground.ask("DELETE", "/Instrument?symbol=BTC-PERP", 409)
    assert (conflict["code"], "settle=true" in conflict["detail"]) == ("OpenOrders", True)
    many = await ground.ask("DELETE", "/Order/All?account=1")
    assert len(many["canceled"]) == 200
    assert (await ground.ask("GET", "/Account/1"))["openOrders"] == []
    assert (await ground.ask("DELETE", "/Order?account=1&clOrdID=far199", 404))["code"] == "UnknownOrder"
    await ground.order(1, "a", "Buy", 4, 100)
    await ground.order(2, "b", "Sell", 4, 100)
    assert (await ground.ask("DELETE", "/Instrument?symbol=BTC-PERP", 409))["code"] == "OpenPositions"
    assert (await ground.ask("DELETE", "/Instrument?symbol=NONE", 404))["code"] == "UnknownSymbol"
    await ground.ask("DELETE", "/Instrument?symbol=BTC-PERP&settle=true")
    (shown,) = await ground.ask("GET", "/Instrument?symbol=BTC-PERP")
    assert shown["status"] == "Delisted"
    assert await ground.ask("GET", "/Instrument") == []
    assert await ground.ask("GET", "/Instrument?delisted=true") == [shown]
    assert (await ground.ask("PUT", "/Instrument", 409, **BTC))["code"] == "DuplicateSymbol"
    assert (await ground.ask("POST", "/Order", 422, **order_body(1, "y")))["code"] == "InstrumentDelisted"
    assert (await ground.ask("PUT", "/MarkPrice?symbol=BTC-PERP&price=120", 422))["code"] == "InstrumentDelisted"
    assert (await ground.ask("GET", "/Account/1"))["positions"] == []
    assert len((await ground.ask("GET", "/Fill?account=1"))["fills"]) == 1
