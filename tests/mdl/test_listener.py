"""The whole listener around both brokers: every event published once, back-pressure, faults, status, control."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mdl.feeds.replay import read_all
from mdl.intake import Intake
from mdl.listener import run
from mdl.settings import MdlSettings
from mdl.tapes.generator import write_tape
from mdq.broker_memory import hub
from mdq.connect import open_broker
from mdq.topology import all_queues
from service.clock import ManualClock
from service.errors import OperatorError
from service.run import Shutdown
from tests.mdl.rig import PARTITIONS, TOKEN, Processor, Start, only
from tests.tapes import tape
from tests.waiting import until


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


async def test_a_simulated_market_is_published_in_order_without_loss(start: Start, processor: Processor, url: str) -> None:
    """Every stream arrives; what the status event says agrees."""
    await processor.start()
    listener = await start(url, rate=3_000, symbols=50)
    await until(lambda: processor.count("trades") > 300 and processor.count("aggregates") and processor.count("halts"))
    assert listener.unready() == []
    await until(lambda: processor.statuses() and processor.statuses()[-1]["published_events"], 15)
    told = processor.statuses()[-1]
    assert (told["component"], told["feed"], told["state"], told["dropped_events"], told["malformed"]) == (
        "mdl",
        "simulator",
        "live",
        0,
        0,
    )
    assert told["published_events"] <= told["received_events"] + len(processor.statuses())
    assert processor.lost == 0


async def test_a_recorded_session_replays_completely_however_late_its_readers_are(
    start: Start, processor: Processor, url: str
) -> None:
    """At max speed nothing is sent before somebody reads, and nothing is lost; bytes untouched, order kept by symbol."""
    path = tape("es-2023-12-25.ndjson.gz")
    listener = await start(url, feed="replay", tape=str(path), speed="max")
    await until(lambda: only(listener).intake.waiting_for)
    assert any("waits for processors" in reason for reason in listener.unready())
    assert only(listener).published_events <= 2  # status events
    await processor.start()
    await until(lambda: processor.data() == 28_412, seconds=20)
    assert processor.lost == 0
    assert (only(listener).session.state, only(listener).intake.router.events) == ("ended", 28_412)
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
    await until(lambda: only(listener).intake.waiting_for)
    seen = processor.data()
    clock.advance(4_000_000_000)
    await processor.start()
    await until(lambda: processor.data() == 300_000, seconds=30)
    assert seen < 300_000
    assert processor.lost == 0
    assert not sum(
        queue.expired_batches for queue in hub_of_test.queues.values() if queue.queue.stream not in ("status", "progress")
    )
    await processor.die()
    await broker.close()


async def test_a_broker_that_goes_away_costs_the_oldest_frames_only(start: Start, name: str) -> None:
    """The vendor is not slowed; we are unready meanwhile, drop and count what is too old, and go on by ourselves."""
    broker = open_broker(f"memory://{name}", "processor")
    await broker.connect()
    listener = await start(f"memory://{name}", rate=100_000, buffer_bytes=8 << 20, buffer_age_ms=300)
    await until(lambda: only(listener).published_events > 1000)
    hub(name).stop()
    await until(lambda: any("broker is away" in reason for reason in listener.unready()))
    received = only(listener).intake.received_frames
    await until(lambda: only(listener).facts()["dropped_events"] > 0, seconds=20)
    await until(lambda: only(listener).intake.received_frames > received)
    hub(name).start()
    await until(lambda: not listener.unready())
    before = only(listener).published_events
    await until(lambda: only(listener).published_events > before + 1000)
    await broker.close()


async def test_malformed_frames_are_counted_and_the_feed_goes_on(start: Start, tmp_path: Path, name: str) -> None:
    """Bad lines of a tape and bad frames in good lines both count."""
    path = tmp_path / "tape.ndjson"
    path.write_text('[{"ev":"T","sym":"A"},{"ev":1}]\nnot JSON\n{"received_ns":1,"text":"garbage"}\n[{"ev":"T","sym":"A"}]\n')
    listener = await start(f"memory://{name}", feed="replay", tape=str(path), speed="1000")
    await until(lambda: only(listener).session.state == "ended")
    await until(lambda: only(listener).intake.router.events == 2)
    assert only(listener).facts()["malformed"] == 3


async def test_a_tape_deleted_in_the_middle_of_a_folder_does_not_end_the_replay(start: Start, tmp_path: Path, name: str) -> None:
    """The listener plays the next file, and the status event says what is missing."""
    event = '[{"ev":"T","sym":"A","t":%d}]\n'
    for number in range(3):
        (tmp_path / f"tape-{number}.ndjson").write_text(event % 1_700_000_000_000 + event % 1_700_000_000_500)
    listener = await start(f"memory://{name}", feed="replay", tape=str(tmp_path), speed="1")
    await until(lambda: only(listener).intake.router.events == 1)
    (tmp_path / "tape-1.ndjson").unlink()
    await until(lambda: only(listener).session.state == "ended")
    assert only(listener).intake.router.events == 4
    facts = only(listener).facts()
    assert facts["feed_dropped_frames"] == 1
    assert "tape-1.ndjson could not be played" in facts["reason"]


@pytest.mark.parametrize(("task", "broken"), [("feed", "take"), ("route", "_route_some"), ("beat", "expire")])
async def test_a_listener_of_which_a_task_breaks_ends_with_one_line(
    name: str, task: str, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never left with a task less: whoever started it hears which one and why."""

    def defect(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Intake, broken, defect)
    settings = MdlSettings(admin_port=0, admin_token=TOKEN, mdq_partitions=PARTITIONS, mdq_url=f"memory://{name}")
    with pytest.raises(OperatorError, match=rf"the task source simulator {task} ended unexpectedly: ZeroDivisionError: a defect"):
        async with asyncio.timeout(10):
            await run(settings, Shutdown())


async def test_a_missing_tape_ends_the_process_with_its_name(start: Start, name: str) -> None:
    """Not a retry loop."""
    settings = MdlSettings(feed="replay", tape="nowhere.ndjson", admin_port=0, admin_token=TOKEN, mdq_url=f"memory://{name}")
    with pytest.raises(OperatorError, match=r"nowhere\.ndjson"):
        async with asyncio.timeout(5):
            await run(settings, Shutdown())
