"""Frames that are written as text are what encoding the documented structs gives, byte for byte."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest

from engine.core import commands as cm
from engine.core.commands import BUY, SELL
from engine.core.exchange import Exchange
from engine.stores.message_builder import MessageBuilder
from engine.stores.messages import Execution, Message
from tests.engine.core.test_exchange import Desk
from tests.engine.lives import START_NS, answers, life

NAMES = ('say "when"', "back\\slash", "tab\tline\nnul\0", "Grüße €", "日本", "\u2028😀", "</script>", "\x7f")


def executions_of(frame: bytes) -> list[Execution]:
    """Return a frame's executions, after a trip through the structs that must give the same bytes."""
    message = msgspec.json.decode(frame, type=Message)
    assert msgspec.json.encode(message) == frame
    return [one for group in message.executions for one in group]


@pytest.mark.parametrize("seed", range(1, 13))
def test_every_frame_of_a_life_is_what_its_structs_encode_to(seed: int) -> None:
    """Four badly named markets and every kind of command: no field is missing, doubled, misplaced or written in another way."""
    commands = life(seed)
    if not seed % 3:
        commands = [(0, commands[0][1], cm.CreateStore("all")), *commands]
    frames = [frame for *_, frame in answers(Exchange(MessageBuilder), commands) if frame]
    assert len(frames) > 100
    told = [one for frame in frames for one in executions_of(frame)]
    assert {"New", "Trade", "Canceled", "Replaced", "Rejected", "Funding"} <= {one.exec_type for one in told}
    assert any(one.stop_px is not None for one in told)
    assert any(one.display_qty for one in told)
    assert any(one.link_id and one.contingency_type for one in told)


def test_names_that_json_must_escape_come_back_as_they_were() -> None:
    """Quotation marks, control characters and other alphabets in names of orders and contracts, refused ones too."""
    exchange, index = Exchange(MessageBuilder), 0

    def told(command: cm.Command) -> list[Execution]:
        nonlocal index
        index += 1
        exchange.decide(index, START_NS, command)
        return executions_of(exchange.message) if exchange.message else []

    told(cm.CreateStore(""))
    for account in (1, 2):
        told(cm.Deposit(account, 10**9))
    for name in NAMES:
        told(cm.CreateInstrument(cm.Instrument(name, taker_fee_ppm=600), 100))
        (new,) = told(cm.PlaceOrder(1, name, name, SELL, 3, 100))
        _, taker, maker = told(cm.PlaceOrder(2, name, name + "t", BUY, 1, 100))
        assert {one.symbol for one in (new, taker, maker)} == {name}
        assert [one.cl_ord_id for one in (new, taker, maker)] == [name, name + "t", name]
        (refused,) = told(cm.PlaceOrder(2, name + "?", name, BUY, 1, 100))
        assert (refused.symbol, refused.cl_ord_id, refused.price, refused.exec_type) == (name + "?", name, None, "Rejected")


@pytest.mark.parametrize("tick_size", ["0.00000001", "0.05", "0.1", "1", "2500000", "10000000000000"])
def test_prices_from_the_smallest_to_the_largest_tick_are_the_nearest_float(tick_size: str) -> None:
    """In orders, stops, trades and averages, with and without an exponent."""

    def exact(ticks: int) -> float:
        return float(ticks * Fraction(tick_size))

    desk = Desk(tick_size=tick_size, taker_fee_ppm=1)
    desk.do(cm.CreateStore(""))
    for price in (99, 101, 103):
        desk.place(1, SELL, 1, price)
    desk.place(2, BUY, 9, 107, stop_ticks=105)
    (stop,) = executions_of(desk.exchange.message)
    assert (stop.stop_px, stop.price) == (exact(105), exact(107))
    desk.place(3, BUY, 3, 103)
    new, *traded = executions_of(desk.exchange.message)
    assert (new.price, new.avg_px, new.last_px) == (exact(103), 0.0, 0.0)
    assert [one.last_px for one in traded[::2]] == [exact(99), exact(101), exact(103)]
    assert [one.avg_px for one in traded[::2]] == [exact(99), exact(100), exact(101)]
