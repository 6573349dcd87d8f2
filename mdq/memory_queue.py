"""Holds the batches of one queue and delivers them to its one active consumer by RabbitMQ's rules, without I/O or clock.

Invariant: entries leave in the order of their positions; a given-back entry returns to its own position.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from mdq.batch import Batch
from mdq.topology import Queue


@dataclass(slots=True)
class Entry:
    """A batch in the queue: where it stands and until when it may wait."""

    batch: Batch
    position: int
    expires_ns: int
    redelivered: bool = False


@dataclass(slots=True, eq=False)
class Consumer:
    """One who wants deliveries; only the first registered is active, the others stand by."""

    prefetch: int
    held: int = field(default=0)  # delivered, neither acknowledged nor given back

    @property
    def credit(self) -> int:
        return self.prefetch - self.held


class MemoryQueue:
    """One queue: TTL, byte bound with drop-head, FIFO, single active consumer. Only waiting entries expire or are dropped."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.consumers: list[Consumer] = []
        self.expired_batches = 0
        self.dropped_batches = 0
        self._ready: deque[Entry] = deque()
        self._bytes = 0
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def expires_ns(self) -> int | None:
        """When the oldest waiting entry expires."""
        return self._ready[0].expires_ns if self._ready else None

    def push(self, batch: Batch, now_ns: int) -> None:
        """Take a batch in; above the byte bound the oldest go."""
        self._ready.append(Entry(batch, self._pushed, now_ns + self.queue.ttl_ms * 1_000_000))
        self._pushed += 1
        self._bytes += len(batch.body)

    def assign(self, now_ns: int) -> list[tuple[Consumer, Entry]]:
        """Return what the active consumer gets now; its credit shrinks by that. What then does not fit is dropped."""
        self.expire(now_ns)
        given = []
        while self._ready and self.consumers and self.consumers[0].credit > 0:
            active = self.consumers[0]
            active.held += 1
            given.append((active, self._pop()))
        while self._bytes > self.queue.bytes_max:
            self._pop()
            self.dropped_batches += 1
        return given

    def expire(self, now_ns: int) -> None:
        """Forget what has waited for the queue's TTL."""
        while self._ready and self._ready[0].expires_ns <= now_ns:
            self._pop()
            self.expired_batches += 1

    def give_back(self, entries: Iterable[Entry]) -> None:
        """Put unacknowledged entries back to their positions, marked as redelivered."""
        back = list(entries)
        for entry in back:
            entry.redelivered = True
            self._bytes += len(entry.batch.body)
        self._ready = deque(sorted([*back, *self._ready], key=lambda entry: entry.position))

    def clear(self) -> int:
        """Forget every waiting entry, as a purge does, or a restart of messages that are not persistent; return how many."""
        forgotten = len(self._ready)
        self._ready.clear()
        self._bytes = 0
        return forgotten

    def _pop(self) -> Entry:
        entry = self._ready.popleft()
        self._bytes -= len(entry.batch.body)
        return entry
