"""Real bots on the real engine: a market within seconds, bounded orders through crashes of either side, nothing left behind."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from engine.bots.traders import LEVELS, ORDERS_MAX
from engine.core import events as ev
from engine.journal.reader import read
from tests.live.test_oms import START_S_MAX, Floor, floor_in
from tests.scale import many
from tests.waiting import until

pytestmark = pytest.mark.live

ACCOUNTS = range(1001, 1013)


async def open_orders(floor: Floor) -> list[int]:
    """Return how many orders each bot has open, as the exchange says."""
    return [len((await floor.call("GET", f"/Account/{account}"))["openOrders"]) for account in ACCOUNTS]


async def deep(floor: Floor, symbol: str) -> bool:
    book = await floor.call("GET", f"/OrderBook?symbol={symbol}&depth={LEVELS}")
    return len(book["bids"]) == len(book["asks"]) == LEVELS


async def begun(floor: Floor) -> bool:
    found = await floor.call("GET", "/Instrument")
    return len(found) == 2


def events_of(floor: Floor) -> list[ev.AnyEvent]:
    return [event for record in read(floor.folder / "engine" / "journal") for event in ev.decode(record.payload)]


async def newest(floor: Floor) -> int:
    """Return the engine's last command index."""
    return int((await floor.call("GET", "/OrderBook?symbol=BTC-PERP&depth=1"))["messageIndex"])


async def test_a_market_stands_and_is_taken_along(tmp_path: Path) -> None:
    """At 200 a second both books have twenty levels a side; after SIGTERM the books are empty and the exit code is 0."""
    async with floor_in(tmp_path) as floor:
        floor.start("bots", BOTS_RATE=200)
        await until(lambda: begun(floor), START_S_MAX)
        for symbol in ("BTC-PERP", "ETH-PERP"):
            await until(lambda s=symbol: deep(floor, s), START_S_MAX, f"{LEVELS} levels of {symbol}")  # type: ignore[misc]
        assert max(await open_orders(floor)) <= ORDERS_MAX
        assert await floor.end("bots") == 0, floor.log("bots")[-2000:]
        assert await open_orders(floor) == [0] * len(ACCOUNTS)
        assert floor.engine.end(signal.SIGTERM) == 0
        kinds = Counter(type(event).__name__ for event in events_of(floor))
        refused = kinds["OrderRejected"] + kinds["CancelRejected"] + kinds["CommandRejected"]
        assert refused < 0.05 * (kinds["OrderAccepted"] + kinds["OrderCanceled"] + kinds["OrderAmended"])
        assert kinds["Traded"] > 10
        assert "PositionMoved" not in kinds, "a bot was liquidated"


async def test_killed_bots_leave_their_orders_to_the_timer(tmp_path: Path) -> None:
    """SIGKILL of the bots: the exchange cancels what they left when their timers run out; the next run starts clean."""
    async with floor_in(tmp_path) as floor:
        for _ in range(many(2, 1)):
            floor.start("bots", BOTS_RATE=200, BOTS_DEAD_MS=1_500)
            await until(lambda: begun(floor), START_S_MAX)

            async def quoting() -> bool:
                return sum(await open_orders(floor)) > 100

            await until(quoting, START_S_MAX)
            assert await floor.end("bots", signal.SIGKILL) == -signal.SIGKILL

            async def gone() -> bool:
                return not any(await open_orders(floor))

            await until(gone, 10, "the timers' cancels")
        assert floor.engine.end(signal.SIGTERM) == 0
        cancels = Counter(event.reason for event in events_of(floor) if isinstance(event, ev.OrderCanceled))
        assert cancels["CancelAllAfter"] > 50


async def test_bots_trade_on_through_crashes_of_the_engine(tmp_path: Path) -> None:
    """Five SIGKILLs of the engine (two in the usual run): the same bots go on, never above their bound, with client ids of their own."""
    kills = many(5)
    async with floor_in(tmp_path) as floor:
        bots = floor.start("bots", BOTS_RATE=200)
        await until(lambda: begun(floor), START_S_MAX)
        for life in range(kills + 1):
            index = await newest(floor)

            async def further(index: int = index) -> bool:
                return await newest(floor) > index + 200

            await until(further, START_S_MAX, f"life {life}")
            assert max(await open_orders(floor)) <= ORDERS_MAX
            if life < kills:
                floor.engine.end(signal.SIGKILL)
                floor.engine.start()
        assert bots.poll() is None
        assert await floor.end("bots") == 0, floor.log("bots")[-2000:]
        assert await open_orders(floor) == [0] * len(ACCOUNTS)
        assert floor.engine.end(signal.SIGTERM) == 0
        names = Counter((e.order.account, e.order.cl_ord_id) for e in events_of(floor) if isinstance(e, ev.OrderAccepted))
        assert max(names.values()) == 1
        assert len(names) > 50 * kills
        for line in floor.log("bots").splitlines():
            assert json.loads(line)["level"] in ("info", "warning"), line
