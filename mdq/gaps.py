"""Judges batches by their headers: what is new, already seen or lost; exact, per (source, stream) of a partition.

Invariant: every event that the publisher numbered up to the newest batch seen is counted once: as new, or as lost
(expired or dropped). Duplicates, redelivered or republished, are never new again.

Rules:
- Sources know nothing of each other: each has its own epoch and positions.
- An epoch is one tenure of the source's lease and sorts by time. A newer epoch counts from 0: what is missing at its start
  was lost.
- Without a position we join. A tenure that began before the life of what we count for is joined where it stands: what it
  published earlier was never ours to miss. A younger one counts from 0, too: who read it before us may have died without a word.
- An older epoch is refused (`fenced`) while the newer publisher of the source is alive, that is, was heard within 3 s (it
  marks every queue each second): the older is a listener that lost its lease and flushes late. When the newer one is silent
  the older may speak again: a source without a lease, on a clock that runs behind, must not be silenced for ever.
- A batch of the tenure before that we have read already comes again when the queue's reader changes: it is `past`, not refused.
- Lost events are `expired` when they may have waited for a whole TTL: the batch before them was sent a TTL or more before
  the one after them arrived (or is not known: we start from a checkpoint). Otherwise the consumer kept up and they
  were `dropped`: by the byte bound, a broker restart, or the publisher itself. Clocks of the two hosts are compared,
  so the split is as good as their synchronisation; the sum is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from mdq.batch import Batch, began_ms
from mdq.topology import queue

FENCE_NS = 3_000_000_000
SOURCES_MAX = 64
NEVER_MS = 1 << 62  # later than every tenure: all are joined where they stand


class Verdict(Enum):
    """What to do with a batch."""

    NEW = "new"
    PARTLY_OLD = "partly old"  # skip the first `skip` events
    DUPLICATE = "duplicate"  # skip it all
    FENCED = "fenced"  # of a publisher that has been replaced: skip it all
    PAST = "past"  # of the tenure before, and read then: skip it all


@dataclass(frozen=True, slots=True)
class Arrival:
    """The judgement of one batch: `skip` leading events are old; `expired` + `dropped` events were lost before it."""

    verdict: Verdict
    skip: int = 0
    expired: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream has been read: up to before `seq` of `epoch`. `sent_ns`: when the last batch was sent; 0 not known.

    `past_epoch`, `past_seq`: the same of the tenure before, "" = there was none.
    """

    epoch: str
    seq: int
    sent_ns: int = 0
    past_epoch: str = ""
    past_seq: int = 0


@dataclass(slots=True)
class GapTotals:
    """Events of one stream counted so far."""

    new: int = 0
    duplicate: int = 0
    redelivered: int = 0
    fenced: int = 0
    expired: int = 0
    dropped: int = 0
    epochs: int = 0


class GapCounter:
    """The positions of all sources' streams in one partition. `since_ms`: when the life began that they are counted for.

    At most `SOURCES_MAX` sources are remembered; when one more comes, the one not heard for longest is forgotten.
    """

    def __init__(self, ttl_ns: int | None = None, since_ms: int = NEVER_MS) -> None:
        self._ttl_ns = ttl_ns  # None: each stream's own
        self._since_ms = since_ms
        self._sources: dict[str, dict[str, StreamGaps]] = {}

    def forgot(self) -> None:
        """Positions were lost: a stream without one may have been read from its start and is joined where it stands."""
        self._since_ms = NEVER_MS

    def observe(self, batch: Batch, now_ns: int, redelivered: bool = False) -> Arrival:
        """Judge a batch that arrives at wall clock `now_ns` and move its stream's position behind it."""
        gaps = self.stream(batch.source, batch.stream)
        return gaps.on_batch(batch.epoch, batch.seq, batch.count, batch.sent_ns, now_ns, redelivered)

    def restore(self, source: str, stream: str, position: Position) -> None:
        """Continue a stream of a source from a checkpoint."""
        self.stream(source, stream).restore(position)

    def positions(self) -> Iterator[tuple[str, str, Position]]:
        """Yield (source, stream, position) of everything read, for a checkpoint."""
        return ((source, stream, gaps.position) for source, streams in self._sources.items() for stream, gaps in streams.items())

    def stream(self, source: str, stream: str) -> StreamGaps:
        """Return the counter of one stream of a source (its `totals`), made on first use."""
        streams = self._sources.get(source)
        if streams is None:
            streams = self._sources[source] = {}
            while len(self._sources) > SOURCES_MAX:
                del self._sources[min(self._sources, key=self._heard_ns)]
                self.forgot()
        found = streams.get(stream)
        if found is None:
            ttl_ns = queue(stream, 0).ttl_ms * 1_000_000 if self._ttl_ns is None else self._ttl_ns
            found = streams[stream] = StreamGaps(ttl_ns, self._since_ms)
        return found

    def _heard_ns(self, source: str) -> int:
        return max((gaps.heard_ns for gaps in self._sources[source].values()), default=1 << 63)  # a new one is not the oldest


class StreamGaps:
    """The position in one (stream, partition)."""

    def __init__(self, ttl_ns: int, since_ms: int = NEVER_MS) -> None:
        self.epoch = ""
        self.seq = 0  # of the next event expected
        self.totals = GapTotals()
        self._ttl_ns = ttl_ns
        self._since_ms = since_ms
        self._sent_ns = 0  # when the last batch judged new was sent (publisher's wall clock); 0 not known
        self.heard_ns = 0  # when the current publisher was last heard (our wall clock)
        self._past = "", 0  # the tenure before, and how far it was read

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.seq, self._sent_ns, *self._past)

    def restore(self, position: Position) -> None:
        """Continue from a checkpoint."""
        self.epoch, self.seq, self._sent_ns, self.heard_ns = position.epoch, position.seq, position.sent_ns, 0
        self._past = position.past_epoch, position.past_seq

    def on_batch(self, epoch: str, seq: int, count: int, sent_ns: int, now_ns: int, redelivered: bool = False) -> Arrival:
        """Judge a batch (or a mark: `count` 0) that arrives at wall clock `now_ns` and move the position behind it."""
        self.heard_ns = self.heard_ns or now_ns  # after a restore: as if the publisher had been heard just now
        if redelivered:
            self.totals.redelivered += count
        if epoch != self.epoch and not self._change_epoch(epoch, seq, now_ns, redelivered):
            if count and epoch == self._past[0] and seq + count <= self._past[1]:
                self.totals.duplicate += count
                return Arrival(Verdict.PAST, skip=count)
            self.totals.fenced += count
            return Arrival(Verdict.FENCED, skip=count)
        self.heard_ns = now_ns
        if seq < self.seq and seq + count <= self.seq:
            self.totals.duplicate += count
            return Arrival(Verdict.DUPLICATE, skip=count)
        return self._advance(seq, count, sent_ns, now_ns)

    def _change_epoch(self, epoch: str, seq: int, now_ns: int, redelivered: bool) -> bool:
        """Begin `epoch`; return False when its publisher has been replaced."""
        newer = epoch > self.epoch
        # Redelivered, it was given to our predecessor before what the position already covers.
        if not newer and (redelivered or now_ns - self.heard_ns < FENCE_NS):
            return False
        if self.epoch:
            self._past = self.epoch, self.seq
        ours = bool(self.epoch) or began_ms(epoch) > self._since_ms
        self.seq = 0 if newer and ours else seq  # joining, or hearing an old one again: history is not ours to miss
        self.epoch = epoch
        self.totals.epochs += 1
        return True

    def _advance(self, seq: int, count: int, sent_ns: int, now_ns: int) -> Arrival:
        skip = max(0, self.seq - seq)
        lost = max(0, seq - self.seq)
        expired = lost if now_ns - self._sent_ns >= self._ttl_ns else 0
        self.seq = seq + count
        self._sent_ns = sent_ns
        self.totals.new += count - skip
        self.totals.duplicate += skip
        self.totals.expired += expired
        self.totals.dropped += lost - expired
        return Arrival(Verdict.PARTLY_OLD if skip else Verdict.NEW, skip, expired, lost - expired)
