"""Shows operators how full the queues are, how old their oldest batch is, and who reads them; throws away what waits in one.

The age comes from what this listener published, because AMQP tells nobody how old a message is: of n waiting batches the oldest
is at most as old as the n-th last one published from here. Where others publish to the same queue, too, it is younger than that.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import structlog
from litestar import delete, get
from litestar.exceptions import HTTPException, NotFoundException
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from mdl.settings import MdlSettings
from mdq.broker import Broker, BrokerUnavailable
from mdq.topology import Queue, all_queues
from service.admin import require_admin
from service.clock import Clock

log = structlog.get_logger()


class Ages:
    """Remembers when how much had been published to each queue, for as long as a batch may wait."""

    def __init__(self, queues: Sequence[Queue]) -> None:
        self._kept_ns = {(queue.stream, queue.partition): (queue.ttl_ms + 1_000) * 1_000_000 for queue in queues}
        self._seen: dict[tuple[str, int], deque[tuple[int, int]]] = {}

    def sample(self, published: Mapping[tuple[str, int], int], now_ns: int) -> None:
        """Take the totals of batches as they are now; ten times a second."""
        for place, total in published.items():
            seen = self._seen.setdefault(place, deque())
            if not seen or seen[-1][1] != total:
                seen.append((now_ns, total))
            oldest_ns = now_ns - self._kept_ns.get(place, 0)
            while seen and seen[0][0] < oldest_ns:
                seen.popleft()

    def age_ms(self, queue: Queue, waiting: int, total: int, now_ns: int) -> float:
        """Return how old the oldest of `waiting` batches is at most; 0 for none, its lifetime where it is not known."""
        if not waiting:
            return 0.0
        first = total - waiting + 1
        for at_ns, until in self._seen.get((queue.stream, queue.partition), ()):
            if until >= first:
                return round(min(queue.ttl_ms, (now_ns - at_ns) / 1e6), 1)
        return float(queue.ttl_ms)


class Publishing(Protocol):
    """What the routes need of a listener."""

    settings: MdlSettings
    broker: Broker
    clock: Clock
    ages: Ages
    published: Counter[tuple[str, int]]


def routes(listener: Publishing) -> list[ControllerRouterHandler]:
    """Return the admin port's handlers."""

    @get("/queues", guards=[require_admin])
    async def queues() -> dict[str, Any]:
        return {"queues": await survey(listener)}

    @delete("/queues/{name:str}", guards=[require_admin], status_code=200)
    async def purge(name: FromPath[str]) -> dict[str, Any]:
        found = next((one for one in all_queues(listener.settings.mdq_partitions) if one.name == name), None)
        if found is None:
            raise NotFoundException(f"There is no queue {name[:64]!r}; GET /queues lists them")
        try:
            purged = await listener.broker.purge(found)
        except BrokerUnavailable as error:
            raise HTTPException(str(error), status_code=503) from None
        log.warning("queue_purged", queue=name, batches=purged)
        return {"name": name, "purged_batches": purged}

    return [queues, purge]


async def survey(listener: Publishing) -> list[dict[str, Any]]:
    """Return all queues of the deployment.  Raises: HTTPException 503 while the broker is away."""
    queues = all_queues(listener.settings.mdq_partitions)
    try:
        found = await listener.broker.survey(queues)
    except BrokerUnavailable as error:
        raise HTTPException(str(error), status_code=503) from None
    now_ns, published = listener.clock.mono_ns(), listener.published
    return [
        {
            "name": queue.name,
            "stream": queue.stream,
            "partition": queue.partition,
            "depth": found[queue.name].batches,
            "consumers": found[queue.name].consumers,
            "ttl_ms": queue.ttl_ms,
            "bytes_max": queue.bytes_max,
            "age_ms": listener.ages.age_ms(queue, found[queue.name].batches, published[queue.stream, queue.partition], now_ns),
        }
        for queue in queues
    ]
