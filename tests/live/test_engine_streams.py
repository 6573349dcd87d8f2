"""A trading engine whose Redis goes away for half a minute: the streams end complete and in order, and no order waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.streams.sink import SinkLimits
from tests.engine.streams.rig import DurableRedis, Market, assert_complete, caught_up, running
from tests.servers import ServerMissing
from tests.tapes import absent
from tests.waiting import until

pytestmark = pytest.mark.live

RATE, STEP_S = 1_000, 0.01  # commands a second, and how often they come
LIMITS = SinkLimits(channel_records=2_000, timeout_s=2.0, open_s=1.0)


@pytest.fixture
def durable() -> Iterator[DurableRedis]:
    """A private Redis that survives SIGKILL with all that it answered."""
    try:
        server = DurableRedis()
    except ServerMissing as missing:
        absent(str(missing))
        return
    try:
        server.start()
        yield server
    finally:
        server.remove()


class Load:
    """A steady flow of commands; keeps how long every answer took, in ms.

    The usual answer (median) is what is compared: a busy test machine moves the slowest ones by any factor. An answer that waited for
    Redis would take as long as Redis is given to open (LIMITS.open_s).
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self.taken_ms: list[float] = []

    def median_and_longest_ms(self) -> tuple[float, float]:
        """Return the median and the longest since the last call."""
        taken, self.taken_ms = self.taken_ms, []
        return statistics.median(taken), max(taken)

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Let it flow."""
        task = asyncio.create_task(self._flow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _flow(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.shield(asyncio.ensure_future(self._market.trade(int(RATE * STEP_S))))
            self.taken_ms.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(max(0.0, STEP_S - (time.perf_counter() - began)))


@pytest.mark.parametrize(("fault", "seconds"), [("killed", 30.0), ("frozen", 10.0)])
async def test_redis_away_for_long_under_load(tmp_path: Path, durable: DurableRedis, fault: str, seconds: float) -> None:
    """Killed and started again, or hung: nothing is lost or twice, and answers take as long as before, while it is away and after."""
    market = Market(tmp_path / "journal")
    load = Load(market)
    async with running(market, durable.url, LIMITS) as sink:
        async with load.flowing():
            await until(lambda: market.sequencer.committed_index > 3 * RATE and sink.state == "channel", 30)
            usual = load.median_and_longest_ms()
            await asyncio.to_thread(durable.kill if fault == "killed" else durable.freeze)
            await asyncio.sleep(seconds)  # the fault itself
            assert sink.state == "away"
            assert sink.lag > seconds * RATE / 2, "the engine went on all the while"
            away = load.median_and_longest_ms()
            await asyncio.to_thread(durable.start if fault == "killed" else durable.thaw)
            await until(lambda: sink.state == "channel", 30, "the channel again, under load")
            await until(lambda: len(load.taken_ms) > 100, 10)
            behind = load.median_and_longest_ms()
        await caught_up(sink)
    entries, trades = assert_complete(durable.url, market.folder)
    print(f"{fault}: {entries} entries, {trades} trades; a group took (median, longest, ms) {usual}, away {away}, after {behind}")
    assert entries == market.sequencer.committed_index
    assert trades > 1_000
    assert away[0] < 5 * usual[0] + 20, (usual, away)
    assert away[1] < LIMITS.open_s * 1e3 or away[1] < 5 * usual[1], (usual, away)
    assert behind[0] < 10 * usual[0] + 100, (usual, behind)
