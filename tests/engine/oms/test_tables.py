"""Rows: what each kind of execution becomes, duplicates, gaps, and SQL that stores it exactly."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from typing import Any

import pytest

from engine.oms import tables
from engine.oms.tables import Changes, Gap, NotAMessage, Progress, StoredMessage, decode
from tests.engine.oms.ground import FIRST, expected, frames


def frame(index: int, previous: int, *groups: list[dict[str, Any]]) -> StoredMessage:
    body = {"messageIndex": index, "prevMessageIndex": previous, "timestamp": "2026-11-21T02:16:49.123Z", "executions": groups}
    return decode(json.dumps(body))


def execution(**fields: Any) -> dict[str, Any]:
    plain = {
        "orderId": "12", "clOrdID": "a", "account": 1, "symbol": "X", "side": "Buy", "ordType": "Limit",
        "timeInForce": "GoodTillCancel", "price": 1.5, "orderQty": 5, "leavesQty": 5, "ordStatus": "New", "cumQty": 0,
        "cumCost": 0, "avgPx": 0.0, "timestamp": "t", "execType": "New", "execId": "12-1", "lastQty": 0, "execCost": 0,
        "lastPx": 0.0, "commission": 0.0, "execComm": 0, "transactTime": "t",
    }  # fmt: skip
    return plain | fields


def rows(changes: Changes) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    found = []
    for columns, values in ((tables.ORDERS, changes.orders.values()), (tables.TRADES, changes.trades)):
        names = [name.lower() for name, _ in columns]
        found.append({str(row[0]): dict(zip(names[1:], row[1:], strict=True)) for row in values})
    return found[0], found[1]


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_what_the_frames_say(seed: int) -> None:
    """A random life of the exchange, refusals and liquidations included, field by field against plain JSON."""
    messages = frames(seed, 1_500)
    changes = Changes(Progress(FIRST, FIRST - 1))
    assert all(changes.add(decode(message)) for message in messages)
    assert rows(changes) == expected(messages)
    assert changes.messages == len(messages)
    assert changes.last_index == json.loads(messages[-1])["messageIndex"]


def test_the_random_lives_have_every_kind_of_execution() -> None:
    """Otherwise the test above would prove less than it says."""
    seen: Counter[str] = Counter()
    for seed in range(4):
        for message in frames(seed, 1_500):
            seen.update(e["execType"] for group in json.loads(message)["executions"] for e in group)
    rare = {"Settlement"}  # a contract ends once; its executions are those of a liquidation in all but the name
    assert seen.keys() >= (tables.OF_ORDERS | tables.OF_TRADES | {"Funding"}) - rare


@pytest.mark.parametrize("kind", ["New", "Trade", "Canceled", "Replaced", "Rejected", "Triggered"])
def test_an_orders_last_state_is_kept(kind: str) -> None:
    """Whatever changes an order changes its row; the row says by which message."""
    changes = Changes(Progress(1, 0))
    changes.add(frame(12, 0, [execution()]))
    changes.add(frame(13, 12, [execution(execType=kind, leavesQty=3, execId="13-1")]))
    (row,) = rows(changes)[0].values()
    assert (row["openquantity"], row["messageindex"]) == (3, 13)


@pytest.mark.parametrize("kind", ["Liquidation", "Deleverage"])
def test_a_move_of_a_position_is_a_trade_of_no_order(kind: str) -> None:
    """It has a row among the trades, and none among the orders; funding has neither."""
    changes = Changes(Progress(1, 0))
    changes.add(frame(12, 0, [execution(execType=kind, orderId="12-1"), execution(execType="Funding", execId="12-2")]))
    orders, trades = rows(changes)
    assert not orders
    assert [row["executiontype"] for row in trades.values()] == [kind]
    assert trades["12-1"]["aggressingorderid"] is None


def test_every_trade_of_a_group_names_the_aggressor() -> None:
    """So that the fills of one incoming order can be found together."""
    group = [
        execution(execType="Trade", orderId="12", execId="12-2", lastLiquidityInd="RemovedLiquidity", trdMatchID="7"),
        execution(execType="Trade", orderId="3", execId="12-3", lastLiquidityInd="AddedLiquidity", trdMatchID="7"),
    ]
    changes = Changes(Progress(1, 0))
    changes.add(frame(12, 0, group))
    assert {row["aggressingorderid"] for row in rows(changes)[1].values()} == {"12"}


def test_a_duplicate_changes_nothing() -> None:
    """What was there before the transaction, and what came twice within it."""
    changes = Changes(Progress(1, 12))
    assert not changes.add(frame(12, 3, [execution()]))
    assert changes.add(frame(14, 12, [execution()]))
    assert not changes.add(frame(14, 12, [execution(leavesQty=1)]))
    assert (changes.messages, rows(changes)[0]["12"]["openquantity"]) == (1, 5)


@pytest.mark.parametrize(
    ("progress", "index", "previous"),
    [
        (Progress(1, 12), 20, 15),  # 15 never came
        (Progress(1, 12), 20, 11),  # 12 is here and unknown to the engine: another history
        (Progress(1, 0), 20, 15),  # the store began at 1, and 15 is missing
    ],
)
def test_a_frame_that_does_not_follow_is_a_gap(progress: Progress, index: int, previous: int) -> None:
    """Messages are missing, or this is not the engine that the database follows; nothing is added."""
    changes = Changes(progress)
    with pytest.raises(Gap, match="follows message"):
        changes.add(frame(index, previous, [execution()]))
    assert (changes.messages, changes.last_index, changes.orders) == (0, progress.last_index, {})


def test_anything_may_lie_before_the_first_message() -> None:
    """A store keeps nothing from before its creation."""
    changes = Changes(Progress(100, 99))
    assert changes.add(frame(105, 80))
    assert changes.add(frame(106, 105))


def test_a_json_string_is_the_engines_word_of_a_gap() -> None:
    """Its text is for the operator."""
    with pytest.raises(Gap, match="purged up to 7"):
        decode('"purged up to 7"')


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b"17", b'{"messageIndex":"x"}', b"\xff\xfe", b'{"messageIndex":1}'])
def test_what_is_no_message_is_said(junk: bytes) -> None:
    """Never a row of guesses."""
    with pytest.raises(NotAMessage):
        decode(junk)


def test_unknown_fields_are_ignored() -> None:
    """A newer engine may say more."""
    body = {"messageIndex": 1, "prevMessageIndex": 0, "timestamp": "t", "executions": [[execution(novel=[1])]], "more": {}}
    assert decode(json.dumps(body)).message_index == 1


def test_numbers_survive_the_database() -> None:
    """Money and quantities to the last unit, prices to the last bit."""
    cost, price = 2**62 + 1, 90_000.1
    changes = Changes(Progress(1, 0))
    changes.add(frame(12, 0, [execution(execType="Trade", execCost=cost, lastQty=2**53 + 1, lastPx=price, execComm=-3)]))
    with sqlite3.connect(":memory:") as db:
        for statement in tables.schema():
            db.execute(statement)
        db.executemany(tables.insert_trade("?"), changes.trades)
        assert db.execute("SELECT cost, quantity, price, execCommission FROM Trades").fetchall() == [(cost, 2**53 + 1, price, -3)]


def test_the_time_of_the_last_message_is_known() -> None:
    """For the lag; ISO 8601 to ms since the epoch."""
    changes = Changes(Progress(1, 0))
    changes.add(frame(12, 0))
    assert changes.time_ms() == 1_795_227_409_123
