"""Checks the feed of the exchange over real sockets: positions, purges, gaps, lost connections and garbage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mdl.feeds.exchange import EVENTS_MAX, EngineFeed
from mdl.feeds.exchange_gateway import Gateway
from mdl.feeds.feed import Frame
from tests.mdl.exchange import Exchange
from tests.waiting import until

BTC = "BTC-PERP"
Follow = Callable[..., "Tap"]


class Tap:
    """Collects what a feed yields; `hold` keeps it from asking for the next frame, as a listener that has not taken the last."""

    def __init__(self, feed: EngineFeed) -> None:
        self.feed = feed
        self.events: list[dict[str, Any]] = []
        self.largest = 0  # events in one frame
        self.hold = asyncio.Event()
        self.hold.set()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        frames: Any = aiter(self.feed)
        try:
            async for frame in frames:
                assert isinstance(frame, Frame)
                assert frame.received_ns > 0
                events = json.loads(frame.data)
                self.events += events
                self.largest = max(self.largest, len(events))
                await self.hold.wait()
        finally:
            await frames.aclose()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["ev"] == kind]

    @property
    def trades(self) -> list[str]:
        return [event["i"] for event in self.of("T")]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    """An exchange with one contract."""
    made = Exchange()
    made.list(BTC)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def follow(exchange: Exchange) -> AsyncIterator[Follow]:
    """Makes a tapped feed of the exchange."""
    taps: list[Tap] = []

    def make(token: str = "") -> Tap:
        taps.append(Tap(EngineFeed(Gateway(exchange.url, token), "mdl", 20, dice=lambda: 0.05)))
        return taps[-1]

    yield make
    for one in taps:
        await one.stop()


async def live(tap: Tap) -> None:
    await until(lambda: tap.feed.state == "live")


async def test_what_happens_is_told_and_given_back(exchange: Exchange, follow: Follow) -> None:
    """Trade, top and depth with the exchange's time; the token is shown; the store is purged of what was taken."""
    exchange.send((BTC, "Buy", 100.0, 5))
    tap = follow("secret")
    await until(lambda: tap.of("Q"))
    assert tap.of("Q")[0]["bs"] == 0.005
    last = exchange.send((BTC, "Buy", 100.0, 3), (BTC, "Sell", 101.0, 7), trades=(BTC,))
    await until(lambda: tap.of("T") and tap.of("L2") and tap.of("L2")[-1]["a"])
    assert tap.of("T") == [{"ev": "T", "sym": BTC, "i": "1", "x": 0, "p": 100.5, "s": 0.002, "t": 1_763_691_409_000 + last}]
    assert (tap.of("Q")[-1]["bs"], tap.of("Q")[-1]["ap"]) == (0.003, 101.0)
    assert tap.of("L2")[-1] == {
        "ev": "L2",
        "sym": BTC,
        "b": [[100.0, 0.003]],
        "a": [[101.0, 0.007]],
        "t": 1_763_691_409_000 + last,
    }
    await until(lambda: last in exchange.purges)
    assert exchange.tokens == {"Bearer secret"}
    assert (tap.feed.state, tap.feed.reconnects, tap.feed.malformed, tap.feed.dropped_frames) == ("live", 0, 0, 0)


async def test_nothing_is_given_back_before_it_is_taken(exchange: Exchange, follow: Follow) -> None:
    """While the listener has not come back for more, the store keeps the message; then it goes."""
    tap = follow()
    await live(tap)
    tap.hold.clear()
    first = exchange.send(trades=(BTC,))
    await until(lambda: tap.trades == ["1"])
    assert exchange.purges == []
    await asyncio.sleep(0.5)  # five times the pause between purges: none may come
    assert exchange.purges == []
    tap.hold.set()
    await until(lambda: exchange.purges == [first])


async def test_purges_are_few(exchange: Exchange, follow: Follow) -> None:
    """Many messages are given back at once, and an idle exchange is left alone."""
    tap = follow()
    await live(tap)
    for _ in range(500):
        last = exchange.send(trades=(BTC,))
        await asyncio.sleep(0)
    await until(lambda: last in exchange.purges)
    count = len(exchange.purges)
    assert count < 50
    await asyncio.sleep(0.3)  # an idle while: nothing new, nothing to purge
    assert len(exchange.purges) == count
    assert exchange.purges == sorted(exchange.purges)


async def test_a_cut_connection_is_resumed_where_it_was(exchange: Exchange, follow: Follow) -> None:
    """No trade is lost and none doubled, whatever happens while we are away; the books are right again."""
    tap = follow()
    await live(tap)
    for _ in range(3):
        exchange.send(trades=(BTC,))
        await until(lambda: len(tap.trades) == exchange.trades)
        await exchange.cut()
        last = exchange.send((BTC, "Buy", 90.0 + exchange.trades, 1), trades=(BTC,))
        await until(lambda: len(tap.trades) == exchange.trades)
    assert tap.trades == [str(n) for n in range(1, 7)]
    assert exchange.joins[0] is None
    assert all(exchange.joins[1:])
    assert tap.feed.reconnects >= 3
    assert tap.feed.dropped_frames == 0
    await until(lambda: last in exchange.purges)
    await until(lambda: tap.of("L2")[-1]["b"] == [[95.0, 0.001], [93.0, 0.001], [91.0, 0.001]])


async def test_an_exchange_that_is_away_is_asked_again(exchange: Exchange, follow: Follow) -> None:
    """The reason is said; a busy one and an absent one alike."""
    exchange.refuses = 2
    tap = follow()
    await until(lambda: "503" in tap.feed.reason and "EngineBusy" in tap.feed.reason)
    await live(tap)
    await exchange.stop()
    await until(lambda: "cannot be reached" in tap.feed.reason)
    assert tap.feed.state == "connecting"
    await exchange.start()
    await live(tap)
    exchange.send(trades=(BTC,))
    await until(lambda: tap.trades == ["1"])


async def test_a_stop_in_order_gives_back_what_was_taken(exchange: Exchange, follow: Follow) -> None:
    """The next process takes up exactly there, however soon the stop came."""
    first = follow()
    await live(first)
    for _ in range(20):
        exchange.send(trades=(BTC,))
    await until(lambda: first.trades)
    await first.stop()
    assert exchange.purges[-1] == len(first.trades)
    second = follow()
    await until(lambda: len(first.trades) + len(second.trades) >= 20)
    exchange.send(trades=(BTC,))
    await until(lambda: "21" in second.trades)
    assert first.trades + second.trades == [str(n) for n in range(1, 22)]


async def test_a_frame_that_was_not_taken_comes_again(exchange: Exchange, follow: Follow) -> None:
    """A process that dies with a frame in its hands has lost nothing: the next one is given it."""
    first = follow()
    await live(first)
    first.hold.clear()
    exchange.send(trades=(BTC,))
    await until(lambda: first.trades == ["1"])
    await first.stop()
    assert exchange.purges == []
    second = follow()
    await until(lambda: second.trades == ["1"])


async def test_a_purge_by_somebody_else_is_a_loss_that_is_counted(exchange: Exchange, follow: Follow) -> None:
    """The gap is told in a string; we count it, read the books anew and go on with what is stored."""
    tap = follow()
    await live(tap)
    exchange.send(trades=(BTC,))
    await until(lambda: tap.trades == ["1"])
    await exchange.stop()
    exchange.send((BTC, "Buy", 99.0, 4), trades=(BTC,), told=False)
    exchange.purges.append(exchange.newest)
    exchange.send(trades=(BTC,))
    await exchange.start()
    await until(lambda: tap.trades == ["1", "3"])
    assert tap.feed.dropped_frames == 1
    await until(lambda: tap.of("L2")[-1]["b"] == [[99.0, 0.004]])
    await live(tap)
    assert exchange.joins[-2:] == [1, None]


async def test_a_farewell_without_a_gap_is_no_loss(exchange: Exchange, follow: Follow) -> None:
    """Why the exchange closes is told to the operator, and we come again where we were."""
    tap = follow()
    await live(tap)
    exchange.send(trades=(BTC,))
    await until(lambda: tap.trades == ["1"])
    exchange.say('"There are 256 consumers already."')
    await until(lambda: not exchange.unsaid)
    await exchange.cut()
    await until(lambda: tap.feed.reconnects)
    exchange.send(trades=(BTC,))
    await until(lambda: tap.trades == ["1", "2"])
    assert tap.feed.dropped_frames == 0
    assert exchange.joins[-1] == 1


async def test_a_message_that_is_missing_is_noticed(exchange: Exchange, follow: Follow) -> None:
    """Each message names the one before; a hole is counted once and the books are read anew, on the same connection."""
    tap = follow()
    await live(tap)
    exchange.send(trades=(BTC,))
    await until(lambda: tap.trades == ["1"])
    exchange.send((BTC, "Sell", 103.0, 2), trades=(BTC,), told=False)
    exchange.send(trades=(BTC,))
    await until(lambda: tap.trades == ["1", "3"])
    await until(lambda: tap.of("L2")[-1]["a"] == [[103.0, 0.002]])
    assert (tap.feed.dropped_frames, tap.feed.reconnects) == (1, 0)


async def test_an_exchange_that_begins_anew_is_another_one(exchange: Exchange, follow: Follow) -> None:
    """Its smaller indices are not taken for old ones, and it is never asked to purge by the old count."""
    tap = follow()
    await live(tap)
    for _ in range(10):
        exchange.send(trades=(BTC,))
    await until(lambda: "10" in tap.trades)
    await exchange.stop()  # most likely before the purge of what was taken
    exchange.forget()
    exchange.send((BTC, "Buy", 50.0, 1), trades=(BTC,))
    await exchange.start()
    await until(lambda: "11" in tap.trades)
    await until(lambda: tap.of("L2")[-1]["b"] == [[50.0, 0.001]])
    assert tap.feed.dropped_frames == 1
    await until(lambda: exchange.purges == [1])


@pytest.mark.parametrize("text", ["not JSON", "{}", "[1,2]", "17", '{"messageIndex":"x"}', ""])
async def test_garbage_is_counted_and_passed_over(exchange: Exchange, follow: Follow, text: str) -> None:
    """The connection lasts, the next message is followed."""
    tap = follow()
    await live(tap)
    exchange.say(text)
    exchange.send(trades=(BTC,))
    await until(lambda: tap.trades == ["1"])
    await until(lambda: tap.feed.malformed == 1)
    assert (tap.feed.reconnects, tap.feed.dropped_frames) == (0, 0)


async def test_a_message_seen_before_prints_nothing(exchange: Exchange, follow: Follow) -> None:
    """At least once is what the exchange promises; once is what we make of it."""
    tap = follow()
    await live(tap)
    exchange.send(trades=(BTC,))
    again = exchange.frames[1]
    await until(lambda: tap.trades == ["1"])
    exchange.say(again)
    exchange.send(trades=(BTC,))
    await until(lambda: tap.trades == ["1", "2"])


async def test_a_contract_that_is_listed_later_is_picked_up(exchange: Exchange, follow: Follow) -> None:
    """With its own steps, and without asking for one that the exchange does not list again and again."""
    tap = follow()
    await live(tap)
    exchange.list("ETH-PERP", "0.05", "0.01")
    exchange.send(("ETH-PERP", "Buy", 7.05, 3), trades=("ETH-PERP",))
    await until(lambda: tap.of("L2"))
    assert tap.of("T")[0]["s"] == 0.02
    assert tap.of("L2")[-1]["b"] == [[7.05, 0.03]]
    asked = len(exchange.asked)
    for _ in range(5):
        exchange.send(trades=("NOBODY-KNOWS",))
    exchange.send(trades=(BTC,))
    await until(lambda: str(exchange.trades) in tap.trades)
    assert exchange.asked[asked:] == ["/Instrument"]
    assert tap.feed.malformed == 10
    assert tap.feed.reconnects == 0


async def test_what_waited_for_long_is_printed_with_its_own_time(exchange: Exchange, follow: Follow) -> None:
    """A store full of old messages: all of them, in order; the book is today's from the start."""
    for number in range(3 * EVENTS_MAX):
        exchange.send((BTC, "Buy", 100.0, 1 + number), trades=(BTC,))
    tap = follow()
    await until(lambda: len(tap.trades) == 3 * EVENTS_MAX, 20)
    assert tap.trades == [str(n) for n in range(1, 3 * EVENTS_MAX + 1)]
    assert tap.of("T")[0]["t"] == 1_763_691_409_001
    assert {event["bs"] for event in tap.of("Q")} == {3 * EVENTS_MAX / 1000}


async def test_a_listener_that_is_slow_slows_the_exchange_only(exchange: Exchange, follow: Follow) -> None:
    """What we hold is bounded; the store keeps the rest, and all of it arrives in the end."""
    tap = follow()
    await live(tap)
    tap.hold.clear()
    for _ in range(3 * EVENTS_MAX):
        exchange.send(trades=(BTC,))
    await until(lambda: len(tap.feed._events) >= EVENTS_MAX, 20)
    tap.hold.set()
    await until(lambda: len(tap.trades) == 3 * EVENTS_MAX, 20)
    assert tap.largest <= EVENTS_MAX + 2
    assert tap.trades == [str(n) for n in range(1, 3 * EVENTS_MAX + 1)]


async def test_a_contract_without_usable_steps_is_left_out(exchange: Exchange, follow: Follow) -> None:
    """The others go on."""
    exchange.list("BROKEN", tick="zero")
    tap = follow()
    await live(tap)
    exchange.send(trades=(BTC,))
    await until(lambda: tap.trades == ["1"])
    assert tap.feed.malformed == 1


async def test_an_answer_that_makes_no_sense_is_a_reason_to_try_again(exchange: Exchange, follow: Follow) -> None:
    """Another service behind the URL: said, and never fatal."""
    exchange.instruments["?"] = {"name": "not a contract"}
    tap = follow()
    await until(lambda: "unexpected answer" in tap.feed.reason and tap.feed.reconnects > 1)
    del exchange.instruments["?"]
    await live(tap)
