"""Runs workers that can be started, stopped and crashed on one queue and cache, and a feed whose numbers are known."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mdc.connect import open_cache
from mdc.documents import decode_doc
from mdp.settings import MdpSettings
from mdp.worker import Worker
from mdq.broker import Broker
from mdq.connect import open_broker
from mdq.publisher import Publisher
from mdq.topology import progress_queue
from service.clock import SystemClock
from service.partition import partition_of
from service.run import Shutdown
from tests.mdp.analyzers.alerts.plain_ranges import PlainRanges
from tests.mdp.feed import Dice, Event
from tests.waiting import until

PARTITIONS = 4
SYMBOLS = [f"S{n}" for n in range(12)]


@dataclass
class Running:
    """One worker with connections of its own, as a process has them."""

    worker: Worker
    broker: Broker
    redis: Any
    shutdown: Shutdown
    task: asyncio.Task[None]

    async def stop(self) -> None:
        """SIGTERM: hand everything over and end."""
        self.shutdown.ask()
        async with asyncio.timeout(10):
            await self.task
        await self._disconnect()

    async def crash(self) -> None:
        """End without a word: nothing is flushed, acknowledged or released."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        await self._disconnect()

    async def _disconnect(self) -> None:
        await self.broker.close()
        await self.redis.aclose()


@dataclass
class Farm:
    """Workers on one queue and cache, and what was fed to them."""

    mdq_url: str
    mdc_url: str
    cache: Any
    broker: Broker
    publisher: Publisher
    dice: Dice
    workers: list[Running] = field(default_factory=list)
    fed: defaultdict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    tape: list[Event] = field(default_factory=list)  # the same in the order in which it was fed

    async def start(self, name: str) -> Running:
        """Start a worker."""
        settings = MdpSettings(mdq_url=self.mdq_url, mdc_url=self.mdc_url, mdq_partitions=PARTITIONS, worker=name)
        broker, redis, shutdown = open_broker(self.mdq_url, name), open_cache(self.mdc_url), Shutdown()
        await broker.connect()
        worker = Worker(settings, broker, redis, SystemClock(), shutdown)
        running = Running(worker, broker, redis, shutdown, asyncio.create_task(worker.run()))
        self.workers.append(running)
        return running

    async def feed(self, events: int) -> None:
        """Publish trades as a listener does, in small portions."""
        for _ in range(events // 10):
            for _ in range(10):
                event = self.dice.trade(late_ms=0)
                event["c"], event["s"] = None, 1
                self.fed[event["sym"]].append(event)
                self.tape.append(event)
                self.publish(event)
            await self.publisher.room()
            await asyncio.sleep(0.004)

    def publish(self, event: Event) -> None:
        """Publish a trade; the feed's clock is where the dice are."""
        body = json.dumps(event).encode()
        self.publisher.add("trades", partition_of(event["sym"], PARTITIONS), [body], 1, self.dice.now * 1_000_000)

    async def trades(self) -> dict[str, int]:
        """Return symbol → trades of the day, of every quote in the cache."""
        names = [key.decode().removeprefix("ch:quote:") for key in await self.cache.keys("ch:quote:*")]
        return {sym: (await self.quote(sym))["trades"] for sym in names}

    async def quote(self, sym: str) -> dict[str, Any]:
        body = await self.cache.get(f"ch:quote:{sym}")
        return json.loads(bytes(decode_doc(body).data)) if body else {}

    async def counts(self) -> Counter[str]:
        """Return the summed counts of all partitions."""
        total: Counter[str] = Counter()
        for body in await self.cache.hvals("part:counts"):
            counts = json.loads(body)
            total["redelivered"] += counts["redelivered"]
            for name in ("events", "expired", "dropped"):
                total[name] += sum(counts[name].values())
        return total

    async def owners(self) -> dict[str, int]:
        """Return how many partitions each live worker reads."""
        return {
            running.worker.name: sum(o.subscription is not None and o.subscription.live for o in running.worker.owned.values())
            for running in self.workers
            if not running.task.done()
        }

    async def balanced(self, *counts: int, seconds: float = 8) -> None:
        """Wait until the live workers read this many partitions each."""

        async def spread() -> bool:
            return sorted((await self.owners()).values()) == sorted(counts)

        await until(spread, seconds, what=f"partitions spread {counts}")

    async def all_in(self, seconds: float = 8) -> Counter[str]:
        """Wait until every fed event is counted in the cache, as taken or as lost; return the counts."""
        await self.publisher.drain(seconds)
        total = sum(map(len, self.fed.values()))

        async def settled() -> Counter[str] | None:
            counts = await self.counts()
            return counts if counts["events"] + counts["expired"] + counts["dropped"] >= total else None

        return await until(settled, seconds, what=f"{total} events counted")  # type: ignore[no-any-return]

    async def exact(self) -> None:
        """Assert that nothing is lost or doubled: counts, totals and every print's number."""
        counts = await self.all_in()
        total = sum(map(len, self.fed.values()))
        assert (counts["events"], counts["expired"], counts["dropped"]) == (total, 0, 0), counts
        for sym, events in self.fed.items():
            quote = await self.quote(sym)
            assert (quote["trades"], quote["volume"], quote["last"]) == (len(events), len(events), events[-1]["p"]), sym
            prints = [decode_doc(body) for body in await self.cache.lrange(f"ch:trades:{sym}", 0, -1)]
            assert [json.loads(bytes(p.data))["price"] for p in prints] == [e["p"] for e in events][-len(prints) :], sym
            assert prints[-1].seq == len(events), sym

    async def alerts_exact(self) -> None:
        """Assert that range alerts are those of the tape, each once and in its partition's order, whoever owned it when."""
        told = [json.loads(bytes(decode_doc(body).data)) for body in await self.cache.lrange("ch:alerts:range", 0, -1)]
        found = [(a["sym"], a["kind"], a["price"], a["prev"], a["note"], a["ts"]) for a in told]
        for number in range(PARTITIONS):
            model = PlainRanges()
            for event in self.tape:
                if partition_of(event["sym"], PARTITIONS) == number:
                    model.take(event)
            own, least = [alert for alert in found if partition_of(alert[0], PARTITIONS) == number], len(model.told)
            model.end()
            assert own == model.told[: len(own)], f"partition {number}"
            assert len(own) >= least > 0, f"partition {number}"


@asynccontextmanager
async def farm(mdq_url: str, mdc_url: str, seed: int = 1) -> AsyncIterator[Farm]:
    """An empty cache that workers know already, and a feed."""
    cache, broker = open_cache(mdc_url), open_broker(mdq_url, "feed")
    await cache.flushall()
    await cache.set("mdp:since", 1)
    await broker.connect()
    publisher = Publisher(broker, PARTITIONS, "feed", lossless=True)
    await publisher.start()
    await broker.declare([progress_queue()])
    made = Farm(mdq_url, mdc_url, cache, broker, publisher, Dice(seed, SYMBOLS))
    try:
        yield made
    finally:
        for running in made.workers:
            if not running.task.done():
                await running.crash()
        await publisher.close(0.1)
        await broker.close()
        await cache.aclose()


def memory_urls() -> tuple[str, str]:
    """Return URLs of an in-process queue and cache that nobody else uses."""
    name = secrets.token_hex(4)
    return f"memory://{name}", f"memory://{name}"
