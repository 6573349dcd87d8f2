"""The whole listener around both brokers: every event published once, back-pressure, faults, status, control."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from mdl.listener import Listener, run
from mdl.replay_feed import read_all
from mdl.settings import MdlSettings, VendorSettings
from mdl.simulator import Simulator
from mdl.simulator_feed import SimulatorFeed
from mdl.tape_writer import write_tape
from mdl.vendor_server import VendorServer
from mdq.batch import Batch
from mdq.broker import Broker, Delivery, Subscription
from mdq.broker_memory import hub
from mdq.connect import open_broker
from mdq.gaps import Position
from mdq.progress import Progress, to_batch
from mdq.topology import all_queues, progress_queue, queues_of
from service.clock import ManualClock
from service.errors import OperatorError
from service.run import Shutdown
from tests.tapes import tape
from tests.waiting import until

TOKEN = "token"
PARTITIONS = 4


class Processor:
    """A consumer of all partitions that keeps events in order and skips what it has seen, as the processors do."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.lost = 0
        self.events: dict[tuple[str, int], list[bytes]] = {}
        self._expected: dict[tuple[str, int], int] = {}
        self._subscriptions: list[Subscription] = []
        self._acks: set[asyncio.Task[None]] = set()
        self._epoch = ""
        self._reporting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        for partition in range(PARTITIONS):
            known: asyncio.Future[Subscription] = asyncio.get_running_loop().create_future()
            known.set_result(await self.broker.subscribe(queues_of(partition), self._handler(known), lambda *_: None, 16))
            self._subscriptions.append(known.result())
        self._reporting = asyncio.create_task(self._report())

    async def die(self) -> None:
        if self._reporting is not None:
            self._reporting.cancel()
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions.clear()

    def count(self, *streams: str) -> int:
        return sum(len(events) for (stream, _), events in self.events.items() if not streams or stream in streams)

    def data(self) -> int:
        return self.count() - self.count("status")

    def statuses(self) -> list[dict[str, Any]]:
        return [json.loads(event) for event in self.events.get(("status", 0), [])]

    def _handler(self, known: asyncio.Future[Subscription]) -> Callable[[Delivery], None]:
        def on_delivery(delivery: Delivery) -> None:
            self._take(delivery.batch)
            task = asyncio.ensure_future(self._ack(known, delivery.tag))
            self._acks.add(task)
            task.add_done_callback(self._acks.discard)

        return on_delivery

    async def _ack(self, known: asyncio.Future[Subscription], tag: int) -> None:
        subscription = await known
        if subscription.live:
            await subscription.ack(tag)

    async def _report(self) -> None:
        await self.broker.declare([progress_queue()])
        for seq in range(1_000_000):
            positions = [(stream, p, Position(self._epoch, expected)) for (stream, p), expected in self._expected.items()]
            self.broker.publish(to_batch(Progress("test", list(range(PARTITIONS)), positions), seq, 0))
            await asyncio.sleep(0.05)

    def _take(self, batch: Batch) -> None:
        key = (batch.stream, batch.partition)
        expected, self._epoch = self._expected.get(key, 0), batch.epoch
        if batch.seq + batch.count <= expected:
            return
        assert batch.seq >= expected or batch.count == 0, "a batch may be repeated, never overlap"
        self.lost += batch.seq - expected
        self._expected[key] = batch.seq + batch.count
        self.events.setdefault(key, []).extend(bytes(event) for event in split(batch.body))


split = msgspec.json.Decoder(list[msgspec.Raw]).decode
Start = Callable[..., Awaitable[Listener]]


@pytest.fixture
def name() -> str:
    """A hub of the test's own."""
    return secrets.token_hex(4)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts listeners; ends them all in order."""
    running: list[tuple[Shutdown, asyncio.Task[None], Broker]] = []

    async def begin(url: str, **settings: Any) -> Listener:
        base = {
            "mdq_partitions": PARTITIONS,
            "admin_port": 0,
            "admin_token": TOKEN,
            "run_dir": tmp_path,
            "record_dir": tmp_path / "rec",
        }
        broker = open_broker(url, "test-listener")
        listener = Listener(MdlSettings(**(base | settings)), broker)
        shutdown = Shutdown()
        task = asyncio.create_task(listener.run(shutdown))
        running.append((shutdown, task, broker))
        await until(lambda: task.done() or listener.session.running, seconds=15)
        if task.done():
            task.result()
        return listener

    yield begin
    for shutdown, task, broker in running:
        shutdown.ask()
        await asyncio.wait_for(task, 10)
        await broker.close()


@pytest.fixture(params=["memory", "rabbit"])
def url(request: pytest.FixtureRequest) -> str:
    """Both brokers, empty."""
    if request.param == "memory":
        return f"memory://{secrets.token_hex(4)}"
    return str(request.getfixturevalue("mdq_url"))


@pytest.fixture
async def processor(url: str) -> AsyncIterator[Processor]:
    broker = open_broker(url, "test-processor")
    await broker.connect()
    await broker.declare(all_queues(PARTITIONS))
    made = Processor(broker)
    yield made
    await made.die()
    await broker.close()


async def call(listener: Listener, method: str, path: str, body: Any = None, token: str = TOKEN) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.admin.port}") as client:
        return await client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})


async def test_a_simulated_market_is_published_in_order_without_loss(start: Start, processor: Processor, url: str) -> None:
    """Every stream arrives; what the status event says agrees."""
    await processor.start()
    listener = await start(url, rate=3_000, symbols=50)
    await until(lambda: processor.count("trades") > 300 and processor.count("aggregates") and processor.count("halts"))
    assert listener.unready() == []
    await until(lambda: len(processor.statuses()) >= 2)
    told = processor.statuses()[-1]
    assert (told["component"], told["feed"], told["state"], told["dropped_events"], told["malformed"]) == (
        "mdl",
        "simulator",
        "live",
        0,
        0,
    )
    assert 0 < told["published_events"] <= told["received_events"] + len(processor.statuses())
    assert processor.lost == 0


async def test_a_recorded_session_replays_completely_however_late_its_readers_are(
    start: Start, processor: Processor, url: str
) -> None:
    """At max speed nothing is sent before somebody reads, and nothing is lost; bytes untouched, order kept by symbol."""
    path = tape("es-2023-12-25.ndjson.gz")
    listener = await start(url, feed="replay", tape=str(path), speed="max")
    await until(lambda: listener.intake.waiting_for)
    assert any("waits for processors" in reason for reason in listener.unready())
    assert listener.publisher.published.total() <= 2  # status events
    await processor.start()
    await until(lambda: processor.data() == 28_412, seconds=20)
    assert processor.lost == 0
    assert (listener.session.state, listener.intake.router.events) == ("ended", 28_412)
    sent = [e for line in read_all(path) for e in json.loads(line.data) if e["ev"] == "T"]
    (trades,) = [events for (stream, _), events in processor.events.items() if stream == "trades"]
    assert [json.loads(event) for event in trades] == sent
    await until(lambda: processor.statuses()[-1]["state"] == "ended")


async def test_a_lossless_replay_outlives_the_death_of_its_processor(start: Start, tmp_path: Path, name: str) -> None:
    """Four seconds without a reader, in the middle, cost nothing: what waits is younger than the TTL."""
    path = tmp_path / "tape.ndjson"
    await asyncio.to_thread(write_tape, path, 300, 7, 300_000)
    clock = ManualClock()
    hub_of_test = hub(name)
    hub_of_test.clock = clock
    broker = open_broker(f"memory://{name}", "processor")
    await broker.connect()
    processor = Processor(broker)
    await processor.start()
    listener = await start(f"memory://{name}", feed="replay", tape=str(path), speed="max")
    await until(lambda: processor.data() > 50_000)
    await processor.die()
    await until(lambda: listener.intake.waiting_for)
    seen = processor.data()
    clock.advance(4_000_000_000)
    await processor.start()
    await until(lambda: processor.data() == 300_000, seconds=30)
    assert seen < 300_000
    assert processor.lost == 0
    assert not sum(queue.expired_batches for queue in hub_of_test.queues.values() if "status" not in queue.queue.name)
    await processor.die()
    await broker.close()


async def test_a_broker_that_goes_away_costs_the_oldest_frames_only(start: Start, name: str) -> None:
    """The vendor is not slowed; we are unready meanwhile, drop and count what is too old, and go on by ourselves."""
    broker = open_broker(f"memory://{name}", "processor")
    await broker.connect()
    listener = await start(f"memory://{name}", rate=100_000, buffer_bytes=8 << 20, buffer_age_ms=300)
    await until(lambda: listener.publisher.published.total() > 1000)
    hub(name).stop()
    await until(lambda: any("broker is away" in reason for reason in listener.unready()))
    received = listener.intake.received_frames
    await until(lambda: listener.facts()["dropped_events"] > 0, seconds=20)
    assert listener.intake.received_frames > received
    hub(name).start()
    await until(lambda: not listener.unready())
    before = listener.publisher.published.total()
    await until(lambda: listener.publisher.published.total() > before + 1000)
    await broker.close()


async def test_malformed_frames_are_counted_and_the_feed_goes_on(start: Start, tmp_path: Path, name: str) -> None:
    """Bad lines of a tape and bad frames in good lines both count."""
    path = tmp_path / "tape.ndjson"
    path.write_text('[{"ev":"T","sym":"A"},{"ev":1}]\nnot JSON\n{"received_ns":1,"text":"garbage"}\n[{"ev":"T","sym":"A"}]\n')
    listener = await start(f"memory://{name}", feed="replay", tape=str(path), speed="1000")
    await until(lambda: listener.session.state == "ended")
    await until(lambda: listener.intake.router.events == 2)
    assert listener.facts()["malformed"] == 3


async def test_a_missing_tape_ends_the_process_with_its_name(start: Start, name: str) -> None:
    """Not a retry loop."""
    settings = MdlSettings(feed="replay", tape="nowhere.ndjson", admin_port=0, admin_token=TOKEN, mdq_url=f"memory://{name}")
    with pytest.raises(OperatorError, match=r"nowhere\.ndjson"):
        await asyncio.wait_for(run(settings, Shutdown()), 5)


async def test_the_feed_is_controlled_at_runtime(start: Start, tmp_path: Path, name: str) -> None:
    """Stop, start, another feed, with the token only; the key is never shown."""
    listener = await start(f"memory://{name}", rate=100)
    assert (await call(listener, "POST", "/feed/stop", token="wrong")).status_code == 401
    assert (await call(listener, "POST", "/feed/stop")).json()["state"] == "stopped"
    assert (await call(listener, "GET", "/readyz")).status_code == 503
    assert (await call(listener, "POST", "/feed/start")).status_code == 200
    await until(lambda: listener.session.state == "live")
    path = tmp_path / "tape.ndjson"
    write_tape(path, 5, 1, 500)
    answer = await call(listener, "POST", "/feed", {"feed": "replay", "tape": str(path), "speed": 100, "api_key": "hidden"})
    assert answer.status_code == 200
    source = answer.json()["source"]
    assert (source["tape"], source["speed"], source["loop"]) == (str(path), "100", False)
    assert "hidden" not in answer.text + (await call(listener, "GET", "/feed", token="none")).text
    await until(lambda: listener.session.state == "ended")
    answer = await call(listener, "POST", "/feed", {"feed": "simulator", "symbols": 7, "rate": 50})
    assert answer.json()["source"]["symbols"] == 7
    await until(lambda: listener.session.state == "live")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"feed": "carrier pigeon"}, "simulator"),
        ({"feed": "replay", "tape": "/no/such.ndjson"}, "/no/such.ndjson"),
        ({"feed": "replay"}, "tape"),
        ({"speed": "fast"}, "max or a number"),
        ({"speed": -1}, "max or a number"),
        ({"rate": -1}, "greater than or equal"),
        ({"subscriptions": ["T.*", "no dot"]}, "not a subscription"),
        ({"market": "bonds"}, "stocks"),
        ({"colour": "red"}, "colour"),
        ({"rate": "many"}, "rate"),
        ([1], "object"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(start: Start, name: str, body: Any, word: str) -> None:
    """A 400 that says why; the feed goes on."""
    listener = await start(f"memory://{name}", rate=100)
    answer = await call(listener, "POST", "/feed", body)
    assert answer.status_code == 400
    assert word in answer.text
    assert "Traceback" not in answer.text
    assert listener.session.settings.feed == "simulator"
    await until(lambda: listener.session.state == "live")


async def test_a_recording_started_at_runtime_can_be_replayed(start: Start, tmp_path: Path, name: str) -> None:
    """What went through is on disk, frame by frame."""
    listener = await start(f"memory://{name}", rate=2_000)
    assert (await call(listener, "POST", "/record/start")).json()["record"]["recording"]
    seen = listener.intake.received_frames
    await until(lambda: listener.intake.received_frames > seen + 20)
    answer = (await call(listener, "POST", "/record/stop")).json()["record"]
    assert not answer["recording"]
    assert answer["frames"] > 20
    (path,) = list((tmp_path / "rec").glob("*.zst"))
    lines = list(read_all(path))
    assert len(lines) == answer["frames"]
    assert all(line.at_ns for line in lines)


@pytest.fixture
async def vendor() -> AsyncIterator[VendorServer]:
    made = VendorServer(VendorSettings(port=0, keys="good"), SimulatorFeed(Simulator(20, seed=7), 2_000))
    await made.start()
    yield made
    await made.stop()


async def test_a_refused_key_makes_us_unready_until_it_changes(
    start: Start, vendor: VendorServer, tmp_path: Path, name: str
) -> None:
    """Not tried again and again; a new key in the file is, by itself."""
    key = tmp_path / "key"
    key.write_text("bad")
    listener = await start(f"memory://{name}", feed="massive", api_key_file=key, massive_url=f"ws://127.0.0.1:{vendor.port}")
    await until(lambda: listener.session.state == "refused")
    (reason,) = listener.unready()
    assert "refused the API key" in reason
    assert "MDL_API_KEY" in reason
    key.write_text("good\n")
    await until(lambda: listener.session.state == "live" and listener.intake.router.events > 10)
    assert listener.unready() == []


async def test_a_new_key_by_post_is_tried_at_once(start: Start, vendor: VendorServer, name: str) -> None:
    """The same call changes subscriptions."""
    listener = await start(f"memory://{name}", feed="massive", api_key="bad", massive_url=f"ws://127.0.0.1:{vendor.port}")
    await until(lambda: listener.session.state == "refused")
    assert (await call(listener, "POST", "/feed", {"api_key": "good", "subscriptions": ["T.NVDA"]})).status_code == 200
    await until(lambda: listener.session.state == "live" and listener.intake.router.events > 3)
    assert {queue.stream for queue in listener.publisher.queues} == {"trades", "status"}


async def test_a_second_listener_stands_by_and_takes_over(start: Start, vendor: VendorServer, mdc_url: str, name: str) -> None:
    """One vendor connection ever: the standby is ready, says so, and is live within the TTL when the first one is gone."""
    common = {
        "feed": "massive",
        "api_key": "good",
        "massive_url": f"ws://127.0.0.1:{vendor.port}",
        "mdc_url": mdc_url,
        "lease_ttl_ms": 900,
    }
    first = await start(f"memory://{name}", **common)
    await until(lambda: first.session.state == "live")
    second = await start(f"memory://{name}", **common)
    await until(lambda: second.session.state == "standby" and "another listener" in second.session.reason)
    assert second.unready() == []
    assert len(vendor.clients) == 1
    await first.session.stop()
    await until(lambda: second.session.state == "live")
    assert len(vendor.clients) == 1


async def test_a_listener_that_loses_its_lease_hangs_up(start: Start, vendor: VendorServer, redis_server: Any, name: str) -> None:
    """When the lease cannot be renewed in time; it connects again when Redis is back."""
    listener = await start(
        f"memory://{name}", feed="massive", api_key="good", massive_url=f"ws://127.0.0.1:{vendor.port}",
        mdc_url=redis_server.url, lease_ttl_ms=900,
    )  # fmt: skip
    await until(lambda: listener.session.state == "live")
    await asyncio.to_thread(redis_server.stop)
    await until(lambda: listener.session.state == "standby" and not vendor.clients)
    assert "cannot be renewed" in listener.session.reason or "may hold" in listener.session.reason
    await asyncio.to_thread(redis_server.start)
    await until(lambda: listener.session.state == "live")
