"""What a worker holds of a partition that it owns: state, subscription, and the flush under way."""

from __future__ import annotations

from dataclasses import dataclass, field

from mdc.writer import Flush
from mdp.partitions.partition import Partition
from mdq.broker import Subscription
from mdq.gaps import Position
from service.tracing import Span

HEARD_NS = 2_500_000_000  # a source marks every queue once a second
STUCK_NS = 3_000_000_000  # nothing of the partition has reached the cache for so long although something should


@dataclass(slots=True)
class Owned:
    """A partition of ours. Times are monotonic ns."""

    partition: Partition
    subscription: Subscription | None = None
    tag: int = 0  # newest delivery taken
    flush: Flush | None = None  # collected, not yet applied: sent again unchanged until the cache says what became of it
    whole: bool = False  # of the flush under way: it holds everything up to `flush_tag`, not only what is watched
    due_ns: int = 0  # when everything is to be flushed next
    again_ns: int = 0  # not before: its node of a cluster did not take a flush, and the others' must not wait for it
    flush_tag: int = 0
    flush_oldest_ns: dict[str, int] = field(default_factory=dict)
    refused: bool = False  # a flush was refused; the next beat decides what to do
    failing_ns: int = 0  # since when the cache does not take our flushes; 0 = it does
    heard_ns: dict[str, int] = field(default_factory=dict)  # source → when anything of it, a mark too, arrived
    positions: list[tuple[str, str, Position]] = field(default_factory=list)  # of the flush under way
    safe: list[tuple[str, str, Position]] = field(default_factory=list)  # of the last flush that was applied
    taken: dict[str, int] = field(default_factory=dict)  # stream → batches taken since the last whole flush was collected
    waiting: int = 0  # events in them
    trace: str | None = None  # of a batch taken since the last flush was collected
    span: Span | None = None  # of the flush under way, when such a batch is in it
    facts: dict[str, str] = field(default_factory=dict)  # day and sheet → which one of it was taken in

    @property
    def trading_days(self) -> set[int]:
        """The trading days of stocks (starts, ms) that its symbols are in."""
        return {day for analyzer in self.partition.analyzers for day in analyzer.trading_days}

    @property
    def reads(self) -> bool:
        """Whether we are subscribed to its queues."""
        return self.subscription is not None and self.subscription.live

    def flows(self, now_ns: int) -> bool:
        """Whether what arrives reaches the cache."""
        return self.reads and not self.refused and not (self.failing_ns and now_ns - self.failing_ns > STUCK_NS)

    def hears(self, source: str, now_ns: int) -> bool:
        """Whether the source was heard here lately."""
        return now_ns - self.heard_ns.get(source, -HEARD_NS) < HEARD_NS
