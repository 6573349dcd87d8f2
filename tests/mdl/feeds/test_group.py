"""Several feeds at once: what the group says of itself, and a listener that follows a simulator and an exchange."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from mdl.feeds.feed import Feed, FeedRefused, Frame, State
from mdl.feeds.group import FeedGroup
from mdq.broker_memory import hub
from mdq.connect import open_broker
from tests.mdl.exchange import Exchange
from tests.mdl.rig import Processor, Start, call
from tests.waiting import until


class Source:
    """A feed that does as it is told."""

    lossless = patient = False

    def __init__(
        self,
        name: str,
        state: State = "live",
        reason: str = "",
        frames: int = 0,
        error: Exception | None = None,
        ailing: str = "",
    ) -> None:
        self.name, self.state, self.reason, self.ailing = name, state, reason, ailing
        self.market, self.subscriptions = "stocks", ("*",)
        self.reconnects, self.malformed, self.dropped_frames = 1, 2, 3
        self.closed = False
        self._frames, self._error = frames, error
        self._end = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[Frame]:
        try:
            for number in range(self._frames):
                yield Frame(f"{self.name} {number}", number)
                await asyncio.sleep(0)
            if self._error is not None:
                raise self._error
            await self._end.wait()
        finally:
            self.closed = True

    async def close(self) -> None:
        self._end.set()


async def test_a_group_of_one_is_that_one() -> None:
    """Nothing is added to what a single feed says."""
    group = FeedGroup([Source("massive", "connecting", "no route")])
    assert (group.name, group.state, group.reason, group.ailing) == ("massive", "connecting", "no route", [])
    assert (group.reconnects, group.malformed, group.dropped_frames) == (1, 2, 3)


@pytest.mark.parametrize(
    ("states", "state", "ailing"),
    [
        (("live", "live"), "live", 0),
        (("live", "connecting"), "live", 1),
        (("refused", "live"), "live", 1),
        (("ended", "live"), "live", 0),
        (("ended", "connecting"), "connecting", 0),
        (("refused", "ended"), "refused", 0),
        (("ended", "ended"), "ended", 0),
    ],
)
async def test_one_live_part_makes_the_group_live(states: tuple[State, State], state: State, ailing: int) -> None:
    """And those that are not are named."""
    group = FeedGroup([Source(f"part{n}", s, "" if s == "live" else f"because {n}") for n, s in enumerate(states)])
    assert (group.name, group.state, len(group.ailing)) == ("part0+part1", state, ailing)
    assert (group.reconnects, group.malformed, group.dropped_frames) == (2, 4, 6)
    for number, one in enumerate(states):
        assert (f"part{number} {one}: because {number}" in group.reason) == (one != "live")


async def test_a_live_part_without_some_of_its_data_is_named() -> None:
    """The group stays live, and says what is missing."""
    for others in ([], [Source("b")]):
        group = FeedGroup([Source("a", "live", "Q.* is not authorized", ailing="Q.* is not authorized"), *others])
        assert (group.state, group.ailing) == ("live", ["feed a: Q.* is not authorized"])
        assert "Q.* is not authorized" in group.reason


async def test_parts_run_at_once_and_end_by_themselves() -> None:
    """The frames of each are in order; the group ends with the last one."""
    parts = [Source("a", frames=50), Source("b", frames=30)]
    seen: list[str] = []

    async def receive(feed: Feed) -> None:
        async for frame in feed:
            seen.append(str(frame.data))

    running = asyncio.create_task(FeedGroup(parts).run(receive))
    await until(lambda: len(seen) == 80)
    assert seen[:4] == ["a 0", "b 0", "a 1", "b 1"]
    for name, count in (("a", 50), ("b", 30)):
        assert [frame for frame in seen if frame[0] == name] == [f"{name} {n}" for n in range(count)]
    await parts[0].close()
    await until(lambda: parts[0].closed)
    assert not running.done()
    await parts[1].close()
    await running


async def test_a_refused_part_does_not_stop_the_others() -> None:
    """The refusal is told when nothing else is left; any other error ends all at once."""
    parts = [Source("a", error=FeedRefused("no key")), Source("b")]

    async def receive(feed: Feed) -> None:
        async for _ in feed:
            pass

    running = asyncio.create_task(FeedGroup(parts).run(receive))
    await until(lambda: parts[0].closed)
    assert not running.done()
    await parts[1].close()
    with pytest.raises(FeedRefused, match="no key"):
        await running
    broken = [Source("a", error=ZeroDivisionError()), Source("b")]
    with pytest.raises(ZeroDivisionError):
        await FeedGroup(broken).run(receive)
    assert broken[1].closed


async def test_a_listener_follows_both_and_says_which_one_is_away(start: Start, name: str) -> None:
    """The exchange may go and come back: the simulator goes on, readiness names the part, all its events are published."""
    exchange = Exchange()
    exchange.list("BTC-PERP")
    await exchange.start()
    listener = await start(f"memory://{name}", feed="simulator+engine", rate=200, engine_url=exchange.url)
    await until(lambda: exchange.joins and not listener.unready())
    sent = 0
    for sent in range(1, 11):
        exchange.send(("BTC-PERP", "Buy", 100.0, sent), trades=("BTC-PERP",))
    await until(lambda: exchange.purges and exchange.purges[-1] == sent)
    source = (await call(listener, "GET", "/feed")).json()["source"]
    assert source["engine"] == {"url": exchange.url, "store": "mdl", "depth": 20}
    assert source["simulator"]["rate"] == 200
    await exchange.stop()
    await until(lambda: any(reason.startswith("feed engine connecting: ") for reason in listener.unready()))
    assert listener.facts()["state"] == "live"
    assert "engine connecting" in listener.facts()["reason"]
    received = listener.facts()["received_events"]
    await until(lambda: listener.facts()["received_events"] > received + 50)
    exchange.send(trades=("BTC-PERP",))
    await exchange.start()
    await until(lambda: exchange.purges[-1] == sent + 1, 10)
    assert listener.unready() == []
    assert listener.facts()["feed_dropped_frames"] == 0
    answer = await call(listener, "POST", "/feed", {"feed": "engine"})
    assert answer.json()["source"]["store"] == "mdl"
    exchange.send(trades=("BTC-PERP",))
    await until(lambda: exchange.purges[-1] == sent + 2)
    await exchange.stop()


async def test_what_the_exchange_keeps_is_not_taken_while_the_broker_is_away(start: Start, name: str) -> None:
    """However long that lasts, its prints are only late: not one is lost, doubled or out of order."""
    exchange, broker = Exchange(), open_broker(f"memory://{name}", "processor")
    exchange.list("BTC-PERP")
    await exchange.start()
    await broker.connect()
    processor = Processor(broker)
    listener = await start(f"memory://{name}", feed="engine", engine_url=exchange.url)
    await processor.start()
    await until(lambda: not listener.unready())
    exchange.send(trades=("BTC-PERP",))
    await until(lambda: exchange.purges == [1])
    hub(name).stop()
    await until(lambda: not listener.broker.ready)
    for _ in range(30):
        exchange.send(trades=("BTC-PERP",))
        await asyncio.sleep(0.01)  # a market does not pause for our broker
    assert exchange.purges == [1]
    assert listener.facts()["received_events"] < 10, "one frame at the most is under way"
    hub(name).start()
    await processor.die()
    await until(lambda: exchange.purges[-1] == 31, 10)
    await broker.connect()
    await processor.start()
    await until(lambda: processor.count("trades") >= 31)
    trades = [
        json.loads(event)["i"] for (stream, _), events in processor.events.items() if stream == "trades" for event in events
    ]
    assert trades == [str(n) for n in range(1, 32)]
    assert processor.lost == 0
    assert listener.facts()["dropped_events"] == 0
    await processor.die()
    await broker.close()
    await exchange.stop()
