"""Carries out on the cache what the hub asks for, and brings it documents, snapshots and lists of channels.

Invariant: at most `READS_AT_ONCE` reads are on the way and each has a deadline, so a cache that hangs costs waiting clients
two seconds and never memory without bound (the hub has one read a channel).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import structlog

from mdc.away import NOTHING, SHARED, Away
from mdc.channels import kind_named, kind_of
from mdc.connect import CacheUnavailable
from mdc.documents import Doc, Snapshot
from mdc.reader import Reader
from service.clock import Clock
from service.tasks import Tasks
from wds import meter
from wds.fanout.channel import Names
from wds.fanout.hub import Hub
from wds.fanout.topic import Request
from wds.settings import WdsSettings

READS_AT_ONCE = 32
BATCH = 256  # plain states in one round trip; what they cause in the hub takes about 5 ms
BATCHES_AT_ONCE = 4
REST_S_MIN, REST_S_MAX = 0.002, 0.01  # rounds that rest are followed by a pause, and how long it is at most
NAMES_FRESH_NS = 1_000_000_000
KINDS_LISTED_MAX = 1_000
FAILURES = (CacheUnavailable, TimeoutError, OSError)
log = structlog.get_logger()


class Upstream:
    """The cache as the hub and the connections use it."""

    def __init__(self, hub: Hub, settings: WdsSettings, clock: Clock, on_fault: Callable[[BaseException], None]) -> None:
        self.up = False
        self.away = NOTHING  # parts of the cache that cannot be read now
        self._hub = hub
        self._clock = clock
        self._on_fault = on_fault
        self._timeout_s = settings.read_timeout_s
        self._reader = Reader(
            settings.mdc_url, self._on_docs, self._on_state, settings.mdq_partitions, on_fault=on_fault, on_away=self._on_away
        )
        self._room = asyncio.Semaphore(READS_AT_ONCE)
        self._tasks = Tasks("wds upstream", on_fault)
        self._docs: list[Doc] = []  # not handed over yet
        self._resting = False
        self._batches = 0
        self._waiting: deque[Request] = deque()  # reads of plain states that go out together
        self._working = False
        self._reads: dict[tuple[str, int | None], asyncio.Task[Snapshot | None]] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}  # not confirmed yet: no read before they are
        self._names: dict[str, tuple[int, Sequence[str]]] = {}

    async def start(self) -> None:
        """Begin to follow the cache; returns at once, connected or not."""
        self._hub.on_cache(False, "not connected yet", self._clock.mono_ns())
        await self._reader.start()
        self.carry_out()

    async def close(self) -> None:
        """Stop everything on the way and disconnect."""
        await self._tasks.close()
        await self._reader.close()

    def _on_docs(self, docs: list[Doc]) -> None:
        # A round over 1,000 sockets takes as long however many documents it hands over: while the loop is busy with one, what
        # comes meanwhile waits for as long as the round took, and goes out together. A loop that is idle waits for nothing.
        self._docs += docs
        if not self._resting:
            self._hand_over()

    def _hand_over(self) -> None:
        docs, self._docs = self._docs, []
        self._resting = False
        if not docs:
            return
        began_ns = self._clock.mono_ns()
        try:
            self._hub.on_docs(docs, began_ns)
        except Exception as fault:  # in the reader it would end the stream of documents in silence
            self._on_fault(fault)
            return
        self.account(began_ns)
        self.carry_out()
        self._resting = True
        asyncio.get_running_loop().call_soon(self._rest, began_ns)

    def _rest(self, began_ns: int) -> None:
        # Only now has the loop written what was handed to it.
        took_s = (self._clock.mono_ns() - began_ns) / 1e9
        if took_s < REST_S_MIN:
            self._hand_over()
        else:
            asyncio.get_running_loop().call_later(min(took_s, REST_S_MAX), self._hand_over)

    def _on_state(self, up: bool, reason: str) -> None:
        self._hand_over()
        self.up = up
        (log.info if up else log.warning)("cache_up" if up else "cache_down", reason=reason)
        self._hub.on_cache(up, reason, self._clock.mono_ns())
        self.carry_out()

    def _on_away(self, away: Away) -> None:
        self._hand_over()
        self.away = away
        (log.warning if away.parts else log.info)("cache_parts_away" if away.parts else "cache_parts_back", parts=named(away))
        self._hub.on_away(away, self._clock.mono_ns())
        self.carry_out()

    def account(self, began_ns: int) -> None:
        """Add what the hub did since `began_ns` to the metrics."""
        tally = self._hub.tally
        if not tally.frames and not tally.conflated and not tally.malformed:
            return
        meter.frames.inc(tally.frames)
        meter.conflated.inc(tally.conflated)
        meter.lost.inc(tally.lost)
        meter.malformed.inc(tally.malformed)
        meter.broadcast.observe((self._clock.mono_ns() - began_ns) / 1e6)
        now_ms = self._clock.wall_ns() // 1_000_000
        for ts in tally.source_ts:
            meter.age.observe(max(0, now_ms - ts))
        tally.frames = tally.conflated = tally.lost = tally.malformed = 0
        tally.source_ts.clear()

    def carry_out(self) -> None:
        """Start what the hub asks for, and see that it goes on with what was too much for one turn."""
        hub = self._hub
        if hub.chores and not self._working:
            self._working = True
            asyncio.get_running_loop().call_soon(self._work)
        if not hub.requests:
            return
        for request in hub.requests:
            if request.what == "close":
                self._tasks.start(f"close {request.channel}", self._reader.unwatch(request.channel), ends=True)
            elif is_plain(request.channel):
                self._waiting.append(request)
            else:
                self._tasks.start(f"{request.what} {request.channel}", self._read([request]), ends=True)
        hub.requests.clear()
        self._pump()

    def _work(self) -> None:
        self._working = False
        began_ns = self._clock.mono_ns()
        try:
            self._hub.work(began_ns)
        except Exception as fault:
            self._on_fault(fault)
            return
        self.account(began_ns)
        self.carry_out()

    def _pump(self) -> None:
        while self._waiting and self._batches < BATCHES_AT_ONCE:
            self._batches += 1
            some = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._tasks.start(f"read {len(some)} channels", self._read_batch(some), ends=True)

    async def _read_batch(self, requests: list[Request]) -> None:
        asked: dict[str, list[Request]] = {}
        for request in requests:
            asked.setdefault(request.channel, []).append(request)
        try:  # node by node: in a cluster those of one that hangs hold up no others
            nodes = self._reader.by_node(asked)
            await asyncio.gather(*(self._read([one for channel in mine for one in asked[channel]]) for mine in nodes))
        finally:
            self._batches -= 1
            self._pump()

    async def _read(self, requests: list[Request]) -> None:
        try:
            await self._watched(requests)
            found = await self._found([request.channel for request in requests])
        except (*FAILURES, msgspec.DecodeError) as error:
            log.debug("read_failed", channels=len(requests), first=requests[0].channel, error=str(error))
            found = {}
        for channel, ticket in [(request.channel, request.ticket) for request in requests]:
            if channel in found:
                self._hub.on_snapshot(channel, ticket, found[channel], self._clock.mono_ns())
            else:
                meter.reads_failed.inc()
                self._hub.on_read_failed(channel, ticket, self._clock.mono_ns())
        self.carry_out()

    async def _watched(self, requests: Sequence[Request]) -> None:
        """Wait until the cache delivers the documents of all of them: no read before that."""
        opened = [request.channel for request in requests if request.what == "open"]
        if opened:
            task = self._tasks.start(f"watch {len(opened)} channels", self._watch(opened), ends=True)
            self._watches.update(dict.fromkeys(opened, task))
        for task in {self._watches[request.channel] for request in requests if request.channel in self._watches}:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(task)

    async def _watch(self, channels: list[str]) -> None:
        for channel in channels:
            await self._reader.watch(channel)
        for channel in channels:
            self._watches.pop(channel, None)

    async def _found(self, channels: list[str]) -> dict[str, Snapshot | None]:
        if len(channels) == 1:
            return {channels[0]: await self._snapshot(channels[0], None)}
        async with self._room, asyncio.timeout(self._timeout_s):
            with contextlib.suppress(CacheUnavailable):  # see _snapshot
                return await self._reader.snapshots(channels)
            return await self._reader.snapshots(channels)

    async def _snapshot(self, channel: str, limit: int | None) -> Snapshot | None:
        async with self._room, asyncio.timeout(self._timeout_s):
            try:
                return await self._reader.snapshot(channel, limit)
            except CacheUnavailable:  # an idle connection that died while the cache was away fails once: the next one is new
                return await self._reader.snapshot(channel, limit)

    async def fetch_plain(self, channels: list[str]) -> dict[str, Snapshot | None]:
        """Read many plain states for a get; a malformed one is left out.  Raises: one of FAILURES."""
        return await self._found(channels)

    async def fetch(self, channel: str, limit: int | None) -> Snapshot | None:
        """Read a snapshot for a get, shared by all who ask meanwhile.  Raises: one of FAILURES."""
        key = (channel, limit)
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(self._snapshot(channel, limit))
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: tuple[str, int | None], done: asyncio.Task[Snapshot | None]) -> None:
        self._reads.pop(key, None)
        if not done.cancelled():
            done.exception()  # whoever asked has it; one who left must not make the loop complain

    async def known(self, kinds: Sequence[str]) -> Names | None:
        """Return the known channels of `kinds`, at most a second old; None when the cache cannot tell.

        The same sequence object comes back while nothing changed: that is how patterns see at once that nothing is new.
        """
        try:
            return {kind: await self._names_of(kind) for kind in kinds}
        except FAILURES:
            return None

    async def _names_of(self, kind: str) -> Sequence[str]:
        found_ns, names = self._names.get(kind, (0, ()))
        now_ns = self._clock.mono_ns()
        named = kind_named(kind)
        fixed = named is not None and bool(named.names) and named.more is None
        if found_ns and (fixed or now_ns - found_ns < NAMES_FRESH_NS):
            return names
        async with asyncio.timeout(self._timeout_s):
            fresh = tuple(await self._reader.list_channels(kind))
        names = names if fresh == names and found_ns else fresh
        if kind not in self._names and len(self._names) >= KINDS_LISTED_MAX:
            self._names.clear()  # kinds of plug-ins that clients have made up
        self._names[kind] = (now_ns, names)
        return names


def named(away: Away) -> dict[str, str]:
    """Return the parts of the cache that are away, and why, as people call them."""
    return {"shared" if part == SHARED else f"partition {part}": why for part, why in sorted(away.parts.items())}


def is_plain(channel: str) -> bool:
    """Whether the channel's snapshot is one document: no list of events, no history."""
    kind = kind_of(channel)
    return kind.mode != "event" and not kind.keep
