"""Runs a seeded market on a real sequencer and journal, and compares its streams in a real Redis with the journal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import redis

from engine.core.commands import Command, CreateStore, Instrument
from engine.core.events import Traded, decode
from engine.core.state import State
from engine.journal.format import START, Record
from engine.journal.journal import begin_journal, open_journal
from engine.journal.reader import read, segments
from engine.journal.sequencer import EngineUnavailable, Sequencer
from engine.stores.message_builder import MessageBuilder
from engine.streams.entries import EVENTS_STREAM, TRADES_STREAM
from engine.streams.sink import SinkLimits, Source, StreamSink
from tests.engine import order_flow as bm
from tests.servers import Process, Redis
from tests.waiting import until

SMALL = SinkLimits(channel_records=200, timeout_s=0.3, failures_max=3, open_s=0.2, recheck_s=0.1)


class DurableRedis(Redis):
    """A Redis whose writes are on the disk before they are answered: SIGKILL loses nothing that was answered."""

    def _spawn(self) -> Process:
        argv = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.dir), "--save", ""]
        argv += ["--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no", "--loglevel", "warning"]
        return Process(argv, dict(os.environ), self.dir, self.dir / "redis.log")


class Market:
    """An engine's process without its borders. `oldest_snapshot` is set by hand; every start goes on where the journal ends."""

    def __init__(self, folder: Path, seed: int = 1, count: int = 1_000_000) -> None:
        self.folder = folder
        self.oldest_snapshot = -1
        self._flow: Iterator[Command] = chain([CreateStore("all")], bm.commands(seed, count))
        state, journal = self._rebuild()
        self.sequencer = Sequencer(state, journal, self._rebuild, MessageBuilder, group_max=64)

    def _rebuild(self) -> tuple[State, Any]:
        journal, state = open_journal(self.folder, segment_bytes_max=400_000), State()
        for record in read(self.folder):
            for event in decode(record.payload):
                state.apply(event)
            state.message_index = record.command_index if record.message else state.message_index
        return state, journal

    @property
    def source(self) -> Source:
        return Source(self.folder, lambda: self.sequencer.committed_index, lambda: self.oldest_snapshot, self.instrument)

    def instrument(self, symbol: str) -> Instrument:
        return self.sequencer.state.ledger.contracts[symbol].instrument

    async def trade(self, count: int) -> None:
        """Let `count` commands happen."""
        commands = [next(self._flow) for _ in range(count)]
        for at in range(0, count, 500):
            with contextlib.suppress(EngineUnavailable):
                await asyncio.gather(*[self.sequencer.submit(command) for command in commands[at : at + 500]])

    def restart(self) -> None:
        """Start the engine again on its journal."""
        self.sequencer._journal.close()
        self.sequencer = Sequencer(*self._rebuild(), self._rebuild, MessageBuilder, group_max=64)


@contextlib.asynccontextmanager
async def running(market: Market, url: str, limits: SinkLimits = SMALL) -> AsyncIterator[StreamSink]:
    """Run a sink; leaving ends it as a crash would."""
    sink = StreamSink(url, market.source, limits)
    market.sequencer._listeners[:] = [sink.offer]
    task = asyncio.create_task(sink.run())
    try:
        yield sink
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def expected(folder: Path, after_index: int = -1) -> tuple[list[tuple[str, dict[str, Any]]], list[tuple[str, dict[str, Any]]]]:
    """Return what both streams must hold of the records above `after_index`: written plainly, from the journal."""
    entries, trades = [], []
    for record in read(folder):
        if record.command_index > after_index:
            entries.append((f"{record.command_index}-0", _entry(record)))
            done = [event for event in decode(record.payload) if isinstance(event, Traded)]
            trades += [(f"{record.command_index}-{n}", _trade(event, record)) for n, event in enumerate(done)]
    return entries, trades


def beginning(folder: Path) -> bytes:
    """Return the chain before the oldest segment's first record."""
    paths = segments(folder)
    return paths[0].read_bytes()[16:32] if paths else START


def _entry(record: Record) -> dict[str, Any]:
    return {
        "time": str(record.time_ns), "events": record.payload, "message": record.message, "chain": record.chain.hex(),
        "prev": record.link.before.hex(), "group": f"{record.link.first_index}-{record.link.last_index}",
    }  # fmt: skip


def _trade(event: Traded, record: Record) -> dict[str, Any]:
    frame = json.loads(record.message)
    execution = next(e for group in frame["executions"] for e in group if e.get("trdMatchID") == str(event.trade_id))
    return {
        "tradeId": str(event.trade_id), "symbol": execution["symbol"], "price": execution["lastPx"],
        "priceTicks": event.price_ticks, "size": execution["lastQty"], "sizeLots": event.size_lots,
        "takerOrderId": str(event.taker_id), "makerOrderId": str(event.maker_id), "takerSide": execution["side"],
        "timestamp": frame["timestamp"], "messageIndex": record.command_index,
    }  # fmt: skip


def held(url: str) -> tuple[list[tuple[str, dict[str, Any]]], list[tuple[str, dict[str, Any]]]]:
    """Return what both streams hold."""
    with redis.Redis.from_url(url) as client:
        raw: Any = client.xrange(EVENTS_STREAM), client.xrange(TRADES_STREAM)
    entries = []
    for entry_id, fields in raw[0]:
        text = {name.decode(): value for name, value in fields.items()}
        assert list(text) == ["time", "events", "event", "message", "chain", "prev", "group"]
        people = text.pop("event")
        assert not people or json.loads(people)[0]["type"] in text["events"].decode(errors="replace")
        text |= {name: text[name].decode() for name in ("time", "chain", "prev", "group")}
        entries.append((entry_id.decode(), text))
    return entries, [(entry_id.decode(), json.loads(fields[b"event"])) for entry_id, fields in raw[1]]


def assert_complete(url: str, folder: Path, after_index: int = -1) -> tuple[int, int]:
    """Compare both streams with the journal; return how many entries they have."""
    (entries, trades), (there, trades_there) = expected(folder, after_index), held(url)
    assert [entry_id for entry_id, _ in there] == [entry_id for entry_id, _ in entries]
    assert there == entries
    assert [entry_id for entry_id, _ in trades_there] == [entry_id for entry_id, _ in trades]
    assert trades_there == trades
    return len(there), len(trades_there)


def shortened(folder: Path, to: Path, after_index: int, chain: bytes | None = None) -> Path:
    """Make a journal in `to` that has only the records above `after_index`; `chain` is the one before, if not the true one."""
    records = [record for record in read(folder) if record.command_index > after_index]
    before = next((r.chain for r in reversed(list(read(folder))) if r.command_index <= after_index), START)
    journal = begin_journal(to, before if chain is None else chain, after_index)
    for record in records:
        journal.append(record.command_index, record.time_ns, record.payload, record.message)
    journal.commit()
    journal.close()
    return to


async def caught_up(sink: StreamSink, seconds: float = 15) -> None:
    """Wait until Redis has everything."""
    await until(lambda: sink.state == "channel" and not sink.lag, seconds, f"caught up: {sink.state} {sink.problem}")
