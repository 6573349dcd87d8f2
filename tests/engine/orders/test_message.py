"""Messages of the order queue: what becomes a command, what is refused and why, what their senders are told."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import commands as cm
from engine.core.exchange import Exchange
from engine.orders.message import (
    AmendMessage,
    MessageRefused,
    OrderMessage,
    answer,
    attempts,
    command_of,
    death,
    done_before,
    expires_ns,
    read,
    refusal_answer,
    repeated_answer,
    waits_for_order,
)
from engine.stores.message_builder import MessageBuilder

ORDER = {"account": 1, "symbol": "X", "clOrdID": "a", "side": "Buy", "orderQty": 3, "price": 40}
SECOND = 10**9


class Floor:
    """An exchange with one contract (tick 0.5, one lot and tick = 2 units) and two accounts; commands are numbered from 1."""

    def __init__(self) -> None:
        self.exchange = Exchange(MessageBuilder)
        self.index = 0
        instrument = cm.Instrument("X", lot_tick_units=2, tick_size="0.5")
        for command in (cm.CreateInstrument(instrument, 100), cm.Deposit(1, 10**9), cm.Deposit(2, 10**9)):
            self.decide(command)

    @property
    def state(self) -> Any:
        return self.exchange.state

    def decide(self, command: cm.Command) -> tuple[int, list[Any]]:
        self.index += 1
        return self.index, self.exchange.decide(self.index, self.index * SECOND, command)

    def command(self, kind: str, **fields: Any) -> cm.Command:
        return command_of(message(kind, **fields), self.state)

    def told(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Execute a message and return what its sender is told."""
        command = self.command(kind, **fields)
        index, events = self.decide(command)
        return answer(command, index, events, self.state)

    def place(self, name: str, **fields: Any) -> dict[str, Any]:
        return self.told("place", **(ORDER | {"clOrdID": name} | fields))


@pytest.fixture
def floor() -> Floor:
    return Floor()


def message(kind: str, **fields: Any) -> OrderMessage:
    return read(json.dumps({"type": kind} | fields).encode())[0]


def test_each_type_becomes_its_command(floor: Floor) -> None:
    """Place, amend, cancel and cancelAll, prices as ticks."""
    assert floor.command("place", **ORDER) == cm.PlaceOrder(1, "X", "a", 0, 3, 80)
    floor.place("a")
    assert floor.command("amend", account=1, clOrdID="a", price="41.5", orderQty=2) == cm.AmendOrder(1, "a", 2, 83)
    assert floor.command("cancel", account=1, clOrdID="a") == cm.CancelOrder(1, "a")
    assert floor.command("cancelAll", account=1) == cm.CancelAll(1)
    assert floor.command("cancelAll", account=1, symbol="X") == cm.CancelAll(1, "X")


MALFORMED = [
    b"", b"null", b"[]", b"{}", b'"place"', b"{", b"\x00", b"\xff\xfe", b"place", b"<order/>", b"[" * 10_000, b'{"type":' * 10_000,
    b'{"type":"place"}', b'{"type":"replace","account":1}', b'{"type":1}', b'{"type":null}', b'{"account":1,"clOrdID":"a"}',
    b'{"type":"cancel","account":1}', b'{"type":"cancel","clOrdID":"a"}', b'{"type":"cancel","account":"1","clOrdID":"a"}',
    b'{"type":"cancel","account":true,"clOrdID":"a"}', b'{"type":"cancel","account":1.5,"clOrdID":"a"}',
    b'{"type":"cancel","account":1e999,"clOrdID":"a"}', b'{"type":"cancel","account":1,"clOrdID":"\\ud800"}',
    b'{"type":"cancel","account":1,"clOrdID":"\xc3\x28"}', b'{"type":"cancel","account":1,"clOrdID":"a","symbol":"X"}',
    b'{"type":"cancel","account":1,"clOrdID":"a"}x', b'{"type":"cancelAll","account":1,"symbol":""}',
    b'{"type":"cancel","account":1,"clOrdID":"a","expiresAt":"soon"}', b'{"type":"cancel","account":1,"clOrdID":"a","expiresAt":1.5}',
    b'{"type":"cancel","account":1,"clOrdID":"a","expiresAt":"2026-11-21T00:00:00"}',
    b'{"type":"cancel","account":1,"clOrdID":"' + b"a" * 20_000 + b'"}',
    *[json.dumps({"type": "place"} | ORDER | change).encode() for change in (
        {"price": "x"}, {"price": None, "pricePx": 1}, {"orderQty": "3"}, {"side": "buy"}, {"orderQty": 1 << 60}, {"clOrdID": ""},
        {"timeInForce": "GTC"}, {"postOnly": 1},
    )],
]  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_not_a_message_is_malformed(body: bytes) -> None:
    """No JSON, no object, no type, wrong types, unknown fields, broken text: refused at once, with a short reason."""
    began_s = time.process_time()
    with pytest.raises(MessageRefused) as refused:
        read(body)
    assert refused.value.reason == "Malformed"
    assert 0 < len(refused.value.detail) <= 500
    assert time.process_time() - began_s < 0.5


@pytest.mark.parametrize("price", ["40.25", 0, -1, "NaN", "Infinity", "1e400", "1e-400", "9" * 5_000])
def test_a_price_that_is_none_is_malformed(floor: Floor, price: Any) -> None:
    """Between two ticks, not above zero, not finite, absurd: known only with the contract, refused all the same."""
    with pytest.raises(MessageRefused, match="Malformed"):
        floor.command("place", **(ORDER | {"price": price}))


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    """Only `Refused` comes out of a body."""
    with contextlib.suppress(MessageRefused):
        read(body)


def test_what_nobody_knows_is_the_engines_to_refuse(floor: Floor) -> None:
    """Unknown symbols, accounts and orders are answered by the journal, with and without prices."""
    assert floor.place("a", symbol="NONE")["code"] == "UnknownSymbol"
    assert floor.place("a", symbol="NONE", price=None)["code"] == "UnknownSymbol"
    assert floor.place("a", account=99)["code"] == "UnknownAccount"
    assert floor.told("amend", account=1, clOrdID="z", price=40)["code"] == "UnknownOrder"
    assert floor.told("cancel", account=1, clOrdID="z")["code"] == "UnknownOrder"
    assert floor.told("cancelAll", account=99)["code"] == "UnknownAccount"


def test_an_amended_price_needs_its_order(floor: Floor) -> None:
    """Until the order is in the state the ticks cannot be told; sizes can."""
    amend = message("amend", account=1, clOrdID="a", price=41)
    assert isinstance(amend, AmendMessage)
    assert waits_for_order(amend, floor.state)
    assert not waits_for_order(message("amend", account=1, clOrdID="a", orderQty=1), floor.state)
    assert not waits_for_order(message("cancel", account=1, clOrdID="a"), floor.state)
    floor.place("a")
    assert not waits_for_order(amend, floor.state)
    floor.told("cancel", account=1, clOrdID="a")
    assert not waits_for_order(amend, floor.state), "a closed order is known, and will not come any more"
    assert floor.told("amend", account=1, clOrdID="a", price=41)["code"] == "UnknownOrder"


def test_the_sender_is_told_what_became_of_his_order(floor: Floor) -> None:
    """New, partly filled, filled, cancelled, refused: the order's numbers as its own command left them."""
    resting = floor.place("a")
    assert resting == {
        "messageIndex": 4, "orderId": "4", "clOrdID": "a", "account": 1, "symbol": "X", "side": "Buy", "ordStatus": "New",
        "orderQty": 3, "leavesQty": 3, "cumQty": 0, "cumCost": 0, "avgPx": 0.0,
    }  # fmt: skip
    floor.place("b", price=41, orderQty=1)
    taken = floor.place("c", account=2, side="Sell", orderQty=2, price=40)
    numbers = ("ordStatus", "orderQty", "leavesQty", "cumQty", "cumCost", "avgPx")
    assert [taken[name] for name in numbers] == ["Filled", 2, 0, 2, (82 + 80) * 2, 40.5]
    rest = floor.place("d", account=2, side="Sell", orderQty=5, price=40)
    assert [rest[name] for name in numbers] == ["PartiallyFilled", 5, 3, 2, 320, 40.0]
    gone = floor.place("e", account=2, side="Sell", orderQty=5, price=None)
    assert [gone[name] for name in numbers] == ["Canceled", 5, 0, 0, 0, 0.0]
    refused = floor.place("f", orderQty=0)
    assert (refused["status"], refused["code"], refused["ordStatus"], refused["messageIndex"]) == (
        422,
        "InvalidSize",
        "Rejected",
        9,
    )


def test_a_second_use_of_a_client_id_names_the_first_order(floor: Floor) -> None:
    """409 with the id of the order that has it."""
    floor.place("a")
    told = floor.place("a", orderQty=1)
    assert (told["status"], told["code"], told["orderId"]) == (409, "DuplicateClOrdID", "4")


def test_the_sender_is_told_of_amends_and_cancels(floor: Floor) -> None:
    """The amended order with its present numbers; the ids of what is cancelled."""
    floor.place("a")
    amended = floor.told("amend", account=1, clOrdID="a", orderQty=2)
    assert (amended["messageIndex"], amended["orderId"], amended["ordStatus"], amended["leavesQty"]) == (5, "4", "New", 2)
    floor.place("s", account=2, side="Sell", price=45, orderQty=1)
    traded = floor.told("amend", account=1, clOrdID="a", price=45)
    assert [traded[n] for n in ("ordStatus", "orderQty", "leavesQty", "cumQty", "cumCost", "avgPx")] == [
        "PartiallyFilled", 2, 1, 1, 180, 45.0]  # fmt: skip
    floor.place("t", account=2, side="Sell", price=46, orderQty=1)
    assert floor.told("amend", account=1, clOrdID="a", price=46)["ordStatus"] == "Filled"
    floor.place("b")
    floor.place("c")
    assert floor.told("cancel", account=1, clOrdID="b") == {
        "messageIndex": 12, "orderId": "10", "clOrdID": "b", "account": 1, "ordStatus": "Canceled"}  # fmt: skip
    assert floor.told("cancelAll", account=1) == {"messageIndex": 13, "canceled": ["11"]}


def test_an_order_is_known_again(floor: Floor) -> None:
    """Open: when the terms are the same. Closed: by its client id. Other commands never."""
    command = floor.command("place", **ORDER)
    assert done_before(command, floor.state) is None
    floor.decide(command)
    assert done_before(command, floor.state) == 4
    assert done_before(floor.command("place", **(ORDER | {"orderQty": 4})), floor.state) is None
    assert done_before(floor.command("place", **(ORDER | {"account": 2})), floor.state) is None
    assert isinstance(command, cm.PlaceOrder)
    told = repeated_answer(command, 4, floor.state)
    assert (told["orderId"], told["ordStatus"], told["leavesQty"], told["repeated"]) == ("4", "New", 3, True)
    floor.told("cancel", account=1, clOrdID="a")
    assert done_before(command, floor.state) == 4
    assert repeated_answer(command, 4, floor.state)["ordStatus"] is None
    assert done_before(cm.CancelOrder(1, "a"), floor.state) is None


def test_the_earlier_end_counts() -> None:
    """`expiresAt`, or the time to live after the moment of sending, whose seconds are whole: one more is granted."""
    sent = datetime.fromtimestamp(1_000, UTC)
    assert read(b'{"type":"cancel","account":1,"clOrdID":"a","expiresAt":5}')[1] == 5_000_000
    assert read(b'{"type":"cancel","account":1,"clOrdID":"a"}')[1] == 0
    assert expires_ns(0, None, "500") == 0
    assert expires_ns(0, sent, None) == 0
    assert expires_ns(0, sent, "500") == 1_001 * SECOND + 500_000_000
    assert expires_ns(7, sent, "500") == 7
    assert expires_ns(10**18, sent, "500") == 1_001 * SECOND + 500_000_000
    assert expires_ns(7, sent, "soon") == 7
    assert expires_ns(0, sent, "9" * 50) > 10**18


@pytest.mark.parametrize(
    ("headers", "expected"),
    [(None, 0), ({}, 0), ({"x-attempts": 2}, 2), ({"x-attempts": "2"}, 0), ({"x-attempts": -1}, 0), ({"x-attempts": True}, 0)],
)
def test_attempts_are_counted_by_a_header(headers: Any, expected: int) -> None:
    """Nonsense counts as none."""
    assert attempts(headers) == expected


@pytest.mark.parametrize(
    ("headers", "reason", "said"),
    [
        ({"x-death": [{"reason": "expired", "queue": "engine.orders", "original-expiration": "5"}]}, "Expired", "after 5 ms"),
        ({"x-death": [{"reason": "maxlen", "queue": "engine.orders"}]}, "Overflow", "engine.orders"),
        ({"x-death": [{"reason": "rejected"}]}, "Rejected", "rejected"), ({"x-death": "?"}, "Expired", "expired"),
        ({"x-death": []}, "Expired", "expired"), (None, "Expired", "expired"), ({"x-death": [{"reason": 7}]}, "Rejected", "7"),
    ],
)  # fmt: skip
def test_the_brokers_reason_becomes_ours(headers: Any, reason: str, said: str) -> None:
    """What RabbitMQ took out has the same words as what the engine refused."""
    found = death(headers)
    assert found[0] == reason
    assert said in found[1]


def test_a_refusal_is_a_problem() -> None:
    """The shape of the HTTP gateway's errors."""
    told = refusal_answer("Malformed", "no JSON")
    assert told == {
        "type": "urn:tapeline:problem:Malformed", "title": "Bad Request", "status": 400, "code": "Malformed", "detail": "no JSON",
    }  # fmt: skip
    assert refusal_answer("Expired", "too late")["status"] == 422
