"""The real exchange with bots on it, through RabbitMQ, processors, Redis and the data service to a client: every trade, once."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.market import TOKEN, ask, post
from tests.servers import free_port
from tests.stack import Stack
from tests.waiting import until
from wds.access.keys import mint_local
from wds.client import Client

pytestmark = pytest.mark.live

SYMBOL = "BTC-PERP"
PRINTS = f"trades:{SYMBOL}"
AUDIT = "audit"  # a second message store that nobody purges: what the exchange itself says happened
BOTS_RATE = 300


class Venue:
    """The exchange, its bots and the whole pipeline behind it, as processes of their own."""

    def __init__(self, running: Stack) -> None:
        self.running = running
        self.port, self.wds_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start_engine(self) -> None:
        """Start the exchange, or start it again, and wait until it takes commands."""
        folder = self.running.folder / "engine"
        self.running.start("engine", "engine serve", ENGINE_PORT=self.port, ENGINE_DIR=folder, ENGINE_API_TOKEN=TOKEN)
        self.running.wait("the exchange", self.answers)

    def answers(self) -> bool:
        try:
            ask(f"{self.url}/Instrument")
        except OSError:
            return False
        return True

    def start_listener(self) -> None:
        """Start the listener and wait until it follows the exchange."""
        self.running.start("mdl", "mdl", MDL_FEED="engine", MDL_ENGINE_URL=self.url, MDL_ENGINE_TOKEN=TOKEN)
        self.running.wait("the listener", lambda: self.ready(self.running.ports["mdl"]))

    def ready(self, port: int) -> bool:
        try:
            return bool(ask(f"http://127.0.0.1:{port}/readyz")["ready"])
        except OSError:
            return False

    def start(self) -> None:
        """Start everything but the bots."""
        self.start_engine()
        urllib.request.urlopen(
            urllib.request.Request(
                f"{self.url}/MessageStore?storeId={AUDIT}", method="PUT", headers={"Authorization": f"Bearer {TOKEN}"}
            ),
            timeout=5,
        ).close()
        self.running.start("mdp0", "mdp", MDP_WORKER="w0")
        self.running.wait("partitions owned", lambda: len(self.running.owners()) == 8)
        self.start_listener()
        self.running.start("wds", "wds serve", WDS_PORT=self.wds_port)
        self.running.wait("the data service", lambda: self.ready(self.running.ports["wds"]))

    def start_bots(self) -> None:
        """Have bots trade."""
        self.running.start(
            "bots", "engine bots", ENGINE_URL=self.url, BOTS_API_TOKEN=TOKEN, BOTS_RATE=BOTS_RATE, BOTS_SEED=7, BOTS_ADMIN_PORT=0
        )

    def listener(self) -> dict[str, Any]:
        """Return what the listener says of itself."""
        (found,) = ask(f"http://127.0.0.1:{self.running.ports['mdl']}/feed")["sources"].values()
        return found

    def stored(self, store: str) -> dict[str, Any]:
        """Return what a message store holds."""
        return next(view for view in ask(f"{self.url}/MessageStore/") if view["storeId"] == store)

    def mark(self) -> float:
        """Return the mark price of `SYMBOL`."""
        return float(ask(f"{self.url}/Instrument?symbol={SYMBOL}")[0]["markPrice"])

    def order(self, side: str, price: float, lots: int) -> None:
        """Enter an order of an account of ours; it rests."""
        post(f"{self.url}/Account/7/Deposit", {"amount": 10**12})
        body = {"account": 7, "symbol": SYMBOL, "clOrdID": f"ours-{lots}", "side": side, "orderQty": lots, "price": price}
        assert post(f"{self.url}/Order", body)["ordStatus"] == "New"

    def trades(self) -> list[tuple[str, float, float]]:
        """Return (id, price, size) of every trade in `SYMBOL`, as the exchange's own executions have it."""
        last, found = self.stored(AUDIT)["lastItemIndex"], {}
        with connect(
            f"ws://127.0.0.1:{self.port}/joined?storeId={AUDIT}",
            max_size=None,
            compression=None,
            additional_headers={"Authorization": f"Bearer {TOKEN}"},
        ) as socket:
            while (message := json.loads(socket.recv(timeout=10)))["messageIndex"] <= last:
                for execution in (execution for group in message["executions"] for execution in group):
                    if execution["execType"] == "Trade" and execution["symbol"] == SYMBOL:
                        size = execution["lastQty"] / 1000  # a lot of BTC-PERP is 0.001
                        found[execution["trdMatchID"]] = (execution["trdMatchID"], execution["lastPx"], size)
                if message["messageIndex"] == last:
                    break
        return list(found.values())


class Prints:
    """One client of the data service that writes down every print it is given."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen: list[tuple[str, float, float]] = []
        self.kinds: list[str] = []

    async def run(self) -> None:
        """Collect until cancelled."""
        async for push in self.client:
            if push.frame["ch"] == PRINTS:
                self.kinds.append(push.frame["t"])
                data = push.frame.get("data")
                for one in data if isinstance(data, list) else [data] if data else []:
                    self.seen.append((one["id"], one["price"], one["size"]))

    @property
    def ids(self) -> list[int]:
        return [int(one[0]) for one in self.seen]

    async def more(self, count: int = 60) -> None:
        """Wait for more prints."""
        wanted = len(self.seen) + count
        await until(lambda: len(self.seen) >= wanted, 60, f"{count} more prints")


@pytest.fixture
def venue(running: Stack) -> Venue:
    """A venue that is not started yet."""
    return Venue(running)


@asynccontextmanager
async def watched(venue: Venue) -> AsyncIterator[Prints]:
    """Give a client that follows the prints from the first trade on."""
    async with Client(f"ws://127.0.0.1:{venue.wds_port}", mint_local(venue.running.folder)) as client:
        prints = Prints(client)
        collecting = asyncio.create_task(prints.run())
        await client.subscribe(PRINTS, hz="raw")
        await asyncio.to_thread(venue.start_bots)
        await prints.more()
        yield prints
        collecting.cancel()


async def quiet(venue: Venue, prints: Prints) -> list[tuple[str, float, float]]:
    """Stop the bots; return all trades of the exchange when the client has been given the last one."""
    await asyncio.to_thread(venue.running.stop, "bots")
    trades = await asyncio.to_thread(venue.trades)
    last = trades[-1][0]
    await until(lambda: any(one[0] == last for one in prints.seen), 30, "the last print")
    return trades


async def test_every_trade_reaches_a_client_once_over_restarts_of_exchange_and_listener(venue: Venue) -> None:
    """The exchange is killed, the listener stopped and started while bots trade: no print is lost, doubled or out of order."""
    await asyncio.to_thread(venue.start)
    async with watched(venue) as prints:
        venue.running.stop("engine", signal.SIGKILL)
        await asyncio.to_thread(venue.start_engine)
        await prints.more()
        assert await asyncio.to_thread(venue.running.stop, "mdl") == 0
        stored = partial(asyncio.to_thread, venue.stored, "mdl")
        await until(lambda: over(stored, "itemCount", 300), 30, "messages that wait")
        await asyncio.to_thread(venue.start_listener)
        await prints.more()
        trades = await quiet(venue, prints)
        assert prints.seen == trades
        assert "lost" not in prints.kinds
        facts = await asyncio.to_thread(venue.listener)
        assert (facts["feed_dropped_frames"], facts["malformed"], facts["dropped_events"]) == (0, 0, 0)
        await until(lambda: asyncio.to_thread(lambda: venue.stored("mdl")["itemCount"] == 0), 10, "the store to be purged")
        await same_book(venue, prints.client)


async def same_book(venue: Venue, client: Client) -> None:
    """With orders that rest, the quote and the ladder that clients see are the exchange's book."""
    mark = await asyncio.to_thread(venue.mark)
    for number in range(1, 7):
        side, away = ("Sell", 5 * number) if number % 2 else ("Buy", -5 * number)
        await asyncio.to_thread(venue.order, side, mark + away, number)
    book = await asyncio.to_thread(ask, f"{venue.url}/OrderBook?symbol={SYMBOL}&depth=20")
    levels = {side: [[level["price"], level["qty"] / 1000] for level in book[side]] for side in ("bids", "asks")}
    best = [levels["bids"][0], levels["asks"][0]]

    async def agree() -> bool:
        quote, ladder = (snap.get("data") or {} for snap in await client.get(f"quote:{SYMBOL}", f"book:{SYMBOL}"))
        top = [[quote.get("bid"), quote.get("bid_size")], [quote.get("ask"), quote.get("ask_size")]]
        return top == best and {side: ladder.get(side) for side in levels} == levels

    await until(agree, 10, f"quote and book {levels}")


async def test_a_killed_listener_loses_no_trade(venue: Venue) -> None:
    """Its successor repeats at most what was taken in the last moment, in order; everything else is printed once."""
    await asyncio.to_thread(venue.start)
    async with watched(venue) as prints:
        venue.running.stop("mdl", signal.SIGKILL)
        at = len(prints.seen)
        await asyncio.to_thread(venue.start_listener)
        await prints.more()
        trades = await quiet(venue, prints)
        assert list(dict.fromkeys(prints.seen)) == trades
        again = len(prints.seen) - len(trades)
        assert again < BOTS_RATE, "less than a second's commands is repeated"
        falls = [n for n in range(1, len(prints.ids)) if prints.ids[n] <= prints.ids[n - 1]]
        assert len(falls) <= 1, "what is repeated is repeated in one piece"
        assert all(n >= at - BOTS_RATE for n in falls)


async def test_the_prints_of_a_broker_outage_are_only_late(venue: Venue) -> None:
    """With RabbitMQ away for longer than its queues keep anything, all that traded meanwhile arrives afterwards, in order."""
    await asyncio.to_thread(venue.start)
    async with watched(venue) as prints:
        await asyncio.to_thread(venue.running.rabbitmq.stop)
        await until(lambda: asyncio.to_thread(lambda: not venue.ready(venue.running.ports["mdl"])), 10, "the listener to notice")
        gone = int((await asyncio.to_thread(venue.trades))[-1][0])
        stored = partial(asyncio.to_thread, venue.stored, "mdl")
        await until(lambda: over(stored, "oldestItemAgeMillis", 7_000), 30, "messages older than any queue keeps them")
        back = int((await asyncio.to_thread(venue.trades))[-1][0])
        await asyncio.to_thread(venue.running.rabbitmq.start)
        trades = await quiet(venue, prints)
        assert back - gone > 20
        assert [one for one in prints.seen if int(one[0]) > gone] == [one for one in trades if int(one[0]) > gone]
        assert prints.ids == sorted(set(prints.ids))
        missing = len(trades) - len(prints.seen)
        dropped = (await asyncio.to_thread(venue.listener))["dropped_events"] + venue.running.counts()["dropped"]
        assert missing <= dropped + venue.running.counts()["expired"], "what was under way is counted"


async def over(stored: Callable[[], Awaitable[dict[str, Any]]], what: str, value: int) -> bool:
    """Return whether a store's fact is above a value."""
    return bool((await stored())[what] > value)
