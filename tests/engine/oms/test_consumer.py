"""The OMS against a message store that misbehaves: the database is right, or there is a loud end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from engine.access.keys import Role
from engine.oms import consumer as oms
from engine.oms import database as oms_database
from engine.oms.consumer import GAP_EXIT, Oms, OmsSettings
from service.errors import OperatorError
from service.run import Shutdown
from service.settings import load
from tests.engine.gateway.ground import Ground, exchange
from tests.engine.oms.ground import FIRST, StandIn, expected, frames, last_index, query, sqlite_url, stored
from tests.scale import many
from tests.servers import Postgres, free_port
from tests.waiting import until, until_reached

MESSAGES = frames(5, 1_200)
DESKS = ((1, "Buy"), (2, "Sell"))
END = json.loads(MESSAGES[-1])["messageIndex"]


class Consumer:
    """One Oms on a stand-in; `stop` ends it in order and raises what it ended with."""

    def __init__(self, engine: StandIn | Ground, url: str, **settings: Any) -> None:
        self.url = url
        self.shutdown = Shutdown()
        made = load(OmsSettings, engine_url=engine.url, database_url=url, purge_ms=10, **settings)
        self.oms = Oms(made, oms_database.connect(url), self.shutdown)
        self.task = asyncio.create_task(self.oms.run())

    async def reaches(self, index: int) -> None:
        def last() -> int:
            if self.task.done():
                self.task.result()
                raise AssertionError("the consumer ended")
            return last_index(self.url)

        await until_reached(last, index, what="lastIndex")

    async def stop(self) -> None:
        self.shutdown.ask()
        async with asyncio.timeout(10):
            await self.task


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of each kind."""
    return sqlite_url(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def engine(url: str) -> AsyncIterator[StandIn]:
    """A store with a life of the exchange."""
    async with StandIn(list(MESSAGES), url) as made:
        yield made


@pytest.fixture
async def lite(tmp_path: Path) -> AsyncIterator[StandIn]:
    """The same for tests of what does not depend on the database."""
    async with StandIn(list(MESSAGES), sqlite_url(tmp_path)) as made:
        yield made


def here(engine: StandIn) -> str:
    return engine._database


async def test_a_store_becomes_tables(engine: StandIn, url: str) -> None:
    """Everything is stored, and the store purged to its end; far fewer transactions than messages when behind."""
    transactions = oms.TRANSACTIONS._value.get()
    consumer = Consumer(engine, url)
    assert consumer.oms.ready()
    await consumer.reaches(END)
    await until(lambda: engine.purged and engine.purged[-1] == END)
    assert consumer.oms.ready() == []
    await consumer.stop()
    assert stored(url) == expected(MESSAGES)
    assert oms.TRANSACTIONS._value.get() - transactions < len(MESSAGES) / 2
    assert engine.purged == sorted(engine.purged)


async def test_a_restart_goes_on_from_the_database(engine: StandIn, url: str) -> None:
    """The next consumer asks for what follows the last one's commit; nothing is missing and nothing twice."""
    later, engine.messages = engine.messages, engine.messages[:300]
    first = Consumer(engine, url)
    await first.reaches(json.loads(MESSAGES[299])["messageIndex"])
    await first.stop()
    engine.messages = later
    second = Consumer(engine, url)
    await second.reaches(END)
    await second.stop()
    assert engine.joined == [FIRST - 1, json.loads(MESSAGES[299])["messageIndex"]]
    assert stored(url) == expected(MESSAGES)


@pytest.mark.parametrize("seed", range(many(3, 1)))
async def test_lost_connections_and_duplicates_change_nothing(engine: StandIn, url: str, seed: int) -> None:
    """The connection ends after a random number of frames, again and again, and each new one repeats 40 frames."""
    dice = random.Random(seed)
    engine.cuts = iter([dice.randint(1, 200) for _ in range(10)])
    engine.repeats = 40
    consumer = Consumer(engine, url, batch_max=dice.choice([1, 7, 500]))
    await consumer.reaches(END)
    await consumer.stop()
    assert len(engine.joined) > 5
    assert stored(url) == expected(MESSAGES)


async def test_a_missing_message_stops_us(lite: StandIn) -> None:
    """Everything before it is stored and purged, nothing after it; the end says what is missing and what to do."""
    lite.skip = 700
    consumer = Consumer(lite, here(lite))
    with pytest.raises(OperatorError, match="follows message") as stopped:
        async with asyncio.timeout(20):
            await consumer.task
    assert stopped.value.exit_code == GAP_EXIT
    assert "new one" in stopped.value.fix
    assert stored(here(lite)) == expected(MESSAGES[:700])
    assert lite.purged[-1] == json.loads(MESSAGES[699])["messageIndex"]


@pytest.mark.parametrize("code", [4400, 4404, 4410, 1000])
async def test_the_engines_word_of_a_gap_stops_us(lite: StandIn, code: int) -> None:
    """Its text is in ours; nothing is purged."""
    lite.words = [("Messages up to 17 are purged", code)]
    consumer = Consumer(lite, here(lite))
    with pytest.raises(OperatorError, match="up to 17 are purged") as stopped:
        async with asyncio.timeout(20):
            await consumer.task
    assert stopped.value.exit_code == GAP_EXIT
    assert not lite.purged


@pytest.mark.parametrize("code", [1011, 4429])
async def test_an_engine_that_cannot_serve_us_now_is_asked_again(lite: StandIn, code: int) -> None:
    """Too many consumers, a fault of its own: its word is in the log, and nothing is a gap."""
    lite.words = [("Not now", code)] * 2
    consumer = Consumer(lite, here(lite))
    await consumer.reaches(END)
    await consumer.stop()
    assert len(lite.joined) == 3


async def test_a_deleted_store_stops_us(lite: StandIn) -> None:
    """What came between its end and a new one's beginning is nowhere."""
    consumer = Consumer(lite, here(lite))
    await consumer.reaches(END)
    await consumer.stop()
    lite.exists = False
    consumer = Consumer(lite, here(lite))
    with pytest.raises(OperatorError, match="no such store") as stopped:
        async with asyncio.timeout(20):
            await consumer.task
    assert stopped.value.exit_code == GAP_EXIT


async def test_an_engine_with_another_history_stops_us(lite: StandIn) -> None:
    """An engine that began again under the same store's name must not be mixed in."""
    alien = frames(6, 1_200)
    indices = {json.loads(message)["messageIndex"] for message in alien}
    last, kept = next((n, m) for n, m in enumerate(MESSAGES) if n > 200 and json.loads(m)["messageIndex"] not in indices)
    lite.messages = lite.messages[: last + 1]
    consumer = Consumer(lite, here(lite))
    await consumer.reaches(json.loads(kept)["messageIndex"])
    await consumer.stop()
    lite.messages = alien
    consumer = Consumer(lite, here(lite))
    with pytest.raises(OperatorError, match="follows message"):
        async with asyncio.timeout(20):
            await consumer.task
    assert stored(here(lite)) == expected(MESSAGES[: last + 1])


async def test_a_frame_that_is_no_message_stops_us(lite: StandIn) -> None:
    """What came before it is stored."""
    lite.messages[300] = b'{"neither":"this nor that","messageIndex":0}'
    consumer = Consumer(lite, here(lite))
    with pytest.raises(OperatorError, match="same release"):
        async with asyncio.timeout(20):
            await consumer.task
    assert stored(here(lite)) == expected(MESSAGES[:300])


async def test_an_older_store_and_a_new_database_begin_at_the_stores_first(lite: StandIn) -> None:
    """Where a database begins stands in it."""
    lite.exists, lite.first_index = True, json.loads(MESSAGES[100])["messageIndex"]
    consumer = Consumer(lite, here(lite))
    await consumer.reaches(END)
    await consumer.stop()
    assert lite.joined[0] == lite.first_index - 1
    assert query(here(lite), "SELECT firstIndex FROM MessageIndex")[0] == [(lite.first_index,)]
    assert stored(here(lite)) == expected(MESSAGES[100:])


async def test_a_failing_purge_is_made_up_for(lite: StandIn) -> None:
    """While the engine refuses purges we go on storing; the next one that works has them all."""
    lite.purge_status = 503
    consumer = Consumer(lite, here(lite))
    await consumer.reaches(END)
    assert not lite.purged
    lite.purge_status = 200
    await until(lambda: lite.purged[-1:] == [END])
    await consumer.stop()


async def test_the_purge_of_a_dead_consumer_is_made_up_for(lite: StandIn) -> None:
    """It died between commit and purge: the next start purges although no message comes."""
    lite.purge_status = 503
    consumer = Consumer(lite, here(lite))
    await consumer.reaches(END)
    await consumer.stop()
    lite.purge_status = 200
    consumer = Consumer(lite, here(lite))
    await until(lambda: lite.purged[-1:] == [END])
    await consumer.stop()


async def test_a_refused_token_ends_with_what_to_do(lite: StandIn) -> None:
    """And with the right one everything is stored."""
    lite.token = "secret"
    consumer = Consumer(lite, here(lite), api_token=SecretStr("wrong"))
    with pytest.raises(OperatorError, match="OMS_API_TOKEN") as stopped:
        async with asyncio.timeout(20):
            await consumer.task
    assert stopped.value.exit_code == 3
    consumer = Consumer(lite, here(lite), api_token=SecretStr("secret"))
    await consumer.reaches(END)
    await consumer.stop()


async def test_we_wait_for_the_engine(tmp_path: Path) -> None:
    """An engine that starts later is found; until then we are not ready, and a stop ends us at once."""
    async with StandIn(list(MESSAGES)) as gone:
        pass
    consumer = Consumer(gone, sqlite_url(tmp_path))
    await until(lambda: any("ConnectError" in fault for fault in consumer.oms.ready()), 10)
    await consumer.stop()


# The database


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_a_locked_database_is_waited_for(lite: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is purged meanwhile, we are not ready and say why; afterwards all is there."""
    monkeypatch.setattr(oms_database, "BUSY_S", 0.05)
    later, lite.messages = lite.messages, lite.messages[:300]
    first = Consumer(lite, here(lite))
    await first.reaches(json.loads(MESSAGES[299])["messageIndex"])
    await first.stop()
    lite.messages, lite.purged = later, []
    consumer = Consumer(lite, here(lite))
    with locked(here(lite)):
        await until(lambda: any("locked" in fault for fault in consumer.oms.ready()))
        assert all(index == json.loads(MESSAGES[299])["messageIndex"] for index in lite.purged)
    await consumer.reaches(END)
    assert consumer.oms.ready() == []
    await consumer.stop()
    assert stored(here(lite)) == expected(MESSAGES)


async def test_a_stop_does_not_wait_for_the_database(lite: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not committed stays in the engine."""
    monkeypatch.setattr(oms_database, "BUSY_S", 0.05)
    later, lite.messages = lite.messages, []
    consumer = Consumer(lite, here(lite))
    await until(lambda: lite.joined)
    await consumer.stop()
    lite.messages = later
    consumer = Consumer(lite, here(lite))
    with locked(here(lite)):
        await until(lambda: any("locked" in fault for fault in consumer.oms.ready()))
        async with asyncio.timeout(5):
            await consumer.stop()
    assert not lite.purged
    assert stored(here(lite)) == ({}, {})


@pytest.mark.parametrize("seed", range(many(2, 1)))
async def test_a_postgres_that_is_killed_again_and_again_loses_nothing(
    postgres_server: Postgres, postgres_url: str, seed: int
) -> None:
    """SIGKILL of the server while transactions are under way: also of those whose answer is lost, each is there once."""
    if not postgres_url.startswith(postgres_server.url.rsplit("/", 1)[0]):
        pytest.skip("TEST_POSTGRES_URL names a server that is not ours to kill")
    dice = random.Random(seed)
    async with StandIn(list(MESSAGES)) as engine:
        consumer = Consumer(engine, postgres_url, batch_max=5)
        for part in range(1, 6):
            await consumer.reaches(END * part // 8 + dice.randint(0, 20))
            await asyncio.to_thread(postgres_server.kill)
            await asyncio.to_thread(postgres_server.start)
        await consumer.reaches(END)
        await consumer.stop()
    assert stored(postgres_url) == expected(MESSAGES)


async def test_a_database_that_is_set_back_stops_us(lite: StandIn, tmp_path: Path) -> None:
    """Somebody puts an old copy in its place while we run: what lies between is purged, so it is a gap and not a fresh start."""
    half = json.loads(MESSAGES[299])["messageIndex"]
    later, lite.messages = lite.messages, lite.messages[:300]
    consumer = Consumer(lite, here(lite))
    await consumer.reaches(half)
    await consumer.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "oms.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE MessageIndex SET lastIndex = lastIndex - 50")
    lite.messages = later[300:]
    consumer = Consumer(lite, here(lite))
    with pytest.raises(OperatorError, match="follows message"):
        async with asyncio.timeout(20):
            await consumer.task


# The real gateway


@pytest.mark.parametrize("store", ["oms", '""'])
async def test_a_real_store_becomes_tables(tmp_path: Path, store: str) -> None:
    """Also the default one, whose name is two quotation marks; orders and fills as the gateway answered them."""
    url = sqlite_url(tmp_path)
    async with exchange(tmp_path / "journal", token="t") as ground:
        ground.http.headers["Authorization"] = "Bearer t"
        await ground.market(1, 2)
        consumer = Consumer(ground, url, store=store, api_token=SecretStr("t"))
        await until(lambda: ground.sequencer.state.stores)
        made = [await ground.order(account, f"{account}-{n}", side, 5, 100 + n / 2) for n in range(9) for account, side in DESKS]
        await consumer.reaches(made[-1]["messageIndex"])
        name = store.strip('"')
        await until(lambda: ground.sequencer.state.stores[name].purged_index == made[-1]["messageIndex"])
        await consumer.stop()
    orders, trades = stored(url)
    assert {answer["orderId"]: answer["clOrdID"] for answer in made} == {i: row["clordid"] for i, row in orders.items()}
    assert sum(row["filledquantity"] for row in orders.values()) == sum(row["quantity"] for row in trades.values()) > 0
    assert sum(row["filledcost"] for row in orders.values()) == sum(row["cost"] for row in trades.values())


async def test_a_withdrawn_key_ends_with_what_to_do(tmp_path: Path) -> None:
    """A market-data key for its own store is enough; when it is withdrawn the process says so, and nothing is lost."""
    url = sqlite_url(tmp_path)
    async with exchange(tmp_path / "journal") as ground:
        await ground.market(1)
        key = ground.key(Role.MARKET_DATA, stores=("oms",))["Authorization"].removeprefix("Bearer ")
        consumer = Consumer(ground, url, api_token=SecretStr(key))
        await until(lambda: ground.sequencer.state.stores)
        made = await ground.order(1, "a", "Buy", 1, 99)
        await consumer.reaches(made["messageIndex"])
        await ground.ask("DELETE", f"/Key?id={key.split('_')[1]}")
        with pytest.raises(OperatorError, match="keys create --role market-data") as stopped:
            async with asyncio.timeout(20):
                await consumer.task
        assert stopped.value.exit_code == 3
    assert last_index(url) == made["messageIndex"]


# The process


def test_settings_are_checked_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment; a URL of another kind is named with what it must be."""
    monkeypatch.setenv("OMS_ENGINE_URL", "http://engine:8181/")
    monkeypatch.setenv("OMS_DATABASE_URL", "postgresql://u:secret@db/oms")
    monkeypatch.setenv("OMS_API_TOKEN", "t")
    settings = load(OmsSettings)
    assert (settings.engine_url, settings.store) == ("http://engine:8181", "oms")
    assert settings.headers == {"Authorization": "Bearer t"}
    monkeypatch.setenv("OMS_ENGINE_URL", "redis://engine")
    with pytest.raises(OperatorError, match="OMS_ENGINE_URL"):
        load(OmsSettings)


async def test_the_admin_port_says_how_it_goes(lite: StandIn, tmp_path: Path) -> None:
    """Ready when it follows; the progress is a metric."""
    shutdown, port = Shutdown(), free_port()
    settings = load(OmsSettings, engine_url=lite.url, database_url=here(lite), admin_port=port, run_dir=tmp_path, purge_ms=10)
    task = asyncio.create_task(oms.run(settings, shutdown))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

        async def ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return (await client.get("/readyz")).status_code == 200
            return False

        await until(ready)
        await until(lambda: last_index(here(lite)) == END)

        async def metered() -> bool:
            return f"tapeline_oms_last_index {END:.1f}" in (await client.get("/metrics")).text

        await until(metered)
    shutdown.ask()
    async with asyncio.timeout(10):
        await task
