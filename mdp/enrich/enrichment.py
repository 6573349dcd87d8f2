"""Brings the vendor's facts into the quotes: the leader has them asked and keeps them in the cache, every worker reads its share.

Nothing here waits on the vendor: a process of its own asks (`python -m mdp.enrich`), its lines are stored as they come, and facts
are taken in some at a time, so that no flush grows by much.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
import structlog

from mdc.connect import CacheUnavailable
from mdp.analyzer import Analyzer
from mdp.enrich.facts import Seen
from mdp.enrich.lines import LINE_BYTES_MAX, Call, Chunk, Done, Errand, encode, read_line
from mdp.enrich.meters import BAD_ROWS, QUESTIONS, SYMBOLS, TAKEN
from mdp.enrich.questions import Order, order_for
from mdp.enrich.store import FactStore, Head, entry
from mdp.owned import Owned
from mdp.reference import Known
from mdp.settings import MdpSettings
from service.clock import Clock
from service.days.markets import Market

LOOK_S = 1.0
TURN_S = 0.25  # in which each partition takes in one part: a hundred symbols
AGAIN_S, AGAIN_LATER_S = 60.0, 900.0  # after the process died; after it was told something that stays so for a while
CACHE_S = 5.0
SNAPSHOT_S = 300.0  # between two snapshots, however much is lost
DAYS_MAX = 3  # that are asked for: a live feed and two tapes
STRANGE_LINES_MAX = 6  # kept of what a process says that is no line of ours
log = structlog.get_logger()
_known = msgspec.json.Decoder(dict[str, Known])
_seen = msgspec.json.Decoder(dict[str, Seen])


class Lead(NamedTuple):
    """What it takes to lead: the fence of partition 0, the trading days (starts, ms) that workers are in, newest first.

    `lost` counts the events that are missing: the snapshot knows what they would have said of the day.
    """

    fence: int
    days: list[int]
    lost: int = 0


class Snapped(NamedTuple):
    """When a snapshot was taken, by which leader, and how many events were missing then."""

    fence: int
    lost: int
    at_s: float


def _tell(analyzers: Iterable[Analyzer], day_ms: int, sheet: str, body: bytes) -> int:
    """Tell analyzers a part of a sheet; return how many symbols it has.  Raises: anything, for a part that is damaged."""
    if sheet == "past":
        known = _known.decode(body)
        for analyzer in analyzers:
            analyzer.on_facts(day_ms, known)
        return len(known)
    seen = _seen.decode(body)
    for analyzer in analyzers:
        analyzer.on_seen(day_ms, seen)
    return len(seen)


class Enrichment:
    """`owned()` are the partitions of this worker; `leads()` is None while another worker leads."""

    def __init__(
        self,
        settings: MdpSettings,
        redis: Any,
        clock: Clock,
        owned: Callable[[], Mapping[int, Owned]],
        leads: Callable[[], Lead | None],
    ) -> None:
        self._settings = settings
        self._store = FactStore(redis)
        self._clock = clock
        self._owned = owned
        self._leads = leads
        self._market: Market = settings.markets.named("stocks")
        self._again_s: dict[int, float] = {}  # trading day → when it may be asked for again
        self._snapped: dict[int, Snapped] = {}  # trading day → the newest snapshot of it
        self._strange: deque[str] = deque(maxlen=STRANGE_LINES_MAX)
        self._why = ""  # what was told last, so that a fault is told once

    # ---- 1. what is kept is taken in

    async def run_reading(self) -> None:
        """Look for new sheets until cancelled."""
        while True:
            with contextlib.suppress(CacheUnavailable):  # what was known stays; the beats tell of the cache
                await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Take in the sheets that our partitions do not have yet.  Raises: CacheUnavailable."""
        heads = await self._store.heads()
        await asyncio.gather(*(self._catch_up(owned, heads) for owned in list(self._owned().values())))

    async def _catch_up(self, owned: Owned, heads: Mapping[str, Head]) -> None:
        for day_ms in sorted(owned.trading_days):
            for sheet in ("past", "today"):  # the opening of a day is judged by the close before it
                of = entry(day_ms, sheet)
                head = heads.get(of)
                if head is None or head.partitions != self._settings.mdq_partitions or owned.facts.get(of) == head.name:
                    continue
                if await self._take(owned, day_ms, sheet, head):
                    owned.facts[of] = head.name

    async def _take(self, owned: Owned, day_ms: int, sheet: str, head: Head) -> bool:
        """Take in a sheet, part by part; return whether it was there to the end."""
        partition = owned.partition
        for number in await self._store.parts(head.name, partition.number):
            body = await self._store.part(head.name, partition.number, number)
            if body is None or self._owned().get(partition.number) is not owned:
                return False
            try:
                TAKEN.inc(_tell(partition.analyzers, day_ms, sheet, body))
            except Exception as error:  # of another version, or damaged: prices go on without it
                log.error("facts_unreadable", sheet=sheet, partition=partition.number, error=repr(error)[:200])
            await asyncio.sleep(TURN_S)
        return True

    # ---- 2. what is not kept is asked

    async def run_asking(self) -> None:
        """While we lead, have the vendor asked for what is missing, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            lead = self._leads()
            if lead is None:
                continue
            try:
                order = self._missing(lead, await self._store.heads())
                if order is not None:
                    await self._ask(lead, order)
            except CacheUnavailable:
                await asyncio.sleep(CACHE_S)
            except OSError as error:  # no process can be started, or it was killed before it took its errand
                self._tell_fault(f"no process can ask the vendor: {error}")

    def _missing(self, lead: Lead, heads: Mapping[str, Head]) -> Order | None:
        """Return what is to be asked next."""
        now_s, now_ms, partitions = self._mono_s(), self._clock.wall_ns() // 1_000_000, self._settings.mdq_partitions
        for day_ms in lead.days[:DAYS_MAX]:
            if now_s < self._again_s.get(day_ms, 0.0):
                continue
            head = heads.get(entry(day_ms, "past"))
            there = head is not None and head.last and head.partitions == partitions
            snapped = not day_ms <= now_ms < self._market.day_of(day_ms).end_ms or self._is_snapped(lead, day_ms, now_s)
            if not there or not snapped:
                order = order_for(self._market, day_ms, now_ms, partitions, past=not there)
                return msgspec.structs.replace(order, today=not snapped)
        return None

    def _is_snapped(self, lead: Lead, day_ms: int, now_s: float) -> bool:
        """Whether no other snapshot of the day is wanted: one for each leader, and one after losses, now and then."""
        newest = self._snapped.get(day_ms)
        if newest is None or newest.fence != lead.fence:
            return False
        return lead.lost <= newest.lost or now_s < newest.at_s + SNAPSHOT_S

    async def _ask(self, lead: Lead, order: Order) -> None:
        """Run one process to its end, or until we lead no more or the day is over.  Raises: CacheUnavailable."""
        key, day_ms = self._settings.rest_key_now(), order.day_ms
        self._again_s = {day: at_s for day, at_s in self._again_s.items() if day in lead.days}
        self._again_s[day_ms] = self._mono_s() + AGAIN_S
        if not key:
            self._tell_fault("there is no API key: set MDP_REST_KEY or MDP_REST_KEY_FILE")
            self._again_s[day_ms] = self._mono_s() + AGAIN_LATER_S
            return
        self._strange.clear()
        log.info("enrichment_begins", day=order.day, past=order.past, today=order.today)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mdp.enrich", stdin=PIPE, stdout=PIPE, stderr=STDOUT, limit=LINE_BYTES_MAX
        )
        try:
            assert process.stdin is not None
            errand = Errand(order, self._settings.rest_url, key, self._settings.rest_rate)
            process.stdin.write(encode(errand) + b"\n")
            if not await self._listen(process, lead, order):
                return
            code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if code:
            self._again_s[day_ms] = self._mono_s() + (AGAIN_LATER_S if code > 3 else AGAIN_S)
        else:
            del self._again_s[day_ms]
        if self._strange:  # nothing but a defect says anything else than lines of ours: the end of a traceback tells which
            log.error("enrichment_process_failed", said=list(self._strange))
        log.info("enrichment_ended", day=order.day, code=code)

    async def _listen(self, process: Process, lead: Lead, order: Order) -> bool:
        """Store what the process says; return False when there is no sense in it any more."""
        assert process.stdout is not None
        names: defaultdict[str, str] = defaultdict(lambda: secrets.token_hex(6))
        parts: defaultdict[tuple[str, int], int] = defaultdict(int)
        while True:
            now = self._leads()
            if now is None or now.fence != lead.fence or order.day_ms not in now.days:
                return False
            try:
                async with asyncio.timeout(LOOK_S):
                    line = await process.stdout.readline()
            except TimeoutError:
                continue
            except ValueError:  # a line above the limit is none of ours
                line = b"(a line that is too long)\n"
            if not line:
                return True
            try:
                said = read_line(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._strange.append(line[:300].decode(errors="replace").rstrip())
                continue
            if isinstance(said, Call):
                self._count(said)
            elif isinstance(said, Chunk):
                number = parts[said.sheet, said.partition]
                parts[said.sheet, said.partition] += 1
                await self._store.put(names[said.sheet], said.partition, number, bytes(said.facts))
            elif not await self._publish(lead, order, said, names[said.sheet]):
                return False
            else:
                del names[said.sheet]
                parts.clear()

    async def _publish(self, lead: Lead, order: Order, done: Done, name: str) -> bool:
        head = Head(name, order.partitions, done.symbols, done.last, self._clock.wall_ns() // 1_000_000)
        if not await self._store.publish(lead.fence, entry(order.day_ms, done.sheet), head):
            return False
        SYMBOLS.labels(done.sheet).set(done.symbols)
        if done.sheet == "today" and done.last:
            self._snapped = {day: snapped for day, snapped in self._snapped.items() if day in lead.days}
            self._snapped[order.day_ms] = Snapped(lead.fence, lead.lost, self._mono_s())
        log.info("facts_published", day=order.day, sheet=done.sheet, symbols=done.symbols, last=done.last)
        return True

    def _count(self, call: Call) -> None:
        QUESTIONS.labels(call.outcome).inc()
        BAD_ROWS.inc(call.bad_rows)
        if call.why:
            self._tell_fault(f"{call.question}: the vendor's REST service {call.why}")
        elif call.outcome == "answered":
            self._why = ""

    def _tell_fault(self, why: str) -> None:
        if why != self._why:
            log.warning("enrichment_fails", why=why)
        self._why = why

    def _mono_s(self) -> float:
        return self._clock.mono_ns() / 1e9
