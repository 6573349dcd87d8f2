"""One in-memory queue: the rules that RabbitMQ's queues have, against a plain model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdq.batch import Batch
from mdq.memory_queue import Consumer, Entry, MemoryQueue
from mdq.topology import queue

MS = 1_000_000


def batch(seq: int, size: int = 3) -> Batch:
    return Batch("s", 0, "trades", 0, "e", seq, 1, 0, 0, 0, b"x" * size)


def filled(count: int, **bounds: int) -> MemoryQueue:
    made = MemoryQueue(queue("trades", 0, **bounds))
    for seq in range(count):
        made.push(batch(seq), 0)
    return made


def seqs(given_out: list[tuple[Consumer, Entry]]) -> list[int]:
    return [entry.batch.seq for _, entry in given_out]


def test_entries_expire_when_their_time_has_come() -> None:
    """An entry waits for its TTL to the nanosecond, then it is gone and counted."""
    made = filled(2, ttl_ms=10)
    assert made.expires_ns == 10 * MS
    made.expire(10 * MS - 1)
    assert len(made) == 2
    made.expire(10 * MS)
    assert (len(made), made.expired_batches) == (0, 2)


def test_what_a_consumer_holds_does_not_expire() -> None:
    """Only waiting entries expire; given back, an entry keeps the time it had."""
    made = filled(2, ttl_ms=10)
    consumer = Consumer(prefetch=1)
    made.consumers.append(consumer)
    [(_, held)] = made.assign(0)
    made.expire(20 * MS)
    assert len(made) == 0
    made.consumers.clear()
    made.give_back([held])
    assert held.redelivered
    made.expire(20 * MS)
    assert made.expired_batches == 2


def test_what_the_consumer_takes_is_not_dropped() -> None:
    """The byte bound counts what still waits after the active consumer was served, oldest first."""
    made = MemoryQueue(queue("trades", 0, bytes_max=10))
    made.consumers.append(Consumer(prefetch=1))
    for seq in range(5):
        made.push(batch(seq, size=6), 0)
    assert seqs(made.assign(0)) == [0]
    assert (len(made), made.dropped_batches) == (1, 3)


def test_a_batch_above_the_bound_alone_is_dropped() -> None:
    """A single batch larger than the queue's bound does not stay either, as with RabbitMQ."""
    made = MemoryQueue(queue("trades", 0, bytes_max=10))
    made.push(batch(0, size=11), 0)
    made.assign(0)
    assert (len(made), made.dropped_batches) == (0, 1)


def test_returned_entries_stand_where_they_were() -> None:
    """Given back in any order, entries are in front of everything younger, in their own order."""
    made = filled(6)
    first = Consumer(prefetch=4)
    made.consumers.append(first)
    held = [entry for _, entry in made.assign(0)]
    made.consumers.clear()
    made.give_back([held[3], held[1]])
    made.give_back([held[0]])
    made.consumers.append(Consumer(prefetch=100))
    assert seqs(made.assign(0)) == [0, 1, 3, 4, 5]


Step = st.tuples(st.sampled_from(["push", "take", "ack", "return", "clear"]), st.integers(0, 5))


@given(st.lists(Step, max_size=50))
def test_nothing_is_lost_or_doubled(steps: list[tuple[str, int]]) -> None:
    """Through pushes, deliveries, acknowledgements and returns each batch is in one place, in order, and bytes add up."""
    made = MemoryQueue(queue("trades", 0))
    consumer = Consumer(prefetch=3)
    waiting: list[int] = []
    held: list[Entry] = []
    pushed = 0
    for kind, number in steps:
        if kind == "push":
            made.push(batch(pushed), 0)
            waiting.append(pushed)
            pushed += 1
        elif kind == "take":
            made.consumers[:] = [consumer]
            got = made.assign(0)
            made.consumers.clear()
            assert seqs(got) == waiting[: 3 - len(held)]
            del waiting[: len(got)]
            held += [entry for _, entry in got]
        elif kind == "clear":
            made.clear()
            waiting.clear()
        elif held:
            back, held = (held, []) if kind == "return" else (held[:number], held[number:])
            consumer.held -= len(back)
            if kind == "return":
                made.give_back(back)
                waiting = sorted([*waiting, *(entry.batch.seq for entry in back)])
        assert consumer.held == len(held)
        assert len(made) == len(waiting)
