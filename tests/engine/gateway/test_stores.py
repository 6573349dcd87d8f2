"""Message stores over real sockets: what a consumer gets, what it is told, and how it holds trading up or lets it go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from engine.core.commands import CheckLiveness, CreateStore
from engine.gateway.stores import CONSUMERS_MAX
from service.clock import ManualClock
from tests.engine.gateway.ground import BTC, Ground, exchange
from tests.engine_process import OPERATOR
from tests.waiting import until

OPTIONS: Any = {"ping_interval": None, "proxy": None, "max_size": None, "additional_headers": OPERATOR}


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with exchange(tmp_path) as running:
        yield running


def joined(ground: Ground, query: str) -> Any:
    return websockets.connect(f"{ground.ws_url}/joined?{query}", **OPTIONS)


async def messages(socket: ClientConnection, count: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [json.loads(await socket.recv()) for _ in range(count)]


async def farewell(ground: Ground, query: str) -> tuple[str, int]:
    """Connect where there is nothing to be had; return the explanation and the close code."""
    async with joined(ground, query) as socket:
        async with asyncio.timeout(10):
            text = json.loads(await socket.recv())
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
    assert isinstance(text, str)
    assert closed.value.rcvd is not None
    return text, closed.value.rcvd.code


async def check(ground: Ground, count: int = 1) -> list[int]:
    """Send milestones; return their indices."""
    return [(await ground.ask("PUT", f"/LivenessCheck?checkId=c{n}"))["messageIndex"] for n in range(count)]


async def test_a_store_begins_when_it_is_made_and_is_made_once(ground: Ground) -> None:
    """Nothing is kept before; PUT again returns the same store; both spellings of the default store are one."""
    await check(ground, 3)
    assert await ground.ask("GET", "/MessageStore/") == []
    made = await ground.ask("PUT", "/MessageStore?storeId=oms")
    assert made == {
        "storeId": "oms", "firstItemIndex": 4, "lastItemIndex": 4, "itemCount": 0, "oldestItemAgeMillis": 0,
        "maximumUnpurgedItemAgeMillis": 21_600_000, "suspended": False, "consumers": 0,
    }  # fmt: skip
    assert await ground.ask("PUT", "/MessageStore?storeId=oms") == made
    assert (await ground.ask("PUT", "/MessageStore?storeId=%22%22"))["storeId"] == ""
    assert (await ground.ask("PUT", "/MessageStore?storeId="))["storeId"] == ""
    assert (await ground.ask("PUT", "/MessageStore"))["storeId"] == ""
    sent = await check(ground, 2)
    for path in ("/MessageStore", "/MessageStore/"):
        default, oms = await ground.ask("GET", path)
        assert (default["storeId"], oms["storeId"]) == ("", "oms")
        assert (oms["firstItemIndex"], oms["lastItemIndex"], oms["itemCount"]) == (4, sent[-1], 2)
        assert 0 <= default["oldestItemAgeMillis"] < 60_000


async def test_a_feed_goes_on_after_last_seen(ground: Ground) -> None:
    """One text message a command index, in order, with holes; without lastSeen everything, also what comes later."""
    await ground.ask("PUT", "/MessageStore?storeId=%22%22")
    await ground.market(1, 2)
    await ground.order(1, "a", "Buy", 2, 99)
    await ground.ask("GET", "/Order?account=1&clOrdID=nobody", 404)  # a question takes an index and is no message
    await ground.order(2, "b", "Sell", 2, 99)
    async with joined(ground, "storeId=%22%22") as socket:
        found = (await messages(socket, 5))[1:]  # the first is the listing
        indices = [message["messageIndex"] for message in found]
        assert indices == sorted(indices)
        assert [message["prevMessageIndex"] for message in found] == [indices[0] - 1, *indices[:-1]]
        assert indices[3] - indices[2] > 1
        (live,) = await check(ground)
        (last,) = await messages(socket, 1)
        assert last["messageIndex"] == live
        assert last["livenessChecks"] == [{"checkId": "c0", "source": "", "timestamp": last["timestamp"]}]
    for at, seen in enumerate(indices):
        async with joined(ground, f"lastSeen={seen}&storeId=") as socket:
            assert await messages(socket, 4 - at) == [*found[at + 1 :], last]
    async with joined(ground, f"storeId=&lastSeen={indices[2] + 1}") as socket:  # in a hole
        assert await messages(socket, 2) == [found[3], last]


async def test_everything_of_one_command_is_in_one_message(ground: Ground) -> None:
    """A mark that liquidates: executions, transactions and the summary under one index."""
    await ground.ask("PUT", "/Instrument", **BTC)
    for account, money in ((1, 60_000), (2, 10**9), (0, 10**9)):  # the insurance has money, too
        await ground.ask("POST", f"/Account/{account}/Deposit", amount=money)
    await ground.ask("PUT", "/MessageStore?storeId=oms")
    await ground.order(2, "maker", "Sell", 5, 100)
    await ground.order(1, "taker", "Buy", 5, 100)
    mark = await ground.ask("PUT", "/MarkPrice?symbol=BTC-PERP&price=85")
    async with joined(ground, "storeId=oms") as socket:
        _, trade, liquidation = await messages(socket, 3)
    (group,) = [group for group in trade["executions"] if group[0]["execType"] == "Trade"]
    assert {one["lastLiquidityInd"] for one in group} == {"AddedLiquidity", "RemovedLiquidity"}
    assert liquidation["messageIndex"] == mark["messageIndex"]
    assert [one["execType"] for group in liquidation["executions"] for one in group][:1] == ["Liquidation"]
    assert liquidation["liquidations"][0]["account"] == 1
    assert {one["transactType"] for one in liquidation["accountTransactions"]} >= {"RealisedPnl"}


async def test_purging_is_inclusive_and_repeatable(ground: Ground) -> None:
    """Up to the index; less than before changes nothing; the rest stays."""
    await ground.ask("PUT", "/MessageStore?storeId=oms")
    sent = await check(ground, 4)
    counts = [(await ground.ask("GET", f"/MessageStore/Purge?storeId=oms&messageIndex={n}"))["itemCount"] for n in sent]
    assert counts == list(range(1, len(sent) + 1)), "what a purge would take is told first"
    purged = await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={sent[1]}")
    assert purged["purgedIndex"] == sent[1]
    again = await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={sent[0]}")
    assert again["purgedIndex"] == sent[1]
    (store,) = await ground.ask("GET", "/MessageStore/")
    assert (store["firstItemIndex"], store["lastItemIndex"], store["itemCount"]) == (sent[1], sent[3], 2)
    async with joined(ground, "storeId=oms") as socket:
        assert [message["messageIndex"] for message in await messages(socket, 2)] == sent[2:]
    await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={sent[3]}")
    (store,) = await ground.ask("GET", "/MessageStore/")
    assert (store["firstItemIndex"], store["lastItemIndex"], store["itemCount"]) == (sent[3], sent[3], 0)
    assert store["oldestItemAgeMillis"] == 0


async def test_a_purge_at_an_index_without_a_message_is_no_gap(ground: Ground) -> None:
    """Whoever has the message before it misses nothing: between two messages, behind the last one, and over a restart's places."""
    await ground.ask("PUT", "/MessageStore?storeId=oms")
    await ground.ask("POST", "/Account/1/Deposit", amount=1)
    await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={ground.messages.message_index}")
    disarm = "/Order/CancelAllAfter?account=1&timeoutMillis=0"  # it makes an event and no message
    first = await check(ground, 2)
    silent = (await ground.ask("PUT", disarm))["messageIndex"]
    then = await check(ground, 2)
    assert first[-1] < silent < then[0]
    purged = await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={silent}")
    assert purged["purgedIndex"] == first[-1]
    async with joined(ground, f"storeId=oms&lastSeen={first[-1]}") as socket:
        assert [message["messageIndex"] for message in await messages(socket, 2)] == then
    again = await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={silent}")
    assert again["purgedIndex"] == first[-1]
    silent = (await ground.ask("PUT", disarm))["messageIndex"]
    await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={silent}")
    async with joined(ground, f"storeId=oms&lastSeen={then[-1]}") as socket:
        (last,) = await check(ground, 1)
        assert [message["messageIndex"] for message in await messages(socket, 1)] == [last]


async def test_who_cannot_be_served_is_told_why_and_closed(ground: Ground) -> None:
    """A JSON string, then a close code of its own: gap, ahead, no such store, no index."""
    await ground.ask("PUT", "/MessageStore?storeId=oms")
    sent = await check(ground, 3)
    await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={sent[1]}")
    text, code = await farewell(ground, f"storeId=oms&lastSeen={sent[0]}")
    assert code == 4410
    assert "gap" in text
    assert str(sent[1]) in text
    assert (await farewell(ground, "storeId=oms&lastSeen=0"))[1] == 4410
    assert (await farewell(ground, "storeId=oms&lastSeen=99999"))[1] == 4410
    text, code = await farewell(ground, "storeId=nobody")
    assert code == 4404
    assert "nobody" in text
    for seen in ("x", "-1", "1.5", "1" * 19, "%201"):
        assert (await farewell(ground, f"storeId=oms&lastSeen={seen}"))[1] == 4400
    async with joined(ground, f"storeId=oms&lastSeen={sent[1]}") as socket:  # the purged index itself is no gap
        assert [message["messageIndex"] for message in await messages(socket, 1)] == sent[2:]


async def test_a_consumer_without_anything_begins_with_zero_or_the_first_item(ground: Ground) -> None:
    """Whether it takes 0, firstItemIndex or the index before: from a store that nobody purged it gets everything."""
    await check(ground, 5)
    store = await ground.ask("PUT", "/MessageStore?storeId=oms")
    sent = await check(ground, 2)
    for seen in (0, store["firstItemIndex"], store["firstItemIndex"] - 1):
        async with joined(ground, f"storeId=oms&lastSeen={seen}") as socket:
            assert [message["messageIndex"] for message in await messages(socket, 2)] == sent
    assert (await farewell(ground, "storeId=oms&lastSeen=3"))[1] == 4410


async def test_two_stores_have_their_own_pace(ground: Ground) -> None:
    """One consumer purges at once, the other never; each is counted and served by itself."""
    for name in ("fast", "slow"):
        await ground.ask("PUT", f"/MessageStore?storeId={name}")
    async with joined(ground, "storeId=fast") as socket:
        for _ in range(3):
            (index,) = await check(ground)
            assert (await messages(socket, 1))[0]["messageIndex"] == index
            await ground.ask("DELETE", f"/MessageStore/Purge?storeId=fast&messageIndex={index}")
        fast, slow = await ground.ask("GET", "/MessageStore/")
        assert (fast["itemCount"], fast["consumers"], slow["itemCount"], slow["consumers"]) == (0, 1, 3, 0)
    async with joined(ground, "storeId=slow") as socket:
        assert len(await messages(socket, 3)) == 3
    assert (await farewell(ground, "storeId=fast&lastSeen=0"))[1] == 4410


async def test_stores_survive_a_restart_with_all_they_hold(tmp_path: Path) -> None:
    """Content, purged index and age limit; indices go on rising."""
    async with exchange(tmp_path) as ground:
        await ground.ask("PUT", "/MessageStore?storeId=oms")
        await ground.ask("PUT", "/MessageStore/Suspension?storeId=oms&maximumUnpurgedItemAgeMillis=3000000")
        sent = await check(ground, 5)
        await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={sent[1]}")
        before = await ground.ask("GET", "/MessageStore")
    async with exchange(tmp_path, frames_max=2) as ground:
        after = await ground.ask("GET", "/MessageStore")
        age = "oldestItemAgeMillis"
        assert [{**one, age: 0} for one in after] == [{**one, age: 0} for one in before]
        assert after[0][age] >= before[0][age]
        sent += await check(ground)
        async with joined(ground, f"storeId=oms&lastSeen={sent[1]}") as socket:
            assert [message["messageIndex"] for message in await messages(socket, 4)] == sent[2:]
        assert (await farewell(ground, f"storeId=oms&lastSeen={sent[0]}"))[1] == 4410


async def test_a_store_in_use_is_deleted_only_by_force(ground: Ground) -> None:
    """Messages or a consumer protect it; a consumer of a deleted store is told."""
    await ground.ask("PUT", "/MessageStore?storeId=oms")
    async with joined(ground, "storeId=oms") as socket:
        await until(lambda: ground.messages.readers)
        assert (await ground.ask("DELETE", "/MessageStore?storeId=oms", 409))["code"] == "StoreInUse"
        (index,) = await check(ground)
        await messages(socket, 1)
        assert (await ground.ask("DELETE", "/MessageStore?storeId=oms&force=false", 409))["code"] == "StoreInUse"
        await ground.ask("DELETE", "/MessageStore?storeId=oms&force=true")
        assert "deleted" in (await messages(socket, 1))[0]
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
    assert await ground.ask("GET", "/MessageStore/") == []
    await ground.ask("PUT", "/MessageStore?storeId=oms")
    assert (await farewell(ground, f"storeId=oms&lastSeen={index}"))[1] == 4410
    await ground.ask("DELETE", "/MessageStore?storeId=oms")


async def test_a_consumer_overtaken_by_a_purge_is_told_of_the_gap(tmp_path: Path) -> None:
    """Somebody else acknowledges what it has not had: it must not go on as if nothing had happened."""
    async with exchange(tmp_path, frames_max=10) as ground:
        await ground.ask("PUT", "/MessageStore?storeId=oms")
        padding = "x" * 60
        for _ in range(40):
            await asyncio.gather(*(ground.sequencer.submit(CheckLiveness(padding, padding)) for _ in range(250)))
        async with joined(ground, "storeId=oms") as socket:
            first = json.loads(await socket.recv())
            await until(lambda: _stalled(ground), 10)
            await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={ground.messages.message_index}")
            last = first
            while not isinstance(last, str):
                seen, last = last["messageIndex"], json.loads(await socket.recv())
            assert "gap" in last
            assert str(seen) in last


def _stalled(ground: Ground) -> bool:
    """Return whether the one consumer's socket takes no more while there are messages left."""
    (reader,) = ground.messages.readers
    before = reader.position
    return before == getattr(ground, "_before", None) or bool(setattr(ground, "_before", before))


async def test_a_slow_consumer_gets_everything_and_costs_no_memory(tmp_path: Path) -> None:
    """It reads nothing while thousands of messages come; they wait in the journal, not in the engine."""
    async with exchange(tmp_path, frames_max=100) as ground:
        await ground.ask("PUT", "/MessageStore?storeId=oms")
        text = "x" * 60
        async with joined(ground, "storeId=oms") as socket:
            for _ in range(120):
                await asyncio.gather(*(ground.sequencer.submit(CheckLiveness(text, text)) for _ in range(250)))
            (reader,) = ground.messages.readers
            assert len(ground.messages._frames) <= 100
            assert reader.position < ground.messages.message_index  # what it did not take has not been read for it either
            found = [message["messageIndex"] for message in await messages(socket, 30_000)]
    assert found == list(range(2, 30_002))


async def test_what_a_consumer_says_is_not_listened_to(ground: Ground) -> None:
    """Text, bytes and pings: the feed goes on."""
    await ground.ask("PUT", "/MessageStore?storeId=oms")
    async with joined(ground, "storeId=oms") as socket:
        for number in range(50):
            await socket.send(f"subscribe {number}")
            await socket.send(b"\x00\xff")
        await (await socket.ping())
        sent = await check(ground, 2)
        assert [message["messageIndex"] for message in await messages(socket, 2)] == sent


async def test_consumers_are_counted_and_forgotten_however_they_go(ground: Ground) -> None:
    """Closed, cut, or by the hundred."""
    await ground.ask("PUT", "/MessageStore?storeId=oms")

    async def consumers() -> int:
        return int((await ground.ask("GET", "/MessageStore"))[0]["consumers"])

    sockets = [await joined(ground, "storeId=oms") for _ in range(4)]
    await until(lambda: len(ground.messages.readers) == 4)
    assert await consumers() == 4
    await sockets[0].close()
    sockets[1].transport.abort()
    await until(lambda: len(ground.messages.readers) == 2)
    assert await consumers() == 2
    crowd = [await joined(ground, "storeId=oms") for _ in range(CONSUMERS_MAX - 2)]
    await until(lambda: len(ground.messages.readers) == CONSUMERS_MAX)
    assert (await farewell(ground, "storeId=oms"))[1] == 4429
    for socket in [*sockets[2:], *crowd]:
        socket.transport.abort()
    await until(lambda: not ground.messages.readers)


async def test_a_stopping_gateway_closes_its_consumers_in_order(tmp_path: Path) -> None:
    """1012, service restart: come again; no frame is cut in half."""
    async with exchange(tmp_path) as ground:
        await ground.ask("PUT", "/MessageStore?storeId=oms")
        async with joined(ground, "storeId=oms") as socket:
            await ground.sequencer.submit(CheckLiveness("a", ""))
            assert len(await messages(socket, 1)) == 1
            await ground.gateway.stop()
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        assert not ground.messages.readers


async def test_an_old_message_suspends_trading_until_it_is_purged(tmp_path: Path) -> None:
    """By age, automatically; cancels go on, marks wait; the operators' own suspension is lifted by nobody else."""
    clock = ManualClock(1_795_000_000_000_000_000)
    async with exchange(tmp_path, clock=clock) as ground:
        await ground.market(1, 2)
        await ground.ask("PUT", "/MessageStore?storeId=oms")
        limit = await ground.ask("PUT", "/MessageStore/Suspension?storeId=oms&maximumUnpurgedItemAgeMillis=60000")
        assert limit["maximumUnpurgedItemAgeMillis"] == 60_000
        resting = await ground.order(1, "a", "Buy", 1, 99)

        async def reasons() -> Any:
            return (await ground.ask("GET", "/ExchangeWideControls"))["reasons"]

        clock.advance(60_001_000_000)
        await until(reasons)
        assert await reasons() == ["store:oms"]
        (store,) = await ground.ask("GET", "/MessageStore")
        assert (store["suspended"], store["oldestItemAgeMillis"]) == (True, 60_001)
        body = {"account": 1, "symbol": "BTC-PERP", "clOrdID": "b", "side": "Buy", "orderQty": 1, "price": 99}
        assert (await ground.ask("POST", "/Order", 422, **body))["code"] == "TradingSuspended"
        assert (await ground.ask("PUT", "/MarkPrice?symbol=BTC-PERP&price=99"))["pending"]
        await ground.ask("DELETE", "/Order?account=1&clOrdID=a")
        assert (await ground.ask("PUT", "/ExchangeWideControls/SuspendTrading"))["reasons"] == ["manual", "store:oms"]
        await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={resting['messageIndex']}")

        async def manual_only() -> bool:
            return bool(await reasons() == ["manual"])

        await until(manual_only)
        assert (await ground.ask("PUT", "/ExchangeWideControls/ResumeTrading"))["suspended"] is False
        await ground.order(1, "c", "Buy", 1, 99)


async def test_an_operator_resumes_although_a_consumer_is_behind(tmp_path: Path) -> None:
    """All reasons are lifted and the store's is not set again, over a restart too, before it has caught up once."""
    clock = ManualClock(1_795_000_000_000_000_000)
    path = "/ExchangeWideControls"
    async with exchange(tmp_path, clock=clock) as ground:
        await ground.ask("PUT", "/MessageStore?storeId=oms")
        await ground.market(1)
        await ground.ask("PUT", "/MessageStore/Suspension?storeId=oms&maximumUnpurgedItemAgeMillis=60000")
        await ground.order(1, "a", "Buy", 1, 99)

        async def suspended() -> bool:
            return bool((await ground.ask("GET", path))["suspended"])

        clock.advance(60_001_000_000)
        await until(suspended)
        assert (await ground.ask("PUT", f"{path}/ResumeTrading"))["reasons"] == []
        ground.watch.look()
        await ground.order(1, "b", "Buy", 1, 99)
    async with exchange(tmp_path, clock=clock) as ground:
        ground.watch.look()
        last = await ground.order(1, "c", "Buy", 1, 99)
        await ground.ask("DELETE", f"/MessageStore/Purge?storeId=oms&messageIndex={last['messageIndex']}")

        async def counts() -> bool:
            return ground.sequencer.state.stores["oms"].waived is not True

        await until(counts)
        await ground.order(1, "d", "Buy", 1, 99)
        clock.advance(60_001_000_000)
        await until(suspended)


async def test_an_engine_without_stores_makes_no_messages(ground: Ground) -> None:
    """What was before a store is not in it, and a new store on an old exchange begins empty."""
    await ground.market(1)
    await ground.order(1, "a", "Buy", 1, 99)
    assert ground.messages.message_index == 0
    await ground.sequencer.submit(CreateStore("late"))
    async with joined(ground, "storeId=late") as socket:
        (index,) = await check(ground)
        (message,) = await messages(socket, 1)
    assert (message["messageIndex"], message["prevMessageIndex"]) == (index, 0)
