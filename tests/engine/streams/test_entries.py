"""Batches of entries: the cases of `resume_after`, of one history or another, and the bounds."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from engine.bots.market import BTC, ETH
from engine.core.events import LivenessChecked, Traded, encode
from engine.journal.format import START, Link, Record
from engine.journal.journal import open_journal
from engine.journal.reader import read
from engine.streams.entries import (
    BATCH_BYTES,
    BATCH_RECORDS,
    BATCH_RECORDS_MAX,
    GROUP_SPAN_MAX,
    NOTHING,
    Channel,
    Course,
    Entries,
    ForeignStream,
    Held,
    Pace,
    SeamBroken,
    id_text,
    parse_id,
    resume_after,
)

HEADER = 5  # arguments of a batch before its trades
FIELDS = 8  # arguments of an entry
ALONE = Link(START, START, 0, 99)


def trade(number: int, price_ticks: int = 180_000, symbol: str = "BTC-PERP") -> Traded:
    return Traded(number, 2 * number, 2 * number - 1, price_ticks, 3, 0, 0, symbol, 1)


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Indices 2, 4, … 40 in groups of two; every fifth record has two trades."""
    journal = open_journal(tmp_path)
    for n in range(1, 21):
        trades = [trade(n), trade(n + 1)] if n % 5 == 0 else [LivenessChecked(str(n), "test")]
        journal.append(2 * n, n * 1_000_000, encode(list(trades)), b"{}")
        if n % 2 == 0:
            journal.commit()
    journal.close()
    return list(read(tmp_path))


def entries(readable: bool = True, trades_max: int = 1_000) -> Entries:
    return Entries({"BTC-PERP": BTC, "ETH-PERP": ETH}.__getitem__, readable, trades_max)


def held_at(record: Record, trades: tuple[int, int] = NOTHING, json_: bytes = b"") -> Held:
    return Held(record.command_index, record.command_index, record.chain, trades, json_)


def trade_json(records: list[Record], index: int, number: int) -> bytes:
    """Return a trade's entry as we write it."""
    (record,) = [record for record in records if record.command_index == index]
    batch = entries().batch([record], Held(), -1)
    content: bytes = batch.arguments[HEADER + 1 + 2 * number]
    return content


def test_ids_are_read_as_they_are_written() -> None:
    """Also one without its second part, as a person may write it."""
    assert parse_id(id_text((12, 3))) == (12, 3)
    assert parse_id(b"12") == (12, 0)
    assert (Held().last_events_id, Held().last_trades_id) == ("", "")


@pytest.mark.parametrize(
    ("events", "trades", "snapshot", "written", "after"),
    [
        (-1, NOTHING, -1, None, -1),  # nothing there, no snapshot: from the first record on
        (-1, NOTHING, 70, None, 70),  # emptied: behind the oldest snapshot
        (-1, (95, 0), 70, None, 70),
        (90, (80, 1), -1, None, 79),  # a start: the last trade is compared, and whether none is missing behind it
        (90, (80, 1), 85, None, 85),
        (90, NOTHING, 60, None, 60),  # the trades are gone
        (90, NOTHING, 99, None, 90),
        (90, (95, 0), -1, None, 90),  # the events are behind: their trades are there already
        (90, (80, 1), -1, Held(88, 88, b"", (80, 1)), 90),  # a connection later: all trades up to 90 came with their events
        (90, (70, 1), -1, Held(88, 88, b"", (80, 1)), 69),  # trades have vanished since
        (80, (80, 1), -1, Held(88, 88, b"", (80, 1)), 79),
    ],
)
def test_where_to_go_on(events: int, trades: tuple[int, int], snapshot: int, written: Held | None, after: int) -> None:
    """The lowest index that one of the streams may lack."""
    assert resume_after(Held(events, events, b"", trades), snapshot, written) == after


def test_each_needed_record_comes_once(records: list[Record]) -> None:
    """The last one that Redis has is compared and not needed."""
    course = Course(held_at(records[4]), records[4].command_index, 40)
    assert course.rewind() == records[4].command_index
    course.begin(0, START)
    needed = course.needed(records[:10]) + course.needed(records[10:])
    course.end()
    assert needed == records[5:]


def test_another_history_is_refused(records: list[Record]) -> None:
    """Another chain at the same index, an index that the journal does not have, one beyond its end."""

    def passed(held: Held, committed: int = 40) -> None:
        course = Course(held, held.events, committed)
        course.begin(0, START)
        course.needed(records)
        course.end()

    passed(held_at(records[-1]))
    with pytest.raises(ForeignStream, match="at index 10 the chain is another one"):
        passed(Held(10, 10, b"other"))
    with pytest.raises(ForeignStream, match="the journal has no record 11"):
        passed(Held(11, 11, records[4].chain))
    with pytest.raises(ForeignStream, match="the journal has no record 43"):
        passed(Held(43, 43, records[-1].chain), committed=44)
    with pytest.raises(ForeignStream, match="it holds index 42, and the journal ends at 40"):
        passed(Held(42, 42, records[-1].chain))
    with pytest.raises(ForeignStream, match="it holds index 50"):
        passed(held_at(records[-1], (50, 0)))


def test_a_journal_that_begins_later(records: list[Record]) -> None:
    """Its chain says whether it follows; if not, what is between is a gap, unless nothing can be between."""
    course = Course(held_at(records[4]), 10, 40)
    course.begin(12, records[4].chain)
    assert not course.gap
    course = Course(held_at(records[4]), 10, 40)
    course.begin(20, records[8].chain)
    assert course.gap
    assert course.needed(records[9:]) == records[9:]
    course.end()
    with pytest.raises(ForeignStream, match="after index 10"):
        Course(held_at(records[4]), 10, 40).begin(11, b"other")


def test_the_last_trade_is_compared(records: list[Record]) -> None:
    """Ours, another one at its place, one that we do not have; and none of it when the reader begins behind it."""

    def passed(trades: tuple[int, int], json_: bytes, first: int = 0) -> None:
        course = Course(Held(-1, -1, b"", trades, json_), first - 1, 40)
        course.begin(first, START)
        course.needed([record for record in records if record.command_index >= first])
        course.end()

    ours = trade_json(records, 20, 1)
    passed((20, 1), ours)
    for trades, json_ in (((20, 1), b"{}"), ((20, 0), ours), ((20, 2), ours), ((21, 0), ours), ((22, 1), ours), ((40, 5), ours)):
        with pytest.raises(ForeignStream, match=f"the journal has no trade {id_text(trades)}"):
            passed(trades, json_)
    passed((20, 1), b"{}", first=21)


def test_a_group_that_does_not_follow_is_noticed(records: list[Record]) -> None:
    """What the reader has shown is passed over; a missing record breaks the chain; the next reader passes the last one again."""
    course = Course(Held(), -1, 40)
    course.begin(0, START)
    course.needed(records[:6])
    assert course.join(records[2:5]) == []
    assert course.join(records[5:8]) == records[6:8]
    with pytest.raises(SeamBroken, match="record 20 does not follow 16"):
        course.join(records[9:])
    assert course.rewind() == records[7].command_index
    course.begin(16, records[6].chain)
    assert course.needed(records[7:]) == records[8:]
    course.rewind()
    course.begin(0, START)
    with pytest.raises(ForeignStream, match="the journal has no record 40"):
        course.needed([Record(42, 0, b"", b"", ALONE)])


def test_a_batch_has_what_redis_lacks(records: list[Record]) -> None:
    """Trades that are there are left out, events that are there are left out, each for itself."""
    records = records[1:]  # indices 4 to 40; trades in 10, 20, 30, 40
    batch = entries().batch(records, Held(24, 24, b"", (20, 0)), keep_from=10)
    events_id, trades_id, keep, trades_max, count, *rest = batch.arguments
    assert (events_id, trades_id, keep, trades_max, count) == ("24-0", "20-0", "", 1_000, 5)
    assert rest[0 : 2 * count : 2] == ["20-1", "30-0", "30-1", "40-0", "40-1"]
    assert rest[2 * count :: FIELDS] == [f"{index}-0" for index in range(26, 41, 2)]
    record = records[11]
    time_ns, payload, people, message, chain, prev, group = rest[2 * count + 1 : 2 * count + FIELDS]
    assert (record.command_index, time_ns, payload, message) == (26, record.time_ns, record.payload, b"{}")
    assert (chain, prev, group) == (record.chain.hex(), records[11].link.before.hex(), "26-28")
    assert json.loads(people) == [{"type": "liveness.checked", "check_id": "13", "source": "test"}]
    assert batch.held == held_at(records[-1], (40, 1))
    assert batch.used == len(records)


def test_an_empty_batch_compares_and_trims() -> None:
    """And keeps the groups that the last entry may belong to, whatever the snapshots are."""
    far = GROUP_SPAN_MAX + 24
    assert entries().batch([], Held(far, far, b"", (20, 1)), far + 9).arguments == [f"{far}-0", "20-1", "24-0", 1_000, 0]
    assert entries().batch([], Held(24, 24, b"", (20, 1)), 50).arguments == ["24-0", "20-1", "", 1_000, 0]
    assert entries().batch([], Held(), 50).arguments == ["", "", "", 1_000, 0]


def test_prices_are_the_exact_decimals() -> None:
    """A tick of 0.05 has no exact binary form; the price still reads as it is written by hand."""
    maker = entries()
    for ticks in (1, 3, 7, 79_999, 80_001, 3_999_999):
        record = Record(7, 1_790_000_000_123_456_789, encode([trade(1, ticks, "ETH-PERP")]), b"", ALONE)
        content = maker.batch([record], Held(), -1).arguments[HEADER + 1]
        there = json.loads(content, parse_float=Decimal)
        assert there["price"] == Decimal("0.05") * ticks
        assert there["timestamp"] == "2026-09-21T14:13:20.123Z"


def test_a_batch_ends_at_its_bytes() -> None:
    """One large record is a batch of its own; the rest comes in the next."""
    large = [Record(n, 1, encode([LivenessChecked("x" * BATCH_BYTES, "")]), b"", ALONE) for n in (1, 2, 3)]
    assert entries().batch(large, Held(), -1).used == 1
    assert entries(readable=False).batch(large[:1], Held(), -1).arguments[HEADER + 3] == b""


def test_a_full_channel_empties_and_closes(records: list[Record]) -> None:
    """By records or by bytes; closed it takes nothing; it knows the last index all the same."""
    channel = Channel(8, 1 << 20)
    assert channel.put(records[:4])
    assert (len(channel), channel.last_index) == (0, 8)
    channel.reopen()
    assert channel.put(records[:4])
    assert channel.put(records[4:8])
    assert channel.take(3) == [records[:4]]
    assert channel.put(records[8:12])
    assert channel.take(100) == [records[4:8], records[8:12]]
    assert channel.put(records[:8])
    assert not channel.put(records[8:9])
    assert (len(channel), channel.open, channel.take(9)) == (0, False, [])
    small = Channel(8, 500)
    small.reopen()
    assert small.put(records[:1])
    assert not small.put(records[1:2])


def test_batches_grow_only_while_the_engine_is_faster() -> None:
    """A growing lag doubles them, up to a bound; a shrinking one halves them."""
    pace, sizes = Pace(), []
    for lag in (0, 100, 200, 300, 400, 500, 400, 300, 200, 100):
        pace.written(lag)
        sizes.append(pace.records)
    assert max(sizes) == BATCH_RECORDS_MAX
    assert sizes[0] == sizes[-1] == BATCH_RECORDS
