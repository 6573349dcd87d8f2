"""Events to batches: when they close, how they grow, what is published again, what is given up."""

from __future__ import annotations

import itertools

import msgspec
import orjson
from hypothesis import given
from hypothesis import strategies as st

from mdq.batch import Batch
from mdq.batcher import Batcher, Limits, Sent

MS = 1_000_000
S = 1_000_000_000
WALL = 1_700_000_000 * S


def numbered(first: int, count: int) -> list[bytes]:
    return [b"%d" % n for n in range(first, first + count)]


def close(batcher: Batcher, now_ns: int = 0, online: bool = True, flush: bool = False) -> list[Sent]:
    batcher.close_due(now_ns, WALL + now_ns, online, flush)
    return batcher.take() if online else []


def shape(sent: list[Sent]) -> list[tuple[int, int]]:
    return [(one.batch.seq, one.batch.count) for one in sent]


def test_the_body_is_the_events_as_they_came() -> None:
    """The body is a JSON array with the bytes of every event untouched, also of msgspec's raw slices."""
    batcher = Batcher("s", "e")
    events = [b'{"p":1.10}', memoryview(b'{ "p" : 2 }'), msgspec.Raw(b'{"s":"\xc3\xa9"}')]
    batcher.add("trades", 1, events, WALL, 0)  # type: ignore[arg-type]
    [sent] = close(batcher, 5 * MS)
    assert sent.batch == Batch(
        "s", 0, "trades", 1, "e", 0, 3, WALL, WALL + 5 * MS, WALL, b'[{"p":1.10},{ "p" : 2 },{"s":"\xc3\xa9"}]'
    )
    assert len(orjson.loads(sent.batch.body)) == 3


def test_a_batch_closes_after_the_linger() -> None:
    """An open batch waits 5 ms for company, then leaves."""
    batcher = Batcher("s", "e")
    batcher.add("trades", 0, [b"1"], WALL, 10 * MS)
    assert batcher.due_ns == 15 * MS
    assert close(batcher, 13 * MS) == []
    batcher.add("trades", 0, [b"2"], WALL, 13 * MS)
    assert shape(close(batcher, 15 * MS)) == [(0, 2)]
    assert batcher.due_ns is None


def test_a_batch_closes_at_500_events() -> None:
    """Without congestion no batch is larger than 500 events; what is left waits for its own linger."""
    batcher = Batcher("s", "e")
    assert not batcher.add("trades", 0, numbered(0, 499), WALL, 0)
    assert batcher.add("trades", 0, numbered(499, 701), WALL + 3, 1 * MS)
    sent = close(batcher, 1 * MS)
    assert shape(sent) == [(0, 500), (500, 500)]
    assert [one.batch.first_ns for one in sent] == [WALL, WALL + 3]
    assert shape(close(batcher, 6 * MS)) == [(1000, 200)]


def test_queues_are_batched_apart() -> None:
    """Each (stream, partition) has its own batch and its own count."""
    batcher = Batcher("s", "e")
    for stream, partition in (("trades", 0), ("trades", 1), ("quotes", 0)):
        batcher.add(stream, partition, [b"1"], WALL, 0)
    assert sorted((one.batch.stream, one.batch.partition, one.batch.seq) for one in close(batcher, 5 * MS)) == [
        ("quotes", 0, 0), ("trades", 0, 0), ("trades", 1, 0),
    ]  # fmt: skip
    assert [made.name for made in batcher.queues] == ["md.trades.0", "md.trades.1", "md.quotes.0"]


def test_batches_grow_while_the_window_is_full() -> None:
    """With no window left batches grow to 2,000 events instead of becoming more; then the source is told."""
    batcher = Batcher("s", "e", Limits(window_batches=2))
    batcher.add("trades", 0, numbered(0, 1000), WALL, 0)
    first, _ = close(batcher)
    batcher.add("trades", 0, numbered(1000, 1999), WALL, 0)
    assert close(batcher, 100 * MS) == []
    assert not batcher.full
    assert batcher.due_ns is None
    batcher.add("trades", 0, numbered(2999, 301), WALL, 0)
    assert batcher.full
    batcher.confirmed(first)
    assert shape(close(batcher, 100 * MS)) == [(1000, 2000)]
    assert not batcher.full


def test_a_busy_queue_does_not_starve_a_quiet_one() -> None:
    """When the window opens for one batch it goes to the queue that has waited longest."""
    batcher = Batcher("s", "e", Limits(window_batches=1))
    batcher.add("trades", 0, numbered(0, 500), WALL, 0)
    [flying] = close(batcher)
    batcher.add("halts", 0, [b"1"], WALL, 1 * MS)
    batcher.add("trades", 0, numbered(500, 5000), WALL, 2 * MS)
    batcher.confirmed(flying)
    [sent] = close(batcher, 10 * MS)
    assert sent.batch.stream == "halts"


def test_the_window_is_bounded_in_bytes_too() -> None:
    """Large events close the window before 64 batches do."""
    batcher = Batcher("s", "e", Limits(window_bytes=1000))
    for n in range(5):
        batcher.add("trades", n, [b"x" * 400], WALL, 0)
    assert len(close(batcher, 5 * MS)) == 3
    assert not batcher.room


def test_failed_batches_leave_again_in_order() -> None:
    """After a loss the unconfirmed batches go out again, oldest first, unchanged, before anything new."""
    batcher = Batcher("s", "e")
    batcher.add("trades", 0, numbered(0, 1500), WALL, 0)
    first, second, third = close(batcher)
    batcher.confirmed(second)
    batcher.failed(third)
    batcher.failed(first)
    batcher.add("trades", 0, numbered(1500, 500), WALL, 0)
    again = close(batcher)
    assert shape(again) == [(0, 500), (1000, 500), (1500, 500)]
    assert again[0].batch is first.batch


def test_offline_only_grown_batches_close() -> None:
    """While the broker is away the window's slots are kept for batches of 2,000 events."""
    batcher = Batcher("s", "e")
    batcher.add("trades", 0, numbered(0, 1999), WALL, 0)
    close(batcher, 1 * S, online=False)
    assert batcher.window == 0
    batcher.add("trades", 0, numbered(1999, 1), WALL, 1 * S)
    close(batcher, 1 * S, online=False)
    assert batcher.window == 1
    batcher.add("trades", 0, numbered(2000, 1200), WALL, 1 * S)
    assert shape(close(batcher, 2 * S)) == [(0, 2000), (2000, 1200)]


def test_what_is_too_old_is_given_up_and_counted() -> None:
    """While the broker is away events older than the TTL go, closed or open, and `seq` passes over them."""
    batcher = Batcher("s", "e")
    batcher.add("trades", 0, numbered(0, 2000), WALL, 0)
    batcher.add("trades", 0, numbered(2000, 10), WALL, 1 * S)
    close(batcher, 1 * S, online=False)
    batcher.add("trades", 0, numbered(2010, 5), WALL + 9, 3 * S)
    batcher.expire(6 * S, online=False)
    assert batcher.dropped == {"trades": 2010}
    [sent] = close(batcher, 6 * S)
    assert (sent.batch.seq, sent.batch.count, sent.batch.first_ns) == (2010, 5, WALL + 9)
    batcher.confirmed(sent)
    assert batcher.published == {"trades": 5}
    assert batcher.pending_events == 0


def test_news_are_kept_longer() -> None:
    """Each stream has its own TTL: news 15 minutes."""
    batcher = Batcher("s", "e")
    batcher.add("news", 0, [b"1"], WALL, 0)
    batcher.expire(600 * S, online=False)
    assert batcher.pending_events == 1
    batcher.expire(901 * S, online=False)
    assert batcher.dropped == {"news": 1}


def test_offline_the_oldest_bytes_go_first() -> None:
    """Above the byte bound the oldest batches make room for newer ones."""
    batcher = Batcher("s", "e", Limits(events=2, events_grown=2, window_bytes=1000))
    for n in range(6):
        batcher.add("trades", n, [b"x" * 200] * 2, WALL, n)
        close(batcher, n, online=False)
        batcher.expire(n, online=False)
    kept = close(batcher, 10 * MS)
    assert [one.batch.partition for one in kept] == [4, 5]
    assert batcher.dropped == {"trades": 8}


def test_lossless_gives_nothing_up() -> None:
    """A source that can wait loses nothing: the batcher keeps everything and says that it is full."""
    batcher = Batcher("s", "e", Limits(window_batches=1), lossless=True)
    batcher.add("trades", 0, numbered(0, 4000), WALL, 0)
    close(batcher, 0, online=False)
    batcher.expire(3600 * S, online=False)
    assert batcher.full
    assert batcher.pending_events == 4000
    assert not batcher.dropped


def test_marks_tell_where_every_stream_stands() -> None:
    """A mark carries the next `seq` and no events; none is made while closed batches wait, it would overtake them."""
    batcher = Batcher("s", "e")
    batcher.add("trades", 2, numbered(0, 503), WALL, 0)
    [sent] = close(batcher)
    assert batcher.marks(WALL + 7) == [Batch("s", 0, "trades", 2, "e", 500, 0, WALL + 7, WALL + 7, WALL + 7, b"[]")]
    batcher.failed(sent)
    assert batcher.marks(WALL) == []


def test_abandoning_counts_what_is_lost() -> None:
    """At the end everything still pending is counted as dropped; a late confirmation changes nothing."""
    batcher = Batcher("s", "e")
    batcher.add("trades", 0, numbered(0, 700), WALL, 0)
    [sent] = close(batcher)
    assert batcher.abandon() == 700
    batcher.confirmed(sent)
    assert batcher.dropped == {"trades": 700}
    assert not batcher.published


Step = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 2), st.integers(1, 25)),
    st.tuples(st.just("confirm"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("fail"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 4000), st.just(0)),
    st.tuples(st.just("online"), st.integers(0, 1), st.just(0)),
)


class Simulation:
    """A batcher, a broker that confirms and fails as told, and a consumer that knows every event's number."""

    def __init__(self, lossless: bool) -> None:
        self.limits = Limits(events=5, events_grown=20, window_batches=3, window_bytes=300)
        self.batcher = Batcher("s", "e", self.limits, lossless)
        self.now_ns = 0
        self.online = True
        self.fed = [0, 0, 0]
        self.flying: list[Sent] = []
        self.confirmed: list[list[int]] = [[], [], []]
        self.newest = [-1, -1, -1]

    def step(self, kind: str, one: int, two: int) -> None:
        if kind == "add" and not self.batcher.full:
            self.batcher.add("trades", one, numbered(self.fed[one], two), WALL, self.now_ns)
            self.fed[one] += two
        elif kind == "confirm" and self.flying:
            self.confirm(self.flying.pop(one % len(self.flying)))
        elif kind == "fail" and self.flying:
            self.batcher.failed(self.flying.pop(one % len(self.flying)))
        elif kind == "wait":
            self.now_ns += one * MS
        elif kind == "online":
            self.online = bool(one)
            while not self.online and self.flying:  # a lost connection fails everything under way
                self.batcher.failed(self.flying.pop())
        self.batcher.expire(self.now_ns, self.online)
        self.pump()

    def pump(self, flush: bool = False) -> None:
        for sent in close(self.batcher, self.now_ns, self.online, flush):
            self.check(sent.batch)
            self.flying.append(sent)
        assert self.batcher.window <= self.limits.window_batches

    def check(self, batch: Batch) -> None:
        assert 0 < batch.count <= self.limits.events_grown
        assert orjson.loads(batch.body) == list(range(batch.seq, batch.seq + batch.count))
        self.newest[batch.partition] = max(self.newest[batch.partition], batch.seq)

    def confirm(self, sent: Sent) -> None:
        self.batcher.confirmed(sent)
        self.confirmed[sent.batch.partition] += orjson.loads(sent.batch.body)

    def finish(self) -> None:
        self.online = True
        self.pump(flush=True)
        for _ in itertools.takewhile(lambda _: self.flying, range(10_000)):
            self.confirm(self.flying.pop(0))
            self.pump(flush=True)


@given(st.lists(Step, max_size=60), st.booleans())
def test_every_event_is_published_or_counted(steps: list[tuple[str, int, int]], lossless: bool) -> None:
    """Through losses, outages and congestion: each event is confirmed once or counted as dropped, numbers never change."""
    simulation = Simulation(lossless)
    for step in steps:
        simulation.step(*step)
    simulation.finish()
    batcher = simulation.batcher
    arrived = [sorted(events) for events in simulation.confirmed]
    assert all(events == sorted(set(events)) for events in arrived)
    assert batcher.pending_events == 0
    assert batcher.published.total() == sum(map(len, arrived))
    assert batcher.published.total() + batcher.dropped.total() == sum(simulation.fed)
    if lossless:
        assert arrived == [list(range(fed)) for fed in simulation.fed]


def test_a_batch_carries_the_feeds_clock_at_its_newest_event() -> None:
    """A replay's events have the tape's time; a mark has the one it is told."""
    batcher = Batcher("s", "e")
    batcher.add("trades", 1, [b"1", b"2"], WALL, 0, feed_ns=50)
    batcher.add("trades", 1, [b"3"], WALL, 0, feed_ns=70)
    assert [sent.batch.feed_ns for sent in close(batcher, 5 * MS)] == [70]
    assert batcher.marks(WALL, 80)[0].feed_ns == 80


def test_a_tapes_next_round_never_shares_a_batch_with_the_one_before() -> None:
    """What is open leaves at once, even without room in the window; what follows is of the next run, `seq` goes on."""
    batcher = Batcher("s", "e", Limits(window_batches=1))
    for part in range(3):
        batcher.add("trades", part, numbered(0, 3), WALL, 0)
    batcher.begin_run(7, WALL)
    batcher.add("trades", 0, numbered(3, 5), WALL, 0)
    for sent in batcher.take():
        batcher.confirmed(sent)
        assert (sent.batch.run, sent.batch.count) == (0, 3)
    [second] = close(batcher, 5 * MS)
    assert (second.batch.run, second.batch.seq, second.batch.count) == (7, 3, 5)
