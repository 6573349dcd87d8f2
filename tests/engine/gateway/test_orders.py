"""Order answers against a replay: whatever else its group did, an answer is the order right after its own command."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.access.keys import OURSELVES
from engine.core import events as ev
from engine.core.commands import CreateInstrument, Deposit, Instrument
from engine.core.state import Order, State
from engine.gateway.bodies import OrderView
from engine.gateway.order_bodies import AmendBody, PlaceBody
from engine.gateway.orders import OrderDesk
from engine.gateway.problems import Refused
from engine.gateway.views import Views
from engine.journal.reader import read
from engine.journal.sequencer import Sequencer
from engine.stores.message_builder import MessageBuilder
from engine.stores.message_log import MessageLog
from service.clock import SystemClock
from tests.engine.lives import rebuilt

X = Instrument("X", 500, -100, 500, tick_size="0.5", size_lots_max=1_000, price_ticks_max=1_000)


async def trading(folder: Path) -> tuple[Sequencer, OrderDesk]:
    """Return an exchange with one contract and three accounts."""
    state, opened = rebuilt(folder, probing=False)
    sequencer = Sequencer(state, opened, lambda: rebuilt(folder, probing=False), MessageBuilder)
    await sequencer.submit(CreateInstrument(X, 200))
    for account in (1, 2, 3):
        await sequencer.submit(Deposit(account, 10**9))
    return sequencer, OrderDesk(sequencer, Views(sequencer, MessageLog(folder), SystemClock()))


def linked(dice: random.Random, number: int, price: float, buys: bool) -> dict[str, Any]:
    """Return what makes an order one of a pair, the entry of a bracket, or a stop that trails."""
    up, down = (price + 1, price - 1) if buys else (price - 1, price + 1)
    kinds: list[dict[str, Any]] = [
        {"oco": {"clOrdID": f"p{number}", "stopPx": up}},
        {"oco": {"clOrdID": f"p{number}", "side": dice.choice(["Buy", "Sell"]), "price": down}},
        {"takeProfit": {"clOrdID": f"t{number}", "price": up}, "stopLoss": {"clOrdID": f"l{number}", "stopPx": down}},
        {"takeProfit": {"clOrdID": f"t{number}", "price": up}, "stopLoss": {"clOrdID": f"l{number}", "trailRate": 0.01}},
        {"trailAmount": dice.choice([0.5, 1, "1.5"])},
    ]
    return dice.choice(kinds)


async def ask(desk: OrderDesk, dice: random.Random, number: int) -> OrderView | None:
    """Send one random request; None when it is refused."""
    account, name = dice.randint(1, 3), f"o{dice.randrange(max(1, number))}"
    price = dice.choice([98, 98.5, 99, 99.5, 100, "100.5"])
    body: dict[str, Any] = {"account": account, "clOrdID": name}
    try:
        match dice.choice(["place", "place", "place", "stop", "amend", "amend", "cancel"]):
            case "amend":
                body |= {"orderQty": dice.randint(1, 12)} if dice.random() < 0.6 else {"price": price}
                return await desk.amend(OURSELVES, msgspec.convert(body, AmendBody))
            case "cancel":
                return await desk.cancel(OURSELVES, account, name)
            case kind:
                body |= {"symbol": "X", "clOrdID": f"o{number}", "side": dice.choice(["Buy", "Sell"]), "price": price}
                body |= {"orderQty": dice.randint(1, 12), "selfTradePrevention": dice.choice(["CancelNewest", "CancelOldest"])}
                if kind == "stop":
                    body["stopPx"] = dice.choice([98, 99, 100])
                if dice.random() < 0.2:
                    body |= linked(dice, number, float(price), body["side"] == "Buy")
                elif dice.random() < 0.2:
                    body["timeInForce"] = dice.choice(["ImmediateOrCancel", "FillOrKill"])
                return await desk.place(OURSELVES, msgspec.convert(body, PlaceBody))
    except Refused:
        return None


@pytest.mark.parametrize("seed", range(4))
async def test_answers_are_what_a_replay_up_to_their_index_shows(tmp_path: Path, seed: int) -> None:
    """Bursts of requests form groups; every answer is compared with the state rebuilt from the journal up to its index."""
    dice = random.Random(seed)
    sequencer, desk = await trading(tmp_path)
    answers: dict[int, OrderView] = {}
    number = 0
    for _ in range(25):
        burst = dice.randint(1, 16)
        found = await asyncio.gather(*(ask(desk, dice, number + at) for at in range(burst)))
        number += burst
        for view in filter(None, found):
            assert view.message_index not in answers
            answers[view.message_index] = view
    await sequencer.close()
    assert len(answers) > 60
    compare(tmp_path, answers)


def compare(folder: Path, answers: dict[int, OrderView]) -> None:
    """Rebuild the state record by record; at each answer's index the order must be as answered."""
    state = State()
    orders: dict[int, Order] = {}
    canceled: dict[int, str] = {}
    for record in read(folder):
        for event in ev.decode(record.payload):
            state.apply(event)
            orders |= state.orders  # a closed one stays as it was when it closed
            if isinstance(event, ev.OrderCanceled):
                canceled[event.order_id] = event.reason.value
        view = answers.pop(record.command_index, None)
        if view is None:
            continue
        order = orders[int(view.order_id)]
        reason = canceled.get(order.order_id, "")
        assert view.text == reason
        assert (view.order_qty, view.cum_qty, view.cum_cost) == (order.size_lots, order.filled_lots, order.cost_units)
        assert view.leaves_qty == (0 if reason else order.leaves_lots)
        assert view.price == (None if order.price_ticks is None else order.price_ticks / 2)
        assert view.stop_px == (None if order.stop_ticks is None else order.stop_ticks / 2)
        status = (
            "Canceled" if reason else "New" if not order.filled_lots else "PartiallyFilled" if order.leaves_lots else "Filled"
        )
        assert view.ord_status == status
        average = order.cost_units / (order.filled_lots * 500) / 2 if order.filled_lots else 0.0
        assert view.avg_px == pytest.approx(average, rel=1e-12)
    assert not answers


async def test_a_cancel_that_overtakes_the_answer_of_its_order_finds_it(tmp_path: Path) -> None:
    """Both are under way at once, the cancel second: it is not told that there is no such order."""
    sequencer, desk = await trading(tmp_path)
    for number in range(5):
        body = {"account": 1, "symbol": "X", "clOrdID": f"r{number}", "side": "Buy", "orderQty": 1, "price": 90}
        placed, gone, again = await asyncio.gather(
            desk.place(OURSELVES, msgspec.convert(body, PlaceBody)), desk.cancel(OURSELVES, 1, f"r{number}"), desk.cancel(OURSELVES, 1, f"r{number}"),
            return_exceptions=True,
        )  # fmt: skip
        assert isinstance(placed, OrderView)
        assert isinstance(gone, OrderView)
        assert isinstance(again, Refused)
        assert (gone.order_id, gone.ord_status, placed.ord_status) == (placed.order_id, "Canceled", "New")
    assert not sequencer.state.orders
    await sequencer.close()
