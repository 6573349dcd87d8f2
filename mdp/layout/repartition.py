"""Moves what a stopped deployment remembers from its number of partitions to another: `python -m mdp repartition --to N`.

Copies are made beside the old layout, while every partition is held by the leases that workers own them by; one script then
puts them in its place. Invariant: whenever this ends, however it ends, the cache holds the old layout or the new one, whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any

from mdc import keys
from mdc.connect import AWAY, CacheUnavailable, check_cache, open_cache
from mdc.writer import CHECKPOINT_MS, Outcome, Writer
from mdp.analyzers.ranks import BUILT_IN, names_of, read_boards
from mdp.layout import deal
from mdp.layout.deal import Own, UnreadableCell
from mdp.loading import Loader
from mdp.ownership import BEAT_S, Ownership
from mdp.partitions.reading import VERSION
from mdp.reference import read_reference
from mdp.settings import MdpSettings
from mdq.broker import BrokerUnavailable
from mdq.connect import open_broker
from mdq.topology import all_queues
from service.clock import SystemClock
from service.cluster_url import is_cluster
from service.errors import OperatorError
from service.partition import partition_of
from service.run import Shutdown

REST_NS = 4_000_000_000  # longer than the lease of a process that was killed
CLAIM_S_MAX = 10.0  # leases of workers that were killed end by themselves
COPY_MS = 3_600_000  # copies of a run that was killed are gone after this
CELLS_A_ROUND = 2_000
CONNECT_S_MAX = 10.0
MEMORY_MARGIN = 1.2
AGAIN = "Run the command again; the cache is as it was"


async def repartition(settings: MdpSettings, to: int, shutdown: Shutdown) -> str:
    """Move the cache of MDC_URL to `to` partitions; return what was done, in a line.

    Raises: OperatorError, with the cache as it was: listeners, processors or queues are not at rest, no memory for the copies,
    checkpoints of another version, or somebody started a processor meanwhile.
    """
    if settings.mdc_url.startswith("memory:"):
        raise OperatorError(
            "an embedded cache ends with its run", "Start it with another MDQ_PARTITIONS, or set MDC_URL=redis://…"
        )
    if is_cluster(settings.mdc_url):
        raise OperatorError(
            "the cache of a Redis Cluster cannot be moved to another number of partitions: what moves would change its node",
            "Stop every component, empty the cluster (FLUSHALL on each primary), and start all with the new MDQ_PARTITIONS",
        )
    redis = open_cache(settings.mdc_url, "mdp-repartition")
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            await check_cache(redis, settings.mdc_url)
        known = await redis.get(keys.PARTITIONS)
        if known is None:
            return f"the cache is empty: nothing to move; start every component with MDQ_PARTITIONS={to}"
        if int(known) == to:
            return f"the cache has {to} partitions; every component needs MDQ_PARTITIONS={to}"
        before = settings.model_copy(update={"mdq_partitions": int(known)})
        return await Move(before, redis, to, shutdown).run()
    except (*AWAY, CacheUnavailable, TimeoutError) as error:
        what = f"Redis at MDC_URL does not answer: {str(error) or type(error).__name__}"
        raise OperatorError(what, "Look at it, then run the command again; nothing is lost", 3) from None
    finally:
        await redis.aclose()


class Move:
    """One move of the cache from `settings.mdq_partitions` to `to`."""

    def __init__(self, settings: MdpSettings, redis: Any, to: int, shutdown: Shutdown) -> None:
        self._settings = settings
        self._redis = redis
        self._from = settings.mdq_partitions
        self._to = to
        self._shutdown = shutdown
        name = f"repartition-{secrets.token_hex(4)}"
        self._copies = f"move:{name}:"  # what the keys of the copies begin with
        self._ownership = Ownership(redis, name, self._from)
        self._writer = Writer(redis)
        self._clock = SystemClock()
        boards = (*BUILT_IN, *read_boards(settings.boards))
        self._shares = ("counts", *(f"board:{name}" for name in names_of(boards)))
        self._loader = Loader(settings, redis, self._clock, read_reference(settings.reference), boards)
        self._fences: dict[int, int] = {}
        self._commit = redis.register_script(files("mdp").joinpath("scripts/relayout.lua").read_text())

    async def run(self) -> str:
        """Check, claim, align, copy, commit."""
        await self._check_rest()
        await self._check_queues()
        await self._check_memory()
        try:
            await self._claim()
            holding = asyncio.create_task(self._hold())
            try:
                epoch = await self._writer.open(secrets.token_hex(6), self._from)
                await self._align(epoch)
                await self._find_boards()
                cells, symbols = await self._copy()
                await self._put_in_place()
            finally:
                holding.cancel()
                await asyncio.wait([holding])
        finally:
            await self._release()
        moved = f"{symbols} symbols and {cells} cells moved from {self._from} to {self._to} partitions"
        return f"{moved}; start every component with MDQ_PARTITIONS={self._to}"

    # ---- 1. is everything at rest

    async def _check_rest(self) -> None:
        """Refuse while somebody works; what was killed counts until its lease has ended."""
        deadline_ns = self._clock.mono_ns() + REST_NS
        while busy := await self._who_works():
            if self._clock.mono_ns() > deadline_ns:
                raise OperatorError(busy, "Stop every listener, then every processor, and run the command again")
            await asyncio.sleep(BEAT_S)

    async def _who_works(self) -> str:
        share = await self._ownership.beat(claim=False)
        if share.workers:
            names = ", ".join(sorted(name.decode() for name in await self._redis.zrange("mdp:workers", 0, 4)))
            return f"processors run: {share.workers} ({names})"
        async for lease in self._redis.scan_iter("lease:source:*", count=1000):
            source = lease.decode().removeprefix("lease:source:").removesuffix(":waits")
            return f"a listener follows the source {source}"
        return ""

    async def _check_queues(self) -> None:
        """Refuse while a queue holds what nobody has processed: it is sorted by the old number of partitions."""
        if self._settings.mdq_url.startswith("memory:"):
            return  # it ended with its process
        broker = open_broker(self._settings.mdq_url, "mdp-repartition", queue_type=self._settings.mdq_queue_type)
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await broker.connect()
            depths = await broker.survey(all_queues(self._from))
        except (OSError, TimeoutError, BrokerUnavailable) as error:
            what = f"RabbitMQ at MDQ_URL does not answer: {str(error) or type(error).__name__}"
            raise OperatorError(what, "Its queues must be looked at: start it and run the command again", 3) from None
        finally:
            await broker.close()
        read = [name for name, depth in depths.items() if depth.consumers]
        if read:
            raise OperatorError(
                f"the queue {read[0]} and {len(read) - 1} more are read by somebody", "Stop every processor and run it again"
            )
        full = {name: depth.batches for name, depth in depths.items() if depth.batches}
        if full:
            name, batches = max(full.items(), key=lambda item: item[1])
            what = f"{sum(full.values())} batches wait in {len(full)} queues ({batches} in {name})"
            fix = f"Start a processor with MDQ_PARTITIONS={self._from} until they are empty, stop it and run the command again"
            raise OperatorError(what, fix)

    async def _check_memory(self) -> None:
        facts = await self._redis.info("memory")
        if not (most := int(facts.get("maxmemory", 0))):
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for number in range(self._from):
                pipe.memory_usage(keys.checkpoint(number), samples=50)
            needed = int(sum(size or 0 for size in await pipe.execute()) * MEMORY_MARGIN)
        free = most - int(facts["used_memory"])
        if needed > free:
            what = f"the copies need {needed >> 20} MiB beside what Redis holds, and {max(0, free) >> 20} MiB are free"
            raise OperatorError(what, "Raise its maxmemory for the move (CONFIG SET maxmemory …) and run the command again")

    # ---- 2. hold every partition as a worker does

    async def _claim(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLAIM_S_MAX):
                while len(self._fences) < self._from:
                    self._fences = (await self._ownership.beat()).owned
                    await asyncio.sleep(BEAT_S / 3)
                return
        missing = next(number for number in range(self._from) if number not in self._fences)
        raise OperatorError(f"partition {missing} is held by another worker", "Stop every processor and run the command again")

    async def _hold(self) -> None:
        while True:
            with contextlib.suppress(CacheUnavailable):  # what others could take meanwhile the last step sees by its fence
                await self._ownership.beat()
            await asyncio.sleep(BEAT_S)

    async def _release(self) -> None:
        with contextlib.suppress(CacheUnavailable):
            for number in self._fences:
                await self._ownership.release(number)
            await self._ownership.beat(claim=False)

    # ---- 3. bring all to the same day

    async def _align(self, epoch: str) -> None:
        """Let partitions that have not heard of a new day, or run of a tape, go on to it, as their next event would have."""
        owns = [await self._own(number) for number in range(self._from)]
        runs = deal.newest_runs(owns)
        days = deal.newest_days(owns, runs)
        for number, own in enumerate(owns):
            if own.life in ("", epoch) and not deal.is_behind(own, runs, days):
                continue
            partition = await self._loader.load(number, self._fences[number], epoch)
            partition.align(runs, deal.by_calendar(days))
            flush = partition.collect(self._clock.wall_ns() // 1_000_000)
            if flush is not None:
                arguments = flush.arguments(partition.fence, partition.flush_number)
                if await self._writer.write([(number, arguments)]) != [Outcome.APPLIED]:
                    raise OperatorError(f"partition {number} was taken by another worker", AGAIN)

    async def _own(self, number: int) -> Own:
        """Return what a partition knows beside its symbols.  Raises: OperatorError."""
        key = keys.checkpoint(number)
        values = await self._redis.hmget(key, deal.OWN_CELLS)
        cells = {name: value for name, value in zip(deal.OWN_CELLS, values, strict=True) if value is not None}
        for pattern in (f"{deal.POSITION}*", f"{deal.PLUGIN}*", "*:@*"):
            async for name, value in self._redis.hscan_iter(key, match=pattern, count=CELLS_A_ROUND):
                if deal.is_own(name.decode(errors="replace")):
                    cells[name.decode()] = value
        return self._read(number, cells)

    def _read(self, number: int, cells: dict[str, bytes]) -> Own:
        try:
            own = Own.read(cells)
        except UnreadableCell as error:
            fix = f"Start a processor with MDQ_PARTITIONS={self._from}: it sets the cell aside; stop it and run the command again"
            raise OperatorError(f"checkpoint of partition {number}: {error}", fix) from None
        if cells and own.version != VERSION:
            what = f"the checkpoint of partition {number} has version {own.version}, this command moves {VERSION}"
            older = f"Start a processor of this version with MDQ_PARTITIONS={self._from} and stop it: it writes them anew"
            raise OperatorError(what, older if own.version < VERSION else "Run the version that wrote it, or a newer one", 3)
        return own

    # ---- 4. copy

    async def _copy(self) -> tuple[int, int]:
        """Make the new layout beside the old one; return how many cells and symbols it holds."""
        async for stale in self._redis.scan_iter("move:*", count=1000):
            await self._redis.unlink(stale)
        cells, symbols, strays, owns = 0, 0, 0, []
        for number in range(self._from):
            owns.append(await self._own(number))
            async for chunk in self._chunks(number):
                mine = {name: value for name, value in chunk.items() if partition_of(deal.symbol_of(name), self._from) == number}
                strays += len(chunk) - len(mine)
                symbols += sum(name.startswith("heard:") for name in mine)
                cells += len(mine)
                await self._put(mine)
        own_cells = await self._put_common(owns)
        await self._put_shares(owns)
        await self._check_copies(cells + own_cells)
        if strays:
            print(f"tapeline mdp: {strays} cells of symbols in partitions that are not theirs were left out", flush=True)
        return cells, symbols

    async def _chunks(self, number: int) -> Any:
        """Yield the cells of a partition's symbols, some at a time, each once."""
        key, cursor = keys.checkpoint(number), 0
        seen: set[str] = set()
        while True:
            self._go_on()
            cursor, found = await self._redis.hscan(key, cursor, count=CELLS_A_ROUND)
            chunk = {name.decode(): value for name, value in found.items()}
            own = {name: value for name, value in chunk.items() if deal.is_own(name)}
            self._read(number, own)  # a cell that this version does not know would be lost
            fresh = chunk.keys() - own.keys() - seen
            seen |= fresh
            yield {name: chunk[name] for name in fresh}
            if not cursor:
                return

    async def _put(self, cells: dict[str, bytes]) -> None:
        by_partition: defaultdict[int, list[Any]] = defaultdict(list)
        for name, value in cells.items():
            by_partition[partition_of(deal.symbol_of(name), self._to)] += (name, value)
        async with self._redis.pipeline(transaction=False) as pipe:
            for number, items in by_partition.items():
                pipe.hset(self._copies + keys.checkpoint(number), items=items)
            await pipe.execute()

    async def _put_common(self, owns: list[Own]) -> int:
        others, first = deal.common_cells(owns)
        for numbers in _some(range(self._to)):
            self._go_on()
            async with self._redis.pipeline(transaction=False) as pipe:
                for number in numbers:
                    key = self._copies + keys.checkpoint(number)
                    pipe.hset(key, mapping=others if number else first)
                    pipe.pexpire(key, COPY_MS)
                await pipe.execute()
        return len(first) + (self._to - 1) * len(others)

    async def _find_boards(self) -> None:
        """Add the boards of plug-ins, which this command has not, to the shares that are moved."""
        known = {f"board:{name.decode()}" for name in await self._redis.smembers(keys.index("board"))}
        self._shares += tuple(sorted(known.difference(self._shares)))

    async def _put_shares(self, owns: list[Own]) -> None:
        for share in self._shares:
            key = keys.parts(share)
            known = await self._redis.hgetall(key)
            bodies = [body for number, body in known.items() if int(number) < self._from]
            dealt = {0: deal.encoded_counts(owns)} if share == "counts" else deal.deal_shares(bodies, self._to)
            if dealt:
                await self._redis.hset(self._copies + key, mapping={str(number): body for number, body in dealt.items()})
                await self._redis.pexpire(self._copies + key, COPY_MS)

    async def _check_copies(self, wanted: int) -> None:
        found = 0
        for numbers in _some(range(self._to)):
            async with self._redis.pipeline(transaction=False) as pipe:
                for number in numbers:
                    pipe.hlen(self._copies + keys.checkpoint(number))
                found += sum(await pipe.execute())
        if found != wanted:
            raise OperatorError(f"the copies hold {found} cells instead of {wanted}: somebody writes to the cache", AGAIN)

    # ---- 5. commit

    async def _put_in_place(self) -> None:
        self._go_on()
        # The versions are of shares that were dealt anew: their owners say them again.
        shares = [keys.BOARD_VERSIONS, *(keys.parts(share) for share in self._shares)]
        fences = [self._fences[number] for number in range(self._from)]
        args = [self._from, self._to, CHECKPOINT_MS, self._copies, len(shares), *shares, *fences]
        refused = (await self._commit(keys=[keys.PARTITIONS, keys.WATCHED_NEWS], args=args)).decode()
        if refused:
            raise OperatorError(refused, f"Stop every processor. {AGAIN}")

    def _go_on(self) -> None:
        if self._shutdown.asked:
            raise OperatorError("stopped before the end", AGAIN, 1)


def _some(numbers: range) -> Iterator[Iterable[int]]:
    for first in range(0, len(numbers), 100):
        yield numbers[first : first + 100]
