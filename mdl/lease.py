"""Decides whether this listener may speak for a source: a Redis lease, and who goes first after an outage.

The holder renews every third of the TTL and considers the lease lost when the last successful renewal is older than the
TTL less a fifth, whatever Redis says or does not say: that is earlier than anybody else can get it. A short Redis restart
goes unnoticed. A standby that saw Redis away or emptied waits one more TTL before it asks, so that the previous holder,
who asks at once, gets it back. Whoever is cut off from RabbitMQ does not ask; a holder leaves after 5 s to a standby that is not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.clock import Clock, SystemClock
from service.cluster import open_redis
from service.keyspace import space_of
from service.lease import RedisLease
from service.partition import LAYOUT
from service.tasks import Tasks

UNABLE_S = 5.0  # the queues' TTL: what waits for longer is worth nothing any more
DEAF = "RabbitMQ cannot be reached from here"
log = structlog.get_logger()


class Tenure:
    """What one listener knows of its lease; pure. Times are seconds of one monotonic clock."""

    def __init__(self, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self._renewed_s: float | None = None
        self._ever_held = False
        self._ask_from_s = 0.0
        self._away = False
        self._fence = 0

    def held(self, now_s: float) -> bool:
        """Return whether the lease is certainly ours at that time."""
        return self._renewed_s is not None and now_s < self._renewed_s + 0.8 * self.ttl_s

    def may_ask(self, now_s: float) -> bool:
        """Return whether to ask for the lease now (a standby lets the previous holder go first)."""
        return now_s >= self._ask_from_s

    def seen(self, fence: int, now_s: float) -> None:
        """Redis answered: this many changes of holder so far. Fewer than before means that it was emptied."""
        if (self._away or fence < self._fence) and not self._ever_held:
            self._ask_from_s = now_s + self.ttl_s / 2
        self._away = False
        self._fence = fence

    def next_s(self, now_s: float, every_s: float) -> float:
        """Return how long to wait before the next question: a standby does not miss when it may ask, nor a Redis that is back."""
        if self._away and self._renewed_s is None:
            return every_s / 4
        return min(every_s, self._ask_from_s - now_s) if self._ask_from_s > now_s else every_s

    def granted(self, asked_s: float) -> None:
        """The lease is ours, for a TTL counted from before the question was sent."""
        self._renewed_s, self._ever_held = asked_s, True

    def denied(self) -> None:
        """Somebody else holds it: from now on we are a standby like any other."""
        self._renewed_s, self._ever_held = None, False

    def left(self) -> None:
        """We gave it up ourselves; if nobody else has taken it we may have it back at once."""
        self._renewed_s = None

    def away(self) -> None:
        """Redis did not answer; what we hold, we hold until it runs out."""
        self._away = True


def lease_client(url: str, ttl_ms: int) -> Any:
    """Return a client for questions with a deadline; one retry at once, because a restart leaves dead connections in the pool.

    The deadlines are ours: redis-py's own (`socket_timeout`) is an `asyncio.wait_for` around every write, which on Python 3.11
    swallows a cancellation, and `stop` would wait for ever.
    """

    def make(one: str) -> Redis:
        return Redis.from_url(one, socket_timeout=None, socket_connect_timeout=ttl_ms / 3000, retry=Retry(NoBackoff(), 1))

    return open_redis(url, make)


class SourceLease:
    """The shell: asks Redis on and on. `redis` is a redis.asyncio client with short timeouts.

    `about` says what this listener follows. A holder that follows something else is no standby's predecessor but a name
    given twice: then `mistaken` is true and `reason` says what to do. `able` says whether we could publish if the lease were
    ours: who cannot does not ask for it, and gives it up after `UNABLE_S` if a standby waits that can. `partitions` are those
    that it would publish to: while the cache is sorted by another number, nobody speaks (0 = that is not looked at).
    """

    def __init__(
        self,
        redis: Any,
        source: str,
        about: str,
        ttl_ms: int,
        clock: Clock | None = None,
        able: Callable[[], bool] = lambda: True,
        partitions: int = 0,
    ) -> None:
        self.name = f"source:{source}"
        self.about = about
        self.reason = "another listener may hold the source; asking"
        self.mistaken = False
        self.tenure = 0  # counts our tenures
        self._source = source
        self._redis = redis
        self._lease = RedisLease(redis, self.name, ttl_ms, about=about)
        self._tenure = Tenure(ttl_ms / 1000)
        self._clock = clock or SystemClock()
        self._every_s = ttl_ms / 3000
        self._able = able
        self._partitions = partitions
        self._shared = space_of(redis).shared
        self._waits = f"{self._shared}lease:{self.name}:waits"  # while a standby that could publish asks
        self._ttl_ms = ttl_ms
        self._able_s = 0.0  # when we were able last
        self._tasks = Tasks(f"lease {self.name}")

    @property
    def held(self) -> bool:
        return self._tenure.held(self._now_s())

    @property
    def epoch(self) -> int:
        """The fencing number; 0 while another one holds it."""
        return self._lease.epoch

    def holds(self, tenure: int) -> bool:
        """Return whether the lease has been ours without a break since our tenure of this number began."""
        return self.tenure == tenure and self.held

    def start(self) -> None:
        """Begin to ask."""
        self._tasks.start("keeper", self._keep())

    async def stop(self) -> None:
        """Stop asking and give the lease up, so that a standby need not wait for the TTL."""
        await self._tasks.close()
        held = self.held
        self._tenure.denied()
        if held:
            await self._release()

    async def ask(self) -> bool:
        """Ask once; return whether the lease is ours."""
        asked_s, renews = self._now_s(), self.held
        able = self._able()
        if able:
            self._able_s = asked_s
        elif not renews:
            self.reason, self.mistaken = DEAF, False
            return False
        try:
            async with asyncio.timeout(self._every_s):
                if asked_s - self._able_s >= UNABLE_S and await self._redis.exists(self._waits):
                    await self._leave()
                    return False
                if not renews:
                    self._lease.forget()
                    fence, layout = await self._redis.mget(f"{self._shared}fence:{self.name}", self._shared + LAYOUT)
                    self._tenure.seen(int(fence or 0), self._now_s())
                    if self._partitions and layout is not None and int(layout) != self._partitions:
                        self._refuse_layout(int(layout))
                        return False
                if self._tenure.may_ask(asked_s):
                    granted = await self._lease.hold()
                    if renews and not self.held:
                        return False  # too late: that tenure is over, the next question begins another
                    about = "" if granted else await self._lease.holder_about()
                    if not granted and about in ("", self.about):
                        await self._redis.set(self._waits, 1, px=self._ttl_ms)
                    self._answer(granted, asked_s, about)
        except Exception as error:  # redis-py raises its own tree besides OSError; all of it means: no answer
            self._tenure.away()
            self.reason = f"the lease cannot be renewed: {str(error) or type(error).__name__}"
        return self.held

    def _refuse_layout(self, layout: int) -> None:
        mine = self._partitions
        reason = f"the cache has {layout} partitions, this listener MDQ_PARTITIONS={mine}: correct it, or move the cache "
        reason += f"(python -m mdp repartition --to {mine})"
        if reason != self.reason:
            log.error("other_layout", lease=self.name, error=reason)
        self.reason, self.mistaken = reason, False

    async def _leave(self) -> None:
        """Let the standby have the lease: we can do nothing with it."""
        self._tenure.left()
        self.reason, self.mistaken = DEAF, False
        log.warning("lease_given_up", lease=self.name, reason=self.reason)
        await self._lease.release()

    async def _release(self) -> None:
        with contextlib.suppress(Exception):  # then it runs out by itself
            async with asyncio.timeout(self._every_s):
                await self._lease.release()

    def _answer(self, granted: bool, asked_s: float, about: str) -> None:
        if granted:
            if not self.held:
                self.tenure += 1
                log.info("lease_acquired", lease=self.name, epoch=self.epoch)
            self._tenure.granted(asked_s)
            self.reason, self.mistaken = "", False
            return
        self._tenure.denied()
        mistaken = about not in ("", self.about)
        self.reason = f"another listener holds the source {self._source}"
        if mistaken:
            self.reason += f" for something else ({about}; here it is {self.about}): give one of them another MDL_SOURCE"
            if not self.mistaken:
                log.error("source_name_taken", source=self._source, holder=about, here=self.about)
        self.mistaken = mistaken

    async def _keep(self) -> None:
        while True:
            began_s = self._now_s()
            await self.ask()
            now_s = self._now_s()
            await asyncio.sleep(max(0.05, self._tenure.next_s(now_s, self._every_s) - (now_s - began_s)))

    def _now_s(self) -> float:
        return self._clock.mono_ns() / 1e9
