"""Asks the vendor's REST service: each question once for all who want it, within the rate, for bounded time, and kept.

Runs on a loop of its own in a thread of its own (`Errands`): whoever asks waits a little, and the answer comes into the shelf
also when nobody waits any more. The key goes to the server of SCP_REST_URL and to no other; redirects are not followed.

Not the vendor's official client, which the processors use in a process of its own: it blocks, and a server that drips would
hold a thread for as long as it likes. Here every question ends by the clock, in time and in size.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog

from scp.fleet.errands import Errands
from scp.fleet.remote import Redirected, Remote, Reply, Unreachable
from scp.problems import Problem
from scp.reference.allowance import Allowance
from scp.reference.answers import BadAnswer
from scp.reference.shelf import Kept, Shelf
from scp.settings import ScpSettings
from service import metrics
from service.address import Address, address_of
from service.breaker import Breaker

WAIT_S = 2.5  # a request's thread waits so long; the question goes on without it
ANSWER_S, CONNECT_S = 20.0, 5.0
QUESTIONS_MAX = 4  # at once
FLIGHTS_MAX = 64  # that are under way or wait for their turn
FAILURES_MAX, OPEN_S = 3, 30.0
PAGES_MAX = 4  # of one answer
HOUR_MS = 3_600_000
UNKNOWN_MS, REFUSED_MS, FAILED_MS = 6 * HOUR_MS, HOUR_MS // 4, 10_000
NOT_SET_UP = Problem(
    404, "no_vendor", "Company data and older candles are not set up here: operators set SCP_REST_URL and SCP_REST_KEY"
)
AWAY = Problem(
    503, "vendor_away", "The vendor's service does not answer just now; it is tried again", [("Retry-After", f"{OPEN_S:g}")]
)
asked_total = metrics.counter("scp", "vendor_questions", "Questions to the vendor's REST service, by outcome", ("outcome",))
log = structlog.get_logger()


class Nothing:
    """What is kept where the vendor has no answer: it does not know the ticker, or refuses it to our key."""

    def __init__(self, refused: bool) -> None:
        self.refused = refused


class Further:
    """What a reader returns for a page that is not the last one: where the next one is."""

    def __init__(self, url: str) -> None:
        self.url = url


class Vendor:
    """The one service. `said` and `fetch` belong to the loop, `kept` and `run` to the threads of requests."""

    def __init__(self, settings: ScpSettings, shelf: Shelf, now_s: Callable[[], float] = time.time) -> None:
        self.errands = Errands(max(1, settings.threads // 4))
        self._url, self._key_now = settings.rest_url.rstrip("/"), settings.rest_key_now
        self._shelf = shelf
        self._remote = Remote(CONNECT_S)
        self._allowance = Allowance(settings.rest_rate)
        self._breaker = Breaker(FAILURES_MAX, OPEN_S)
        self._flights: dict[str, asyncio.Task[Kept]] = {}
        self._places: asyncio.Semaphore | None = None
        self._now_s = now_s

    @property
    def now_ms(self) -> int:
        return int(self._now_s() * 1000)

    @property
    def address(self) -> Address:
        """Return where the key goes."""
        return address_of(self._url)

    def check(self) -> None:
        """Raises: Problem 404 when there is no such service."""
        if not self._url:
            raise NOT_SET_UP.with_traceback(None)

    def kept(self, name: str) -> Kept | None:
        """Return a fresh answer that is there already."""
        found = self._shelf.get(name)
        return found if found is not None and found.fresh(self.now_ms) else None

    async def said(
        self,
        name: str,
        path: str,
        params: Mapping[str, str],
        person: int,
        read: Callable[[Reply], Any],
        until_ms: Callable[[], int],
        weight: Callable[[Any], int] = lambda _: 1,
    ) -> Kept:
        """Return what the vendor says under `name`, kept until then; an old answer where there is none now.

        `read` is given one page after the other for as long as it returns Further.
        Raises: Problem 429, 503 when nothing is kept.
        """
        known = self._shelf.get(name)
        if known is not None and known.fresh(self.now_ms):
            return known
        try:
            flight = self._flights.get(name)
            if flight is None:
                self._admit(name, person)
                flight = self._flights[name] = asyncio.create_task(
                    self._fetch(name, path, params, person, read, until_ms, weight)
                )
                flight.add_done_callback(lambda done: self._landed(name, done))
            return await asyncio.shield(flight)
        except Problem:
            if known is None or isinstance(known.value, Nothing):
                raise
            return known

    def _admit(self, name: str, person: int) -> None:
        """Raises: Problem when it may not be asked now."""
        failed = self._shelf.get(f"!{name}")
        if failed is not None and failed.fresh(self.now_ms):
            raise failed.value.with_traceback(None)
        if len(self._flights) >= FLIGHTS_MAX:
            raise Problem(503, "vendor_busy", "Too many questions to the vendor are under way; try again", _after(5))
        if self._breaker.state(time.monotonic()) == "open":
            raise AWAY.with_traceback(None)
        wait_s, own = self._allowance.wait_s(person, time.monotonic())
        if not wait_s:
            if not self._breaker.allows(time.monotonic()):  # somebody else's question is the probe
                raise AWAY.with_traceback(None)
            return
        if own:
            words = "You have asked for much that is not known here yet; older candles and companies come in a moment"
            raise Problem(429, "too_many_questions", words, _after(wait_s))
        raise Problem(503, "vendor_busy", "The rate that the vendor allows is used up for the moment", _after(wait_s))

    def _landed(self, name: str, done: asyncio.Task[Kept]) -> None:
        self._flights.pop(name, None)
        if not done.cancelled():
            done.exception()  # whoever waited may be gone

    async def _fetch(
        self,
        name: str,
        path: str,
        params: Mapping[str, str],
        person: int,
        read: Callable[[Reply], Any],
        until_ms: Callable[[], int],
        weight: Callable[[Any], int],
    ) -> Kept:
        self._places = self._places or asyncio.Semaphore(QUESTIONS_MAX)
        try:
            async with asyncio.timeout(ANSWER_S), self._places:
                value = await self._pages(name, path, params, person, read)
        except (Unreachable, BadAnswer, TimeoutError) as error:
            if isinstance(error, (BadAnswer, Redirected)):  # it answers; one picture that is elsewhere must not end the rest
                self._breaker.succeeded(time.monotonic())
            else:
                self._breaker.failed(time.monotonic())
            why = " ".join(str(error).split())[:200] or f"it did not answer within {ANSWER_S:g} s"
            asked_total.labels("failed").inc()
            log.warning("vendor_failed", question=name, why=why)
            problem = Problem(503, "vendor_away", f"The vendor's service has no answer now: {why}", _after(10))
            self._shelf.put(f"!{name}", problem, self.now_ms, self.now_ms + FAILED_MS)
            raise problem from None
        self._breaker.succeeded(time.monotonic())
        now_ms, nothing = self.now_ms, isinstance(value, Nothing)
        ends_ms = now_ms + (REFUSED_MS if value.refused else UNKNOWN_MS) if nothing else until_ms()
        kept = Kept(value, now_ms, ends_ms, 1 if nothing else weight(value))
        self._shelf.put(name, value, now_ms, ends_ms, kept.weight)
        return kept

    async def _pages(self, name: str, path: str, params: Mapping[str, str], person: int, read: Callable[[Reply], Any]) -> Any:
        parts = urlsplit(self._url)
        ours = f"{parts.scheme}://{parts.netloc}/"
        value = await self._ask(name, path if path.startswith(ours) else self._url + path, params, read)
        for _ in range(PAGES_MAX - 1):
            if not isinstance(value, Further):
                return value
            if not value.url.startswith(ours):
                raise BadAnswer("its next page is at another server, where our key does not go")
            while wait_s := self._allowance.wait_s(person, time.monotonic())[0]:  # noqa: ASYNC110 - time itself is waited for
                await asyncio.sleep(wait_s)
            value = await self._ask(name, value.url, None, read)
        if isinstance(value, Further):
            raise BadAnswer(f"an answer of more than {PAGES_MAX} pages")
        return value

    async def _ask(self, name: str, url: str, params: Mapping[str, str] | None, read: Callable[[Reply], Any]) -> Any:
        reply = await self._remote.ask("GET", url, self._key_now(), params=params)
        if reply.status == 404:
            asked_total.labels("unknown").inc()
            return Nothing(refused=False)
        if reply.status in (401, 402, 403):
            asked_total.labels("refused").inc()
            log.warning(
                "vendor_refuses",
                question=name,
                status=reply.status,
                hint="look at SCP_REST_KEY(_FILE) and its plan",
            )
            return Nothing(refused=True)
        if reply.status == 429:
            raise Unreachable("it says that it is asked too often (429): lower SCP_REST_RATE")
        if reply.status != 200:
            raise Unreachable(f"it answered {reply.status}")
        asked_total.labels("answered").inc()
        return read(reply)


def _after(seconds: float) -> list[tuple[str, str]]:
    return [("Retry-After", str(max(1, round(seconds + 0.5))))]
