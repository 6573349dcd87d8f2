"""Names the queues and their declaration arguments; the one place that knows what a queue is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.errors import OperatorError

EXCHANGE = "md"
PARTITIONED = ("trades", "quotes", "aggregates", "halts", "books", "news")
SINGLE = ("unknown", "status")  # one partition whatever the deployment says
STREAMS = PARTITIONED + SINGLE

STREAM_OF_EVENT = {
    "T": "trades", "XT": "trades",
    "Q": "quotes", "XQ": "quotes", "C": "quotes",
    "A": "aggregates", "AM": "aggregates", "XA": "aggregates", "XAS": "aggregates", "CA": "aggregates", "CAS": "aggregates",
    "V": "aggregates",
    "LULD": "halts",
    "L2": "books",
    "news": "news",
    "status": "status",
}  # fmt: skip

TTL_MS = 5_000
NEWS_TTL_MS = 900_000
LONG_KEPT = frozenset({"news"})  # what stands in their queues may be old: it says nothing of whether a source is alive
QUEUE_BYTES_MAX = 64 * 1024 * 1024
READER_MS = 60_000

QueueType = Literal["classic", "quorum"]
# What a quorum queue has beside the bounds. Three replicas, also in a larger cluster; their leaders are spread over its nodes.
# RabbitMQ 4.x takes a message away that was redelivered 20 times: of ours the TTL alone decides, so the limit is out of reach
# (a number, because 3.x knows no "never").
QUORUM: dict[str, int | str | bool] = {
    "x-quorum-initial-group-size": 3,
    "x-queue-leader-locator": "balanced",
    "x-delivery-limit": 1_000_000,
}


@dataclass(frozen=True, slots=True)
class Queue:
    """One subscription stream and partition, and the bounds of its queue."""

    stream: str
    partition: int
    ttl_ms: int = TTL_MS
    bytes_max: int = QUEUE_BYTES_MAX
    reader: str = ""  # a queue of one reader's own; it goes when nobody has used it for a minute

    @property
    def key(self) -> str:
        """The routing key; several queues may be bound to it, each gets every message."""
        return f"md.{self.stream}.{self.partition}"

    @property
    def name(self) -> str:
        return f"{self.key}.{self.reader}" if self.reader else self.key

    def arguments(self, kind: QueueType = "classic") -> dict[str, int | str | bool]:
        """Return declaration arguments that RabbitMQ 3.10 to 4.x accept alike (durable, no mirroring)."""
        own: dict[str, int | str | bool] = {"x-expires": READER_MS} if self.reader else {}
        return own | {
            "x-queue-type": kind,
            "x-message-ttl": self.ttl_ms,
            "x-max-length-bytes": self.bytes_max,
            "x-overflow": "drop-head",
            "x-single-active-consumer": True,
            **(QUORUM if kind == "quorum" else {}),
        }


def queue(stream: str, partition: int, ttl_ms: int | None = None, bytes_max: int = QUEUE_BYTES_MAX) -> Queue:
    """Return the queue of a stream and partition; `ttl_ms` None means the stream's own."""
    default_ms = NEWS_TTL_MS if stream in LONG_KEPT else TTL_MS
    return Queue(stream, partition, default_ms if ttl_ms is None else ttl_ms, bytes_max)


def progress_queue(source: str = "") -> Queue:
    """Return the queue in which a lossless source hears how far the processors are; little is kept.

    Every source has one of its own, bound to the same key: each hears every report. The one without a name is always
    there, so that a report has somewhere to go.
    """
    return Queue("progress", 0, ttl_ms=1_000, bytes_max=1024 * 1024, reader=source)


def all_queues(partitions: int, bytes_max: int = QUEUE_BYTES_MAX) -> list[Queue]:
    """Return every queue of a deployment with `partitions` partitions."""
    many = [queue(stream, p, bytes_max=bytes_max) for stream in PARTITIONED for p in range(partitions)]
    return many + [queue(stream, 0, bytes_max=bytes_max) for stream in SINGLE]


def queues_of(partition: int, bytes_max: int = QUEUE_BYTES_MAX) -> list[Queue]:
    """Return the queues that the owner of `partition` reads; partition 0 also reads the single ones."""
    streams = STREAMS if partition == 0 else PARTITIONED
    return [queue(stream, partition, bytes_max=bytes_max) for stream in streams]


def other_arguments(wanted: Queue, detail: str) -> OperatorError:
    """Return the error for a queue that exists with other bounds: AMQP cannot change them, only an operator can."""
    if "arg 'x-queue-type'" in detail:
        what = f"queue {wanted.name} exists with another type ({detail})"
        fix = "Set MDQ_QUEUE_TYPE to the type that is there, or stop every listener and processor and run python -m mdq redeclare"
        return OperatorError(what, fix)
    what = f"queue {wanted.name} exists with other arguments ({detail})"
    return OperatorError(what, f"Delete it (rabbitmqctl delete_queue {wanted.name}) or use a vhost of its own in MDQ_URL")
