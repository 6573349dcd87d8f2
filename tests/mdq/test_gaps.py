"""What is new, old or lost, to the event."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mdq.batch import Batch, new_epoch
from mdq.gaps import FENCE_NS, SOURCES_MAX, Arrival, GapCounter, Position, StreamGaps, Verdict

TTL_NS = 5_000_000_000
NOW_NS = 1_700_000_000_000_000_000
NEW = Arrival(Verdict.NEW)


def at(seconds: float) -> int:
    return NOW_NS + int(seconds * 1e9)


def started(epoch: str = "b", seq: int = 100, seconds: float = 0) -> StreamGaps:
    """A counter that has just read the one event before `seq`."""
    gaps = StreamGaps(TTL_NS)
    gaps.on_batch(epoch, seq - 1, 1, at(seconds), at(seconds))
    return gaps


def test_the_first_batch_sets_the_position() -> None:
    """Who joins a running stream misses nothing: history is not counted as lost."""
    gaps = StreamGaps(TTL_NS)
    assert gaps.on_batch("b", 7000, 10, at(0), at(0)) == NEW
    assert gaps.position == Position("b", 7010, at(0))


def test_consecutive_batches_are_new() -> None:
    """Without a gap nothing is lost, old or skipped."""
    gaps = started()
    assert gaps.on_batch("b", 100, 50, at(1), at(1)) == NEW
    assert gaps.on_batch("b", 150, 1, at(2), at(2)) == NEW
    assert gaps.seq == 151


def test_a_gap_is_counted_in_events() -> None:
    """The distance between expected and found is the number of lost events."""
    assert started().on_batch("b", 142, 5, at(1), at(1)) == Arrival(Verdict.NEW, dropped=42)


def test_a_mark_reveals_the_loss_of_the_tail() -> None:
    """When the last batches are lost and nothing follows, the next mark tells how many events they had."""
    gaps = started()
    assert gaps.on_batch("b", 100, 0, at(1), at(1)) == NEW
    assert gaps.on_batch("b", 130, 0, at(2), at(2)) == Arrival(Verdict.NEW, dropped=30)
    assert gaps.on_batch("b", 130, 4, at(2), at(2)) == NEW


def test_a_late_mark_changes_nothing() -> None:
    """A mark that tells an older position than ours is a duplicate."""
    assert started().on_batch("b", 90, 0, at(1), at(1)).verdict is Verdict.DUPLICATE


def test_seen_batches_are_duplicates() -> None:
    """Redelivered or republished, a batch before the position is skipped whole."""
    gaps = started()
    assert gaps.on_batch("b", 80, 20, at(0), at(1), redelivered=True) == Arrival(Verdict.DUPLICATE, skip=20)
    assert gaps.seq == 100
    assert gaps.totals.redelivered == gaps.totals.duplicate == 20


def test_a_batch_across_the_position_is_partly_old() -> None:
    """A checkpoint within a batch skips exactly the events before it."""
    gaps = started()
    assert gaps.on_batch("b", 95, 20, at(1), at(1)) == Arrival(Verdict.PARTLY_OLD, skip=5)
    assert gaps.seq == 115


def test_loss_after_a_long_wait_is_expiry() -> None:
    """When the batch before the gap was sent a TTL ago, the lost ones may have waited that long: they expired."""
    assert started().on_batch("b", 110, 1, at(4), at(6)).expired == 10


def test_loss_while_keeping_up_is_dropping() -> None:
    """When the batch before the gap was sent less than a TTL ago nothing can have expired."""
    assert started().on_batch("b", 110, 1, at(4), at(4.9)).dropped == 10


def test_a_restored_position_continues() -> None:
    """After a crash everything up to the checkpoint is old and the next event is new; a gap counts as expired."""
    gaps = StreamGaps(TTL_NS)
    gaps.restore(Position("b", 500))
    assert gaps.on_batch("b", 400, 100, at(0), at(1), redelivered=True).verdict is Verdict.DUPLICATE
    assert gaps.on_batch("b", 500, 10, at(0), at(1)) == NEW
    later = StreamGaps(TTL_NS)
    later.restore(Position("b", 500))
    assert later.on_batch("b", 700, 10, at(0), at(1)) == Arrival(Verdict.NEW, expired=200)


def test_a_position_knows_when_it_was_sent() -> None:
    """With the time in the checkpoint a quick take-over tells dropped from expired."""
    gaps = StreamGaps(TTL_NS)
    gaps.restore(Position("b", 500, at(0)))
    assert gaps.on_batch("b", 700, 10, at(1), at(1)) == Arrival(Verdict.NEW, dropped=200)


def test_a_new_publisher_counts_from_zero() -> None:
    """A newer epoch starts at 0; what is missing of its beginning was lost."""
    assert started().on_batch("c", 0, 10, at(1), at(1)) == NEW
    gaps = started()
    assert gaps.on_batch("c", 30, 10, at(1), at(1)) == Arrival(Verdict.NEW, dropped=30)
    assert gaps.position == Position("c", 40, at(1), "b", 100)


def test_a_replaced_publisher_is_fenced_off() -> None:
    """While the newer publisher is heard, late batches of the older one are skipped and change nothing."""
    gaps = started()
    assert gaps.on_batch("a", 5000, 10, at(1), at(1)) == Arrival(Verdict.FENCED, skip=10)
    assert gaps.position == Position("b", 100, at(0))
    assert gaps.totals.fenced == 10


def test_an_older_epoch_may_speak_when_the_newer_is_silent() -> None:
    """A publisher whose clock runs behind is not refused for ever; its first batch sets the position."""
    gaps = started()
    silent_s = FENCE_NS / 1e9 + 0.1
    assert gaps.on_batch("a", 5000, 10, at(silent_s), at(silent_s)) == NEW
    assert gaps.position.epoch == "a"


def test_after_a_restore_redelivered_older_epochs_stay_out() -> None:
    """What an older publisher sent before the checkpoint was processed by our predecessor, however late it comes back."""
    gaps = StreamGaps(TTL_NS)
    gaps.restore(Position("b", 500))
    assert gaps.on_batch("a", 90, 10, at(0), at(0)).verdict is Verdict.FENCED
    assert gaps.on_batch("a", 90, 10, at(0), at(60), redelivered=True).verdict is Verdict.FENCED


def test_streams_of_a_partition_are_counted_apart() -> None:
    """One counter holds all streams of a partition; each has its own position and its own TTL."""
    counter = GapCounter()
    counter.restore("s", "trades", Position("b", 10))
    assert counter.observe(Batch("s", 0, "trades", 0, "b", 12, 1, at(0), at(0), at(0), b"[1]"), at(0)).expired == 2
    assert counter.observe(Batch("s", 0, "news", 0, "b", 40, 1, at(0), at(0), at(0), b"[1]"), at(0)) == NEW
    assert (
        counter.observe(Batch("s", 0, "news", 0, "b", 43, 1, at(0), at(0), at(0), b"[1]"), at(60)).dropped == 2
    )  # news live 15 minutes
    assert list(counter.positions()) == [("s", "trades", Position("b", 13, at(0))), ("s", "news", Position("b", 44, at(0)))]


@given(st.data())
def test_every_event_is_new_or_lost_exactly_once(data: st.DataObject) -> None:
    """Whatever is lost, repeated or redelivered: the new events are those that arrived, the lost ones the others."""
    counts = data.draw(st.lists(st.integers(0, 4), max_size=30))
    batches, seq = [], 0
    for count in counts:
        batches.append((seq, count))
        seq += count
    gaps = StreamGaps(TTL_NS)
    gaps.restore(Position("b", 0))
    taken: list[int] = []
    position = 0
    while position < len(batches):
        start, count = batches[position]
        if not data.draw(st.booleans()) or position == len(batches) - 1:  # the last one always arrives
            arrival = gaps.on_batch("b", start, count, at(0), at(0))
            taken += range(start + arrival.skip, start + count)
            back = data.draw(st.integers(0, 3))
            for old_start, old_count in batches[max(0, position - back) : position]:
                old = gaps.on_batch("b", old_start, old_count, at(0), at(0), redelivered=True)
                taken += range(old_start + old.skip, old_start + old_count)
        position += 1
    assert taken == sorted(set(taken))
    assert gaps.totals.new == len(taken)
    assert gaps.totals.new + gaps.totals.expired + gaps.totals.dropped == seq


def test_sources_know_nothing_of_each_other() -> None:
    """Two vendor connections on one queue: each counts from where it began, neither fences the other."""
    counter = GapCounter()
    older = Batch("stocks", 0, "trades", 0, "a", 5, 1, at(0), at(0), at(0), b"[1]")
    newer = Batch("crypto", 0, "trades", 0, "b", 900, 1, at(0), at(0), at(0), b"[1]")
    assert counter.observe(older, at(0)) == NEW
    assert counter.observe(newer, at(0)) == NEW
    assert counter.observe(replace(older, seq=6), at(1)) == NEW
    assert counter.observe(replace(newer, seq=903), at(1)).dropped == 2
    assert counter.observe(replace(older, epoch="b", seq=0), at(1)) == NEW
    assert counter.observe(replace(older, seq=7), at(1)).verdict is Verdict.FENCED


def test_a_tenure_younger_than_the_life_is_counted_from_its_start() -> None:
    """Who read its first events may have died before the first checkpoint, and they expired: they are missed, not joined."""
    life_ms = at(0) // 1_000_000
    counter = GapCounter(since_ms=life_ms)
    young, old = new_epoch(at(1), 0.5), new_epoch(at(-1), 0.5)
    assert counter.observe(Batch("s", 0, "trades", 0, young, 40, 2, at(9), at(9), at(9), b"[1]"), at(9)).expired == 40
    assert counter.observe(Batch("t", 0, "trades", 0, old, 40, 2, at(9), at(9), at(9), b"[1]"), at(9)) == NEW
    counter.forgot()
    assert counter.observe(Batch("u", 0, "trades", 0, young, 40, 2, at(9), at(9), at(9), b"[1]"), at(9)) == NEW


def test_only_so_many_sources_are_remembered() -> None:
    """The one not heard for longest makes room; when it comes back it begins as a new one."""
    counter = GapCounter()
    for number in range(SOURCES_MAX + 1):
        counter.observe(Batch(f"s{number}", 0, "trades", 0, "a", 5, 1, 0, at(number), 0, b"[1]"), at(number))
    known = [source for source, _, _ in counter.positions()]
    assert len(known) == SOURCES_MAX
    assert "s0" not in known


def test_what_was_read_of_the_tenure_before_is_past_and_not_refused() -> None:
    """Given up and taken again, a queue repeats what came before the new publisher: it was counted then, here or by a predecessor."""
    gaps = started()
    assert gaps.on_batch("c", 0, 10, at(1), at(1)) == NEW
    heir = StreamGaps(TTL_NS)
    heir.restore(gaps.position)
    for reader in (gaps, heir):
        assert reader.on_batch("b", 80, 20, at(0), at(1), redelivered=True) == Arrival(Verdict.PAST, skip=20)
        assert reader.on_batch("b", 80, 21, at(0), at(1), redelivered=True).verdict is Verdict.FENCED  # that came too late
        assert reader.on_batch("b", 100, 0, at(0), at(1)).verdict is Verdict.FENCED  # a mark of who is replaced
        assert reader.totals.fenced == 21
        assert reader.on_batch("c", 10, 5, at(1), at(1)) == NEW
