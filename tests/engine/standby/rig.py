"""A leader behind its real gateway and a standby that copies from it, both in the test's process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.access.keys import Role
from engine.core.state import State
from engine.journal.format import Record
from engine.journal.journal import open_journal
from engine.journal.reader import read, segments
from engine.recovery.replay import replay
from engine.standby.follower import Follower
from engine.standby.line import Leader
from service.clock import SystemClock
from tests.engine.gateway.ground import Ground
from tests.waiting import until


class Copy:
    """A standby without a gateway: its journal in `folder`, its state as the records made it."""

    def __init__(self, ground: Ground, folder: Path, url: str = "", key: str = "", name: str = "copy") -> None:
        self.folder = folder
        self.state = State()
        self.journal = open_journal(folder, copying=True)
        replay(self.state, read(folder))
        self.snapshots, self.keys = folder.with_name(f"{folder.name}-snapshots"), folder.with_name(f"{folder.name}-keys.json")
        key = key or ground.key(Role.REPLICA)["Authorization"].removeprefix("Bearer ")
        self.follower = Follower(
            Leader(url or ground.url, key), name, self.journal, self.snapshots, self.keys, SystemClock(),
            lambda: self.state.term, self._take,
        )  # fmt: skip
        self.running: asyncio.Task[None] | None = None

    def _take(self, records: list[Record]) -> None:
        replay(self.state, records)

    def start(self) -> None:
        """Follow."""
        self.running = asyncio.create_task(self.follower.run())

    async def stop(self) -> None:
        """Be gone, as by a kill: what was not written is not there."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        self.journal.close()


async def in_step(ground: Ground, copy: Copy, seconds: float = 20) -> None:
    """Wait until the leader has heard that the standby's disk has everything."""

    def reached() -> bool:
        own = ground.sequencer.journal.last_index
        return ground.standbys.lag_commands == 0 and copy.journal.last_index >= own

    await until(reached, seconds, f"the standby is in step: {copy.follower.problem}")


def alike(one: Path, other: Path) -> None:
    """Assert that two journals are the same files byte for byte."""
    assert [path.name for path in segments(one)] == [path.name for path in segments(other)]
    for path in segments(one):
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


@asynccontextmanager
async def following(ground: Ground, folder: Path, **more: str) -> AsyncIterator[Copy]:
    """Run a standby until the block ends."""
    copy = Copy(ground, folder, **more)
    copy.start()
    try:
        yield copy
    finally:
        await copy.stop()
