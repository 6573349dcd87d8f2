"""Writes committed groups to two Redis streams. The engine never waits: `offer` only appends to a bounded channel.

    Sequencer.on_commit ─► offer ─► channel ────────┐
                                                    ├─► batches of entries ─► one Lua call each ─► Redis
                  the journal, read in a thread ────┘

At every connection Redis is asked what it holds, the journal is read from there until the channel can take over, and both must
fit together hash by hash. When the channel overflows or Redis goes away, what is in the channel is dropped: the journal has it.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from hashlib import sha1
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import hiredis
import redis.asyncio as aioredis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from engine.core.commands import Instrument
from engine.journal.format import PREFACE, START, Record
from engine.journal.reader import JournalDamaged, Tail, segments
from engine.streams.entries import (
    APPEND,
    EVENTS_STREAM,
    NOTHING,
    TRADES_STREAM,
    Batch,
    Channel,
    Course,
    Entries,
    ForeignStream,
    Held,
    Pace,
    SeamBroken,
    StreamId,
    parse_id,
    resume_after,
)
from service import metrics
from service.breaker import Breaker
from service.clock import Clock, SystemClock
from service.run import backoff_s
from service.settings import hide_password

AWAY = (RedisError, OSError, TimeoutError)  # what a client raises while Redis cannot be reached or refuses
LINGER_S = 0.005  # between two calls that are not full: a call costs the loop as much as 20 records
IDLE_S = 1.0  # without records: is what we wrote still there?
GOES_ON = "Make Redis answer at ENGINE_STREAMS_URL; the journal keeps what is missing, and the sink goes on by itself"
STATES = ("channel", "journal", "away", "stopped")
SHA = sha1(APPEND.encode(), usedforsecurity=False).hexdigest()

SinkState = Literal["channel", "journal", "away", "stopped"]
log = structlog.get_logger()


class Source(NamedTuple):
    """What the sink knows of the engine. The callables are called on the event loop and must not block."""

    folder: Path  # of the journal
    committed: Callable[[], int]  # `Sequencer.committed_index`
    oldest_snapshot: Callable[[], int]  # index of the oldest one kept, -1 or 0 when there is none
    instrument: Callable[[str], Instrument]  # terms of a symbol; they never change


class SinkLimits(NamedTuple):
    """Bounds and deadlines of a sink; `trades_max` 0 keeps all trades."""

    channel_records: int = 65_536
    channel_bytes: int = 64 << 20
    trades_max: int = 1_000_000
    readable: bool = True  # every entry has its events as JSON, too
    timeout_s: float = 5.0
    failures_max: int = 5  # in a row, then Redis is left alone for
    open_s: float = 5.0
    recheck_s: float = 15.0  # after a foreign stream: has somebody mended it?


class PackingConnection(aioredis.Connection):
    """Writes commands with hiredis; redis-py's own packing takes longer than making the entries."""

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *rest = args
        return [hiredis.pack_command((*name.split(), *rest))]


class Moved(Exception):
    """The streams do not end where we left them: emptied, restored, or a batch given up as lost came late."""


class JournalUnreadable(Exception):
    """The journal cannot be read now."""


class StreamSink:
    """Keeps the two streams up with the journal. Give `offer` to `Sequencer.on_commit` and run `run()` as a task."""

    def __init__(self, url: str, source: Source, limits: SinkLimits | None = None, clock: Clock | None = None) -> None:
        self._url = url
        self._source = source
        self._limits = limits or SinkLimits()
        self._clock = clock or SystemClock()
        self._entries = Entries(source.instrument, self._limits.readable, self._limits.trades_max)
        self._channel = Channel(self._limits.channel_records, self._limits.channel_bytes)
        self._pace = Pace()
        self._breaker = Breaker(self._limits.failures_max, self._limits.open_s)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()  # the channel is in use and everything of it is written
        self._failures = 0
        self._held = Held()  # what the streams end with
        self._written: Held | None = None  # the same, when it is proven to be of this journal
        self._foreign: tuple[Held, ForeignStream] | None = None  # what was found there last, and why it is refused
        self._in_hand = 0
        self.problem = ""  # why the streams do not follow now, in words
        self.state: SinkState = "away"
        self._metrics = _Metrics(self)

    # What the engine calls

    def offer(self, records: Sequence[Record]) -> None:
        """Take a committed group. Never waits, never raises. Cost: O(records)."""
        self._idle.clear()
        if not self._channel.put(records):
            self._metrics.overflows.inc()
            self.state = "journal"
        self._wake.set()

    @property
    def position(self) -> int:
        """The index up to which Redis is known to have everything, -1 for nothing."""
        return self._written.events if self._written is not None else NOTHING[0]

    @property
    def lag(self) -> int:
        """Return how many records Redis lacks; unless the channel is in use it is indices, which may have holes."""
        if self.state == "channel":
            return len(self._channel) + self._in_hand
        return max(0, max(self._source.committed(), self._channel.last_index) - max(0, self._held.events))

    async def drain(self, seconds: float) -> bool:
        """Wait until Redis has everything; return False when it is away or not done in time: the next start goes on there."""
        if self.state in ("away", "stopped"):
            return False
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    # The worker

    async def run(self) -> None:
        """Write until cancelled. Whatever goes wrong is logged, counted and tried again; nothing is raised."""
        while True:
            pause_s = self._limits.open_s / 10
            if self._breaker.allows(self._now_s()):
                pause_s = await self._attempt()
            await asyncio.sleep(pause_s)

    async def _attempt(self) -> float:
        """Run one connection to its end; return how long to wait before the next one in seconds."""
        try:
            await self._session()
        except ForeignStream as error:
            self._breaker.succeeded(self._now_s())
            self._stop(error)
            return self._limits.recheck_s
        except AWAY as error:
            self._breaker.failed(self._now_s())
            why = str(error) or f"no answer within {self._limits.timeout_s} s"
            self._fail("redis", f"Redis at {hide_password(self._url)}: {why}")
        except Moved:
            self._fail("moved", "the streams do not end where they were left")
        except (JournalUnreadable, JournalDamaged) as error:
            self._fail("journal", str(error))
        except SeamBroken as error:
            self._fail("seam", str(error))
        except Exception as error:
            log.exception("engine_streams_broken")
            self._fail("internal", repr(error))
        self._failures += 1
        return backoff_s(self._failures - 1, random.random())

    def _fail(self, what: str, why: str) -> None:
        self._metrics.errors.labels(what).inc()
        if self.state != "away" or self.problem != why:
            log.warning("engine_streams_away", what=what, error=why, position=self.position, fix=GOES_ON)
        self.state, self.problem = "away", why

    def _stop(self, error: ForeignStream) -> None:
        if self.state != "stopped":
            self._metrics.errors.labels("foreign").inc()
            log.error("engine_streams_stopped", error=error.what, fix=error.fix)
        self.state, self.problem = "stopped", str(error)
        self._held, self._written = Held(), None

    async def _session(self) -> None:
        redis = _open(self._url, self._limits.timeout_s)
        try:
            held = await self._locate(redis)
            if self._foreign is not None and self._foreign[0] == held:
                raise self._foreign[1]
            self._foreign = None
            try:
                course = self._plan(held)
                while True:
                    await self._catch_up(redis, course)
                    await self._follow(redis, course)
            except ForeignStream as error:
                self._foreign = (held, error)
                raise
        finally:
            self._channel.close()
            self._in_hand = 0
            self._idle.clear()
            self.state = "stopped" if self.state == "stopped" else "away"
            await redis.aclose()

    def _plan(self, held: Held) -> Course:
        """Decide where to begin, and say so when it is not where everybody expects it."""
        known = self._written
        after = resume_after(held, self._source.oldest_snapshot(), known)
        if held.events < 0 < self._source.committed():
            self._metrics.begun.inc()
            log.warning("engine_streams_begin", after_index=after, emptied=known is not None)
        if known is not None and (held.events < known.events or held.trades < known.trades):
            log.warning("engine_streams_lost", held=held.last_events_id, written=known.last_events_id, after_index=after)
            self._written = None
        self._held = held
        return Course(held, after, self._source.committed())

    async def _locate(self, redis: Any) -> Held:
        """Ask Redis what it holds.  Raises: AWAY, ForeignStream."""
        async with asyncio.timeout(self._limits.timeout_s):
            events, last = await _stream_end(redis, EVENTS_STREAM)
            trades, last_trade = await _stream_end(redis, TRADES_STREAM)
        if events[1]:
            raise ForeignStream(f"{EVENTS_STREAM} has an entry {events[0]}-{events[1]}, which is none of an engine")
        entry, chain, trade = -1, b"", b""
        if last is not None:
            entry, chain = parse_id(last[0])[0], _unhex(last[1].get(b"chain", b""))
        if last_trade is not None and parse_id(last_trade[0]) == trades:
            trade = last_trade[1].get(b"event", b"")
        return Held(events[0], entry, chain, trades, trade)

    async def _catch_up(self, redis: Any, course: Course) -> None:
        """Write what the journal has; return when the channel has all that follows."""
        self.state, self.problem = "journal", ""
        reader: _Reader | None = None
        try:
            while True:
                # From here on the channel keeps what comes. All up to `joined` is in the journal for good; what is behind it
                # may be taken back by the disk's refusal, so it is not used, and the reader that saw it is given up.
                self._channel.reopen()
                joined = max(self._source.committed(), self._channel.last_index)
                if reader is None:
                    reader = _Reader(self._source.folder, course.rewind())
                    await reader.open()
                    course.begin(reader.first_index, reader.chain)
                    self._note_gap(course)
                records = await reader.take()
                known = [record for record in records if record.command_index <= joined]
                at = 0
                while at < len(known):
                    part = known[at : at + self._pace.records]
                    await self._write(redis, course.needed(part))
                    at += len(part)
                if known and len(known) == len(records):
                    continue
                course.end()
                self._written = self._held
                if self._channel.open:
                    return
                reader.close()
                reader = None
        finally:
            if reader is not None:
                reader.close()

    async def _follow(self, redis: Any, course: Course) -> None:
        """Write what comes through the channel; return when it overflowed."""
        self.state = "channel"
        while self._channel.open:
            groups = self._channel.take(self._pace.records)
            self._in_hand = sum(map(len, groups))
            await self._write(redis, [record for group in groups for record in course.join(group)])
            self._in_hand = 0
            if len(self._channel) < self._pace.records:
                await asyncio.sleep(LINGER_S)
            if self._channel.open and not self._channel:
                await self._rest(redis)

    async def _rest(self, redis: Any) -> None:
        """Wait for records; now and then look whether what was written is still there, and trim."""
        self._idle.set()
        self._wake.clear()
        try:
            async with asyncio.timeout(IDLE_S):
                await self._wake.wait()
        except TimeoutError:
            await self._append(redis, self._entries.batch([], self._held, self._source.oldest_snapshot()))

    async def _write(self, redis: Any, records: Sequence[Record]) -> None:
        at = 0
        while at < len(records):
            part = records[at : at + self._pace.records]
            batch = self._entries.batch(part, self._held, self._source.oldest_snapshot())
            await self._append(redis, batch)
            at += batch.used

    async def _append(self, redis: Any, batch: Batch) -> None:
        """Write a batch or nothing.  Raises: Moved, AWAY."""
        arguments = (SHA, 2, EVENTS_STREAM, TRADES_STREAM, *batch.arguments)
        # Not redis-py's own deadlines: with Python 3.11 they swallow a cancellation now and then, and cost a task a call.
        async with asyncio.timeout(self._limits.timeout_s):
            try:
                done = await redis.execute_command("EVALSHA", *arguments)
            except NoScriptError:
                await redis.script_load(APPEND)
                done = await redis.execute_command("EVALSHA", *arguments)
        if not done:
            raise Moved
        self._held = self._written = batch.held
        self._failures = 0
        self._breaker.succeeded(self._now_s())
        self._pace.written(self.lag)

    def _note_gap(self, course: Course) -> None:
        if course.gap:
            course.gap = False
            self._metrics.gaps.inc()
            fix = "Recover from a snapshot taken after the gap; keep more snapshots so that the journal lasts longer"
            log.error("engine_streams_gap", after_index=self.position, error="the journal no longer has what follows", fix=fix)

    def _now_s(self) -> float:
        return self._clock.mono_ns() / 1e9


class _Reader:
    """The journal from an index on, read in threads, one call at a time.  All raise: JournalUnreadable, JournalDamaged."""

    def __init__(self, folder: Path, from_index: int) -> None:
        self.first_index, self.chain = from_index, START  # the lowest index that it shows, and the chain before it
        self._folder = folder
        self._tail = Tail(folder)
        self._ahead: list[Record] = []
        self._reading: asyncio.Future[Any] | None = None

    async def open(self) -> None:
        """Go to the place."""
        await self._call(self._seek)

    async def take(self) -> list[Record]:
        """Return the next records, some megabytes, none at the end."""
        if self._ahead:
            ahead, self._ahead = self._ahead, []
            return ahead
        records: list[Record] = await self._call(self._tail.take)
        return records

    def close(self) -> None:
        """Let go of the file; when a thread still reads, as soon as it is done."""
        if self._reading is not None and not self._reading.done():
            self._reading.add_done_callback(lambda _: self._tail.close())
        else:
            self._tail.close()

    async def _call(self, call: Callable[[], Any]) -> Any:
        self._reading = asyncio.get_running_loop().run_in_executor(None, call)
        try:
            return await asyncio.shield(self._reading)
        except OSError as error:  # to the sink an OSError is Redis's
            raise JournalUnreadable(str(error)) from error

    def _seek(self) -> None:
        wanted = self.first_index
        paths = segments(self._folder)
        below = [path for path in paths if int(path.stem) <= wanted]
        for path in below[-1:] or paths[:1]:
            with path.open("rb") as file:
                preface = file.read(PREFACE.size)
            if len(preface) < PREFACE.size:
                raise OSError(f"{path.name} is only being made")
            _, first, self.chain, _ = PREFACE.unpack(preface)
            self.first_index = max(wanted, first)
            self._tail = Tail(self._folder, first - 1)
        while not self._ahead and (records := self._tail.take()):
            passed = bisect_left(records, wanted, key=attrgetter("command_index"))
            self.chain = records[passed - 1].chain if passed else self.chain
            self._ahead = records[passed:]


class _Metrics:
    """The sink's numbers; those that are read when they are asked for follow the newest sink of the process."""

    def __init__(self, sink: StreamSink) -> None:
        metrics.gauge("engine", "streams_position", "Index up to which the streams have everything").set_function(
            lambda: sink.position
        )
        metrics.gauge("engine", "streams_lag_records", "Records that the streams lack").set_function(lambda: sink.lag)
        metrics.gauge("engine", "streams_state", "0 channel, 1 journal, 2 away, 3 stopped").set_function(
            lambda: STATES.index(sink.state)
        )
        self.overflows = metrics.counter("engine", "streams_overflows", "Times the channel was full and the journal took over")
        self.errors = metrics.counter("engine", "streams_errors", "Times the sink had to start over, by cause", ["what"])
        self.begun = metrics.counter("engine", "streams_begun", "Times the streams were found empty and begun again")
        self.gaps = metrics.counter("engine", "streams_gaps", "Times the journal no longer had what the streams lacked")


async def _stream_end(redis: Any, name: str) -> tuple[StreamId, tuple[bytes, dict[bytes, bytes]] | None]:
    """Return the last id a stream ever gave, `NOTHING` for none, and its last entry if it has one."""
    try:
        info = await redis.xinfo_stream(name)
    except ResponseError as error:
        if "no such key" in str(error):
            return NOTHING, None
        raise
    last = parse_id(info["last-generated-id"])
    return (NOTHING if last == (0, 0) else last), info["last-entry"]


def _unhex(text: bytes) -> bytes:
    try:
        return bytes.fromhex(text.decode())
    except ValueError:
        return b""


def _open(url: str, timeout_s: float) -> Any:
    """Return a client that connects on first use and never retries by itself; deadlines are the caller's."""
    pool = aioredis.ConnectionPool.from_url(
        url,
        connection_class=PackingConnection,  # of plain TCP; TLS and Unix sockets keep their own
        client_name="tapeline-engine",
        socket_timeout=None,
        socket_connect_timeout=min(2.0, timeout_s),
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    return aioredis.Redis.from_pool(pool)
