"""A real sequencer with stores and a clock moved by hand: trading stops and goes on by itself, and the gauges say how near it is."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import REGISTRY

from engine.core.commands import CheckLiveness, ConfigureStore, CreateStore, DeleteStore, PurgeStore, Resume, Suspend
from engine.journal.journal import open_journal
from engine.journal.sequencer import Sequencer
from engine.stores.message_builder import MessageBuilder
from engine.stores.message_log import MessageLog
from engine.stores.watch import StoreWatch
from service.clock import ManualClock
from tests.engine.lives import rebuilt

SECOND = 1_000_000_000


class Rig:
    """Sequencer, messages and watch on one clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        state, journal = rebuilt(folder, probing=False)
        self.sequencer = Sequencer(state, journal, lambda: rebuilt(folder, probing=False), MessageBuilder, self.clock)
        self.messages = MessageLog(folder)
        self.messages.restore(list(state.stores.values()), self.sequencer.committed_index, self.sequencer.last_message_index)
        self.sequencer.on_commit(self.messages.on_commit)
        self.watch = StoreWatch(self.sequencer, self.messages, self.clock)

    async def look(self) -> set[str]:
        """Let the watch look once; return the reasons of the suspension afterwards."""
        self.watch.look()
        await self.sequencer.submit(Resume("nothing"))
        return set(self.sequencer.state.suspended)

    async def message(self) -> int:
        """Send a message; return its index."""
        return (await self.sequencer.submit(CheckLiveness("check", "test"))).index


async def test_age_suspends_and_catching_up_resumes(tmp_path: Path) -> None:
    """By the oldest unpurged message alone; a manual suspension in between stays."""
    rig = Rig(tmp_path)
    for name in ("slow", "fast"):
        await rig.sequencer.submit(CreateStore(name))
        await rig.sequencer.submit(ConfigureStore(name, 10_000))
    first = await rig.message()
    rig.clock.advance(6 * SECOND)
    second = await rig.message()
    await rig.sequencer.submit(PurgeStore("fast", second))
    assert await rig.look() == set()
    rig.clock.advance(5 * SECOND)
    assert await rig.look() == {"store:slow"}
    await rig.sequencer.submit(Suspend("manual"))
    assert await rig.look() == {"store:slow", "manual"}
    await rig.sequencer.submit(PurgeStore("slow", first))
    assert await rig.look() == {"manual"}
    rig.clock.advance(6 * SECOND)
    assert await rig.look() == {"store:slow", "manual"}
    await rig.sequencer.submit(Resume("manual"))
    assert await rig.look() == {"store:slow"}
    await rig.sequencer.submit(ConfigureStore("slow", 60_000))
    assert await rig.look() == set()


async def test_a_deleted_store_takes_its_reason_along(tmp_path: Path) -> None:
    """Nobody can purge it any more, so it must not hold trading up."""
    rig = Rig(tmp_path)
    await rig.sequencer.submit(CreateStore(""))
    await rig.sequencer.submit(ConfigureStore("", 1))
    await rig.message()
    rig.clock.advance(SECOND)
    assert await rig.look() == {"store:"}
    await rig.sequencer.submit(DeleteStore(""))
    assert await rig.look() == set()


async def test_a_suspension_survives_a_restart_and_is_lifted_after_it(tmp_path: Path) -> None:
    """The reason is in the journal; the watch of the new process lifts it when the store has been purged."""
    rig = Rig(tmp_path)
    await rig.sequencer.submit(CreateStore("a"))
    await rig.sequencer.submit(ConfigureStore("a", 1_000))
    index = await rig.message()
    rig.clock.advance(2 * SECOND)
    assert await rig.look() == {"store:a"}
    await rig.sequencer.close()
    again = Rig(tmp_path)
    again.clock.advance(2 * SECOND)
    assert again.messages.backlog("a").messages == 2  # the other one is the suspension
    assert await again.look() == {"store:a"}
    await again.sequencer.submit(PurgeStore("a", index))
    assert await again.look() == set()


async def test_the_gauges_tell_age_depth_lag_and_distance(tmp_path: Path) -> None:
    """One series a store; those of a deleted store are gone."""
    rig = Rig(tmp_path)
    await rig.sequencer.submit(CreateStore("gauged"))
    await rig.sequencer.submit(ConfigureStore("gauged", 10_000))
    first = await rig.message()
    rig.clock.advance(4 * SECOND)
    last = await rig.message()
    reader = rig.messages.reader("gauged", first)
    await rig.look()

    def gauge(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"tapeline_engine_{name}", {"store": "gauged"})

    assert gauge("store_age_ms") == 4_000
    assert gauge("store_depth") == 2
    assert gauge("store_lag") == last - first
    assert gauge("store_consumers") == 1
    assert gauge("store_suspension_distance_ms") == 6_000
    reader.close()
    await rig.look()
    assert gauge("store_consumers") == 0
    assert gauge("store_lag") == last - (first - 2)
    await rig.sequencer.submit(DeleteStore("gauged"))
    await rig.look()
    assert gauge("store_depth") is None


async def test_an_engine_that_takes_no_commands_is_asked_again(tmp_path: Path) -> None:
    """The watch survives a busy and a closed engine; nothing is raised into its task."""
    rig = Rig(tmp_path)
    await rig.sequencer.submit(CreateStore("a"))
    await rig.sequencer.submit(ConfigureStore("a", 1))
    await rig.message()
    rig.clock.advance(SECOND)
    rig.sequencer._queue_max = 0
    rig.watch.look()
    await rig.sequencer.close()
    rig.watch.look()
    assert rig.sequencer.state.suspended == set()
    assert open_journal(tmp_path).last_index == 3
