"""What the exchange writes and what the listener's feed reads are one contract: held against each other, field by field."""

from __future__ import annotations

import types
import typing
from datetime import datetime
from typing import Any, Literal, Union

import msgspec
import pytest

from engine.core import commands as cm
from engine.core.commands import BUY, SELL, SIDES, Command, Instrument
from engine.core.exchange import Exchange
from engine.gateway import bodies
from engine.stores import messages
from engine.stores.message_builder import MessageBuilder
from mdl.feeds import exchange_market as feed

NOW_NS = 1_795_227_409_123_000_000
BOTH_ENDS = [
    (feed.Message, messages.Message),
    (feed.Execution, messages.Execution),
    (feed.Update, messages.BookUpdate),
    (feed.Snapshot, bodies.BookView),
    (feed.Level, bodies.LevelView),
    (feed.Instrument, bodies.InstrumentView),
    (feed.Store, bodies.StoreView),
]
PAIRS = {id(read): written for read, written in BOTH_ENDS}


def fields(struct: type[msgspec.Struct]) -> dict[str, tuple[msgspec.structs.FieldInfo, Any]]:
    """Return the fields of a struct by the names on the wire, with their types."""
    hints = typing.get_type_hints(struct)
    return {field.encode_name: (field, hints[field.name]) for field in msgspec.structs.fields(struct)}


def reads(read: Any, written: Any) -> bool:
    """Return whether whatever is written as one type can be read as the other."""
    read_of, written_of = typing.get_origin(read), typing.get_origin(written)
    if written_of in (Union, types.UnionType):
        return all(reads(read, each) for each in typing.get_args(written))
    if read_of in (Union, types.UnionType):
        return any(reads(each, written) for each in typing.get_args(read))
    if read_of is Literal:
        return written is str and set(typing.get_args(read)) == set(SIDES)
    if read_of is list or written_of is list:
        return read_of is written_of and reads(*typing.get_args(read), *typing.get_args(written))
    if id(read) in PAIRS:
        return PAIRS[id(read)] is written
    return (read, written) in {(datetime, str), (float, int)} or read is written


@pytest.mark.parametrize(("read", "written"), BOTH_ENDS)
def test_every_field_the_feed_reads_is_written_with_a_type_it_accepts(
    read: type[msgspec.Struct], written: type[msgspec.Struct]
) -> None:
    """Also those it could do without: a field that was renamed there would never come again, in silence."""
    there = fields(written)
    for name, (field, kind) in fields(read).items():
        assert name in there, f"{written.__name__} has no {name}"
        other, other_kind = there[name]
        assert reads(kind, other_kind), f"{name}: {other_kind} is written, {kind} is read"
        left_out = written.__struct_config__.omit_defaults and not other.required
        assert not (field.required and left_out), f"{name} is not always written, and the feed requires it"


def order(cl_ord_id: str, account: int, side: int, ticks: int, lots: int) -> Command:
    return cm.PlaceOrder(account, "X", cl_ord_id, side, lots, ticks)


def frames() -> list[bytes]:
    """Return what the exchange tells of a small market: money, resting orders, a sweep over two levels, a cancel."""
    exchange, told = Exchange(MessageBuilder), []
    commands: list[Command] = [
        cm.CreateStore("mdl"),
        cm.CreateInstrument(Instrument("X", tick_size="0.05", lot_size="0.1"), 100),
        cm.Deposit(1, 10**12),
        cm.Deposit(2, 10**12),
        order("a", 1, SELL, 100, 3),
        order("b", 1, SELL, 101, 5),
        order("c", 2, BUY, 101, 4),
        cm.CancelOrder(1, "b"),
    ]
    for index, command in enumerate(commands, 1):
        exchange.decide(index, NOW_NS, command)
        if exchange.message:
            told.append(exchange.message)
    return told


def test_the_exchanges_own_frames_become_the_trades_and_tops_they_tell() -> None:
    """From the engine's matching to vendor-shaped events, without a byte written by hand."""
    market, cursor, events = feed.Market(), feed.Cursor(), []
    market.learn([feed.Instrument("X", "0.05", "0.1")])
    for data in frames():
        message = feed.read_frame(data)
        assert isinstance(message, feed.Message)
        assert cursor.judge(message) == "next"
        cursor.index = message.index
        events += [msgspec.json.decode(event) for event in market.apply(message)]
    trades = [(event["p"], event["s"]) for event in events if event["ev"] == "T"]
    assert trades == [(5.0, 0.3), (5.05, 0.1)]
    last = [event for event in events if event["ev"] == "Q"][-1]
    assert (last["ap"], last["bp"]) == (0, 0), "the rest was canceled"
    assert {event["t"] for event in events} == {NOW_NS // 1_000_000}
    assert market.malformed == 0
