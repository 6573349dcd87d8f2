"""The history of random lives against the state that lived them: every order closed as it was, every fill."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core import events as ev
from engine.core.state import Order, State
from engine.gateway.history import History, Question
from tests.engine.lives import journaled, life, records


@pytest.mark.parametrize("seed", [3, 4])
async def test_the_past_is_what_it_was(tmp_path: Path, seed: int) -> None:
    """Quantities, prices, reasons of each closed order; as many fills as trades have sides."""
    journaled(tmp_path, life(seed, 500))
    state, orders, closed, sides = State(), dict[int, Order](), dict[int, tuple[int, int, str]](), 0
    for record in records(tmp_path):
        for event in ev.decode(record.payload):
            state.apply(event)
            orders |= state.orders
            if isinstance(event, ev.Traded):
                sides += 2
            for order_id in orders.keys() - state.orders.keys() - closed.keys():
                reason = str(event.reason) if isinstance(event, ev.OrderCanceled) else ""
                closed[order_id] = orders[order_id].size_lots, orders[order_id].filled_lots, reason
    history = History(tmp_path, lambda: 500)
    found: dict[int, tuple[int, int, str]] = {}
    fills = 0
    for account in range(8):
        for past in await history.orders(Question(account), 10_000):
            found[past.order.order_id] = past.order.size_lots, past.order.filled_lots, str(past.reason or "")
        fills += len(await history.fills(Question(account), 10_000))
    assert found == closed
    assert fills == sides
