"""Listings, marks and switches in the messages of consumers."""

from __future__ import annotations

import json
from typing import Any

from engine.core import commands as cm
from engine.stores.messages import SCHEMA_VERSION
from tests.engine.core.test_exchange import Desk, X


def told(desk: Desk, command: cm.Command) -> dict[str, Any]:
    """Return the message of a command."""
    desk.do(command)
    found: dict[str, Any] = json.loads(desk.exchange.message)
    return found


def test_whatever_operators_change_is_told() -> None:
    """Each in a list of its own, which is absent while it is empty; every message carries the version of its shape."""
    desk = Desk()
    desk.do(cm.CreateStore(""))
    listed = told(desk, cm.CreateInstrument(cm.Instrument("Y", taker_fee_ppm=500, tick_size="0.5"), 3))
    (listing,) = listed["listings"]
    expected = {"symbol": "Y", "listingType": "New", "tickSize": "0.5", "takerFee": 0.0005, "markPrice": 1.5}
    assert expected.items() <= listing.items()
    assert (listed["schemaVersion"], listed["executions"]) == (SCHEMA_VERSION, [])
    assert "markPrices" not in listed
    assert told(desk, cm.SetMark(X, 101))["markPrices"][0]["markPrice"] == 101
    assert told(desk, cm.KillSwitch(1, True))["killSwitches"][0]["killSwitch"] is True
    (change,) = told(desk, cm.Suspend("manual"))["suspensions"]
    assert (change["reason"], change["set"], change["reasons"]) == ("manual", True, ["manual"])
    assert told(desk, cm.SetMark(X, 102))["markPrices"][0]["pending"] is True
    resumed = told(desk, cm.ResumeAll())
    assert [(one["set"], one["reasons"]) for one in resumed["suspensions"]] == [(False, [])]
    assert [(one["markPrice"], one["pending"]) for one in resumed["markPrices"]] == [(102, False)]
    desk.do(cm.Resume("manual"))
    assert desk.exchange.message == b""


def test_the_end_of_a_contract_is_told() -> None:
    """That it closes, what each gets for his position, that it is gone; CLEARING, which ends with nothing, is not shown."""
    desk = Desk()
    desk.do(cm.CreateStore(""))
    desk.place(1, cm.SELL, 5, 100)
    desk.place(2, cm.BUY, 5, 100)
    desk.do(cm.SetMark(X, 103))
    told_of = told(desk, cm.Delist(X, True))
    assert [(one["listingType"], one["markPrice"]) for one in told_of["listings"]] == [("Closing", 103), ("Delisted", 103)]
    settled = [(one["account"], one["execType"], one["side"], one["lastQty"], one["lastPx"]) for (one,) in told_of["executions"]]
    assert settled == [(1, "Settlement", "Buy", 5, 103), (2, "Settlement", "Sell", 5, 103)]
    paid = [(one["account"], one["transactType"], one["amount"]) for one in told_of["accountTransactions"]]
    assert paid == [(1, "RealisedPnl", -15), (2, "RealisedPnl", 15)]
    assert told_of["liquidations"] == []
