"""Checks that a snapshot restores the same exchange with the journal as with the Redis stream after it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from engine.core.commands import Command, CreateStore
from engine.journal.journal import open_journal
from engine.journal.reader import read
from engine.journal.sequencer import Sequencer
from engine.recovery.recovered_book import recover_order_book_from_snapshot
from engine.recovery.replay import Recovered, recover
from engine.recovery.snapshot import stored_book
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.recovery.snapshotter import SnapshotterProcess, Task
from engine.stores.message_builder import MessageBuilder
from engine.streams.restore import Imported, import_from
from engine.streams.sink import Source, StreamSink
from tests.engine import order_flow
from tests.servers import Redis
from tests.waiting import until

pytestmark = pytest.mark.live
BEFORE, AFTER = 3_000, 12_000  # commands before and after the snapshot
SECONDS = 60
SEED = 7


class Engine:
    """Sequencer, snapshots and stream of one journal; `recovered` is where it began."""

    def __init__(self, journal: Path, snapshots: Path, url: str, recovered: Recovered) -> None:
        self.sequencer = Sequencer(
            recovered.state, open_journal(journal), lambda: (recovered.state, open_journal(journal)), MessageBuilder
        )
        task = Task(str(journal), str(snapshots), 50)
        self.snapshotter = SnapshotterProcess(task, recovered.last_index, recovered.chain, recovered.snapshot_index)
        contracts = recovered.state.ledger.contracts
        source = Source(
            journal, lambda: self.sequencer.committed_index, lambda: self.snapshotter.oldest_index,
            lambda symbol: contracts[symbol].instrument,
        )  # fmt: skip
        self.sink = StreamSink(url, source)
        self.sequencer.on_commit(self.snapshotter.on_commit)
        self.sequencer.on_commit(self.sink.offer)

    async def trade(self, commands: Iterable[Command]) -> None:
        """Let commands happen, a few hundred at a time."""
        waiting: list[asyncio.Future[object]] = []
        for command in commands:
            waiting.append(self.sequencer.submit(command))  # type: ignore[arg-type]
            if len(waiting) == 400:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)


@contextlib.asynccontextmanager
async def running(journal: Path, snapshots: Path, url: str, snapshotting: bool = True) -> AsyncIterator[Engine]:
    """Recover an engine and let it run."""
    engine = Engine(journal, snapshots, url, recover(journal, snapshots))
    tasks = [asyncio.create_task(engine.sink.run())]
    if snapshotting:
        tasks.append(asyncio.create_task(engine.snapshotter.run()))
    try:
        yield engine
        assert await engine.sink.drain(SECONDS), engine.sink.problem
    finally:
        await engine.sequencer.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_lost_disk_comes_back_from_snapshot_and_stream(tmp_path: Path) -> None:
    """Snapshot and journal, snapshot and stream: one state, the same books, and the engine goes on from the second."""
    journal, snapshots, copy = tmp_path / "journal", tmp_path / "snapshots", tmp_path / "copy"
    flow = iter([CreateStore("all"), *order_flow.commands(SEED, BEFORE + 2 * AFTER)])
    with Redis() as cache:
        async with running(journal, snapshots, cache.url) as engine:
            await engine.trade(next(flow) for _ in range(BEFORE))
            await until(lambda: engine.snapshotter.newest_index == engine.sequencer.committed_index, SECONDS)
        async with running(journal, snapshots, cache.url, snapshotting=False) as engine:
            await engine.trade(next(flow) for _ in range(AFTER))
            digest = engine.sequencer.state.digest()

        by_journal = recover(journal, snapshots)
        assert by_journal.replayed > 10_000
        imported = import_from(cache.url, copy, snapshots)
        by_stream = recover(copy, snapshots)
        held = [record for record in read(journal) if record.command_index >= imported.first_index]
        assert imported == Imported(held[0].command_index, by_journal.last_index, len(held))
        assert list(read(copy)) == held
        assert by_stream.replayed == by_journal.replayed
        assert by_stream.state.digest() == by_journal.state.digest() == digest

        after = list(read(copy, by_stream.snapshot_index))
        for symbol in by_stream.state.markets:
            stored = FileSnapshotStore(snapshots).read_latest(symbol)
            assert stored is not None
            book = recover_order_book_from_snapshot(stored, after).book()
            whole = stored_book(by_stream.state, symbol, by_stream.last_index)
            assert [(lv.price_ticks, lv.total_qty_lots, [o.order_id for o in lv.orders]) for lv in book.bids + book.asks] == [
                (lv.price_ticks, lv.total_qty_lots, [o.order_id for o in lv.orders]) for lv in whole.bids + whole.asks
            ]

        async with running(copy, snapshots, cache.url) as engine:
            await engine.trade(next(flow) for _ in range(500))
            await until(lambda: engine.snapshotter.newest_index == engine.sequencer.committed_index, SECONDS)
        import_from(cache.url, tmp_path / "again", snapshots)
        assert recover(tmp_path / "again", snapshots)[1:3] == recover(copy, snapshots)[1:3]


async def test_a_trimmed_stream_and_its_snapshots_are_enough(tmp_path: Path) -> None:
    """The sink keeps what comes after the oldest snapshot, and the import asks for no more."""
    journal, snapshots, copy = tmp_path / "journal", tmp_path / "snapshots", tmp_path / "copy"
    flow = iter([CreateStore("all"), *order_flow.commands(SEED, 40_000)])
    with Redis() as cache:
        async with running(journal, snapshots, cache.url) as engine:
            for _ in range(6):
                await engine.trade(next(flow) for _ in range(1_000))
                await until(lambda: engine.snapshotter.newest_index == engine.sequencer.committed_index, SECONDS)
            await engine.trade(next(flow) for _ in range(2_000))
            digest = engine.sequencer.state.digest()
        imported = import_from(cache.url, copy, snapshots)
        assert 1 < imported.first_index <= engine.snapshotter.oldest_index + 1
        found = recover(copy, snapshots)
        assert found.state.digest() == digest
        assert found.snapshot_index >= engine.snapshotter.newest_index  # the last one may be written while the process ends
