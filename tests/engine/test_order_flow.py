"""The seeded order flow: repeatable, in the announced shares, and accepted by the real exchange."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.core.commands import BUY, SELL
from engine.core.exchange import Exchange
from engine.stores.message_builder import MessageBuilder
from tests.engine import order_flow as bm

REJECTED = (ev.OrderRejected, ev.CancelRejected, ev.CommandRejected)
COUNT = 20_000


def kind(command: cm.Command) -> str:
    if isinstance(command, cm.PlaceOrder):
        return "take" if command.account > bm.MAKERS else "place"
    return type(command).__name__


def test_the_same_seed_gives_the_same_commands() -> None:
    """A stream depends on its seed and on nothing else; another seed gives another one."""
    assert list(bm.commands(7, 2_000)) == list(bm.commands(7, 2_000)) == list(islice(bm.commands(7, 5_000), 2_000))
    assert list(bm.commands(7, 2_000)) != list(bm.commands(8, 2_000))


@pytest.mark.parametrize("count", [0, 1, 102, 103, 1_000])
def test_a_stream_has_as_many_commands_as_asked_for(count: int) -> None:
    """Also when that ends within the prologue."""
    assert len(list(bm.commands(1, count))) == count


@pytest.mark.parametrize("seed", range(3))
def test_the_exchange_does_what_it_is_asked(seed: int) -> None:
    """The stream knows the book: next to nothing is refused, there are trades, and orders stay bounded."""
    exchange, rejected, trades, most = Exchange(MessageBuilder), 0, 0, 0
    for index, command in enumerate(bm.commands(seed, COUNT), 1):
        events = exchange.decide(index, index * 1_000_000, command)
        rejected += sum(isinstance(event, REJECTED) for event in events)
        trades += sum(isinstance(event, ev.Traded) for event in events)
        most = max(most, len(exchange.state.orders))
    exchange.state.ledger.audit()
    assert rejected == 0
    assert trades > COUNT * 0.1
    assert most <= 2 * bm.OPEN_MAX
    assert sorted(exchange.state.markets) == ["BTC-PERP", "ETH-PERP"]
    for symbol, market in exchange.state.markets.items():
        mark = exchange.state.ledger.contracts[symbol].mark_ticks
        for side in (BUY, SELL):
            assert len(list(market.book.levels(side))) > 20
            assert abs((market.book.best(side) or 0) - mark) < 300


def test_the_shares_are_the_announced_ones() -> None:
    """45 % place, 40 % cancel, 5 % amend, 10 % take."""
    counts = Counter(map(kind, islice(bm.commands(5, COUNT), 1_000, None)))
    shares = {name: count / counts.total() for name, count in counts.items()}
    expected = {"place": 0.45, "CancelOrder": 0.4, "AmendOrder": 0.05, "take": 0.1}
    assert {name: share for name, share in shares.items() if name in expected} == pytest.approx(expected, abs=0.02)
    assert counts["SetMark"] > 30


def test_streams_of_two_seeds_share_no_client_id() -> None:
    """So that one can follow the other on one exchange."""
    names = [{c.cl_ord_id for c in bm.commands(seed, 2_000) if isinstance(c, cm.PlaceOrder)} for seed in (1, 2)]
    assert not names[0] & names[1]
