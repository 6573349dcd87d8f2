"""The journal made anew of its Redis stream is the same, group for group; or there is a halt that names the index."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.core.events import decode
from engine.core.exchange import Exchange
from engine.journal.format import Link, Record, chained
from engine.journal.journal import open_journal
from engine.journal.reader import segments
from engine.recovery.recovered_book import recover_order_book_from_snapshot
from engine.recovery.replay import IMPORTING, NotOneHistory, recover
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.stores.message_builder import MessageBuilder
from engine.streams import restore as stream_recovery
from engine.streams.entries import EVENTS_STREAM
from engine.streams.restore import PAGE, Imported, StreamBroken, import_from, import_stream
from engine.streams.restore import records as streamed
from service.errors import OperatorError
from tests.engine.journal.test_formats import FORMAT_2
from tests.engine.lives import MARKETS, journaled, life, records
from tests.engine.recovery.test_replay import snapshotted

SEGMENT_BYTES = 20_000
COUNT = 400


@pytest.fixture
def client(mdc_url: str) -> Iterator[redis.Redis]:
    """An empty database of a real Redis."""
    with redis.Redis.from_url(mdc_url) as opened:
        yield opened


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal of many segments."""
    journaled(tmp_path / "journal", life(1, COUNT), segment_bytes_max=SEGMENT_BYTES)
    return tmp_path / "journal"


def add(client: redis.Redis, record: Record, **other: Any) -> None:
    """Write a record's entry as the engine's sink does."""
    fields: dict[Any, Any] = {
        "time": record.time_ns, "events": record.payload, "event": "[]", "message": record.message, "chain": record.chain.hex(),
        "prev": record.link.before.hex(), "group": f"{record.link.first_index}-{record.link.last_index}",
    }  # fmt: skip
    name = other.pop("name", f"{record.command_index}-0")
    client.xadd(EVENTS_STREAM, {key: value for key, value in (fields | other).items() if value is not None}, id=name)


def fill(client: redis.Redis, journal: Path, after_index: int = -1, until_index: int = 1 << 62) -> None:
    """Write a part of a journal to the stream."""
    for record in records(journal):
        if after_index < record.command_index <= until_index:
            add(client, record)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def imported(client: redis.Redis, folder: Path, snapshots: Path, from_snapshot: bool = False) -> Imported:
    return import_stream(client, folder, snapshots, from_snapshot, segment_bytes_max=SEGMENT_BYTES)


def test_a_whole_stream_gives_back_every_byte(client: redis.Redis, tmp_path: Path, journal: Path) -> None:
    """All segments with their names; more than one page, whole pages too; the journal goes on behind it."""
    fill(client, journal)
    copy = tmp_path / "copy"
    found = imported(client, copy, tmp_path / "none")
    assert found == Imported(1, records(journal)[-1].command_index, len(records(journal)))
    assert files(copy) == files(journal)
    assert recover(copy, tmp_path / "none").state.digest() == recover(journal, tmp_path / "none").state.digest()
    assert open_journal(copy).chain == records(journal)[-1].chain


@pytest.mark.parametrize("page", [1, 7, PAGE])
def test_pages_join_without_loss(client: redis.Redis, journal: Path, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their size, from any index on."""
    monkeypatch.setattr(stream_recovery, "PAGE", page)
    fill(client, journal)
    assert list(streamed(client)) == records(journal)
    assert list(streamed(client, 200)) == [record for record in records(journal) if record.command_index > 200]
    assert list(streamed(client, COUNT)) == []


def test_a_trimmed_stream_needs_a_snapshot_that_reaches_it(client: redis.Redis, tmp_path: Path, journal: Path) -> None:
    """Its beginning may be at most the entry after the snapshot's; the rest of the journal is as it was."""
    whole = recover(journal, tmp_path / "none").state.digest()
    at = snapshotted(journal, tmp_path / "snapshots", 200)
    early = snapshotted(journal, tmp_path / "early", 150)
    fill(client, journal, after_index=at)
    first = next(record.command_index for record in records(journal) if record.command_index > at)
    copy = tmp_path / "copy"
    with pytest.raises(NotOneHistory, match=f"begins at index {first}, there is no snapshot"):
        imported(client, copy, tmp_path / "none")
    with pytest.raises(NotOneHistory, match=f"begins at index {first}, the newest snapshot is of {early}"):
        imported(client, copy, tmp_path / "early")
    assert files(copy) == {}
    assert imported(client, copy, tmp_path / "snapshots").first_index == first
    assert records(copy) == [record for record in records(journal) if record.command_index > at]
    assert recover(copy, tmp_path / "snapshots").state.digest() == whole


def test_a_stream_that_begins_before_the_snapshot_must_have_it(client: redis.Redis, tmp_path: Path, journal: Path) -> None:
    """With its chain; a snapshot of another history is refused."""
    whole = recover(journal, tmp_path / "none").state.digest()
    snapshotted(journal, tmp_path / "snapshots", 300)
    fill(client, journal, after_index=100)
    imported(client, tmp_path / "copy", tmp_path / "snapshots")
    assert recover(tmp_path / "copy", tmp_path / "snapshots").state.digest() == whole
    other = tmp_path / "other"
    journaled(other, [(index, time_ns + 1, command) for index, time_ns, command in life(1, COUNT)])
    for index in (300, 90):
        folder = tmp_path / f"other{index}"
        snapshotted(other, folder, index)
        with pytest.raises(NotOneHistory, match=r"two histories|is between is lost"):
            imported(client, tmp_path / "copy2", folder)
        with pytest.raises(NotOneHistory, match=r"two histories|follow"):
            imported(client, tmp_path / "copy2", folder, from_snapshot=True)
    assert files(tmp_path / "copy2") == {}


def test_a_stream_that_ends_before_the_snapshot_may_be_the_wrong_one(client: redis.Redis, tmp_path: Path, journal: Path) -> None:
    """It is refused, unless the operator says to begin at the snapshot; an empty one as well."""
    snapshots, copy = tmp_path / "snapshots", tmp_path / "copy"
    with pytest.raises(NotOneHistory, match="is empty"):
        imported(client, copy, snapshots)
    at = snapshotted(journal, snapshots, 300)
    with pytest.raises(NotOneHistory, match=f"is empty, the newest snapshot is of {at}"):
        imported(client, copy, snapshots)
    fill(client, journal, until_index=250)
    with pytest.raises(NotOneHistory, match=f"ends at index 2.., the newest snapshot is of {at}"):
        imported(client, copy, snapshots)
    with pytest.raises(NotOneHistory, match="no valid snapshot"):
        imported(client, copy, tmp_path / "none", from_snapshot=True)
    assert imported(client, copy, snapshots, from_snapshot=True) == Imported(at + 1, at, 0)
    found = recover(copy, snapshots)
    assert (found.last_index, found.replayed) == (at, 0)
    assert open_journal(copy).chain == found.chain


def test_what_is_broken_before_the_snapshot_can_be_left_out(client: redis.Redis, tmp_path: Path, journal: Path) -> None:
    """Beginning at the snapshot, only what comes after it is read."""
    at = snapshotted(journal, tmp_path / "snapshots", 300)
    fill(client, journal)
    client.xdel(EVENTS_STREAM, f"{records(journal)[100].command_index}-0")
    with pytest.raises(StreamBroken):
        imported(client, tmp_path / "copy", tmp_path / "snapshots")
    imported(client, tmp_path / "copy", tmp_path / "snapshots", from_snapshot=True)
    assert records(tmp_path / "copy") == [record for record in records(journal) if record.command_index > at]
    found = recover(tmp_path / "copy", tmp_path / "snapshots")
    assert found.state.digest() == recover(journal, tmp_path / "none").state.digest()


def test_a_missing_entry_halts_with_the_index_of_its_group(client: redis.Redis, tmp_path: Path, journal: Path) -> None:
    """Nothing of the stream is left in the folder: a part must not pass for the whole."""
    fill(client, journal)
    gone = records(journal)[250]
    assert gone.link.first_index < gone.command_index < gone.link.last_index
    client.xdel(EVENTS_STREAM, f"{gone.command_index}-0")
    with pytest.raises(StreamBroken, match=f"at index {gone.link.first_index}: the hash does not follow") as broken:
        imported(client, tmp_path / "copy", tmp_path / "none")
    assert broken.value.index == gone.link.first_index
    assert files(tmp_path / "copy") == {}


@pytest.mark.parametrize("place", ["first", "last", "whole"])
def test_a_group_is_imported_whole_or_not_at_all(client: redis.Redis, tmp_path: Path, journal: Path, place: str) -> None:
    """Without its first or last entry, or without all of it in the middle, it halts; what the end has of one is left out."""
    made = records(journal)
    link = made[250].link
    numbers = {"first": [link.first_index], "last": [link.last_index], "whole": range(link.first_index, link.last_index + 1)}
    fill(client, journal, until_index=link.last_index - 1)
    found = imported(client, tmp_path / "torn", tmp_path / "none")
    assert found.last_index == made[250 - (made[250].command_index - link.first_index) - 1].link.last_index < link.first_index
    assert records(tmp_path / "torn") == [record for record in made if record.command_index <= found.last_index]
    fill(client, journal, after_index=link.last_index - 1)
    client.xdel(EVENTS_STREAM, *[f"{number}-0" for number in numbers[place]])
    with pytest.raises(StreamBroken, match="is missing"):
        imported(client, tmp_path / "copy", tmp_path / "none")


def test_a_stream_written_by_the_version_before_is_imported(client: redis.Redis, tmp_path: Path) -> None:
    """Its entries name no group: each record is one by itself, and the chain of this format goes on behind it."""
    (old := tmp_path / "old").mkdir()
    for path in segments(FORMAT_2):
        shutil.copy(path, old)
    for record in records(old):
        add(client, record, group=None)
    journaled(old, life(4, 120)[80:], Exchange(MessageBuilder, recover(old, tmp_path / "none").state))
    fill(client, old, after_index=80)
    imported(client, tmp_path / "copy", tmp_path / "none")
    assert records(tmp_path / "copy") == records(old)


@pytest.mark.parametrize(
    "other",
    [
        {"time": 1}, {"events": b"\x90"}, {"message": b"{}"}, {"chain": "00" * 16}, {"prev": "00" * 16}, {"time": "now"},
        {"chain": "no hex"}, {"prev": ""}, {"events": None}, {"prev": None}, {"name": "201-1"}, {"group": "200-201"},
        {"group": "none"},
    ],
)  # fmt: skip
def test_a_changed_entry_halts_with_its_index(client: redis.Redis, tmp_path: Path, journal: Path, other: dict[str, Any]) -> None:
    """Whatever of it: time, events, message, chain, the chain before, its id."""
    last = max(record.link.last_index for record in records(journal) if record.link.last_index <= 200)
    fill(client, journal, until_index=last)
    before = next(record.chain for record in records(journal) if record.command_index == last)
    bare = (201, *records(journal)[-1][1:4])
    add(client, Record(*bare, Link(before, chained(before, [bare]), 201, 201)), **dict(other))
    with pytest.raises(StreamBroken) as broken:
        imported(client, tmp_path / "copy", tmp_path / "none")
    assert broken.value.index == 201
    assert files(tmp_path / "copy") == {}


def test_a_journal_is_never_overwritten_but_a_part_of_one_is(client: redis.Redis, tmp_path: Path, journal: Path) -> None:
    """An import that was cut short has left its mark: it begins again."""
    fill(client, journal)
    with pytest.raises(OperatorError, match="There is a journal"):
        imported(client, journal, tmp_path / "none")
    copy = tmp_path / "copy"
    journaled(copy, life(2, 50))
    (copy / IMPORTING).touch()
    imported(client, copy, tmp_path / "none")
    assert files(copy) == files(journal)


def test_a_book_goes_on_from_the_stream(client: redis.Redis, tmp_path: Path, journal: Path) -> None:
    """A market's file says from which entry on: records, or only their events."""
    at = snapshotted(journal, tmp_path / "snapshots", 200)
    fill(client, journal)
    snapshotted(journal, tmp_path / "last", COUNT)
    store, last = FileSnapshotStore(tmp_path / "snapshots"), FileSnapshotStore(tmp_path / "last")
    for market in MARKETS:
        stored, wanted = store.read_latest(market), last.read_latest(market)
        assert stored is not None
        assert wanted is not None
        assert stored.last_redis_stream_id == f"{at}-0"
        after = list(streamed(client, int(stored.last_redis_stream_id.partition("-")[0])))
        expected = recover_order_book_from_snapshot(wanted)
        assert recover_order_book_from_snapshot(stored, after) == expected
        assert recover_order_book_from_snapshot(stored, [e for r in after for e in decode(r.payload)]) == expected
        assert recover_order_book_from_snapshot(stored, after).book() == wanted.order_book


def test_the_engine_goes_on_with_an_imported_journal(client: redis.Redis, mdc_url: str, tmp_path: Path, journal: Path) -> None:
    """By URL; the next records continue the chain as if nothing had happened."""
    commands = life(1, COUNT + 100)
    fill(client, journal)
    import_from(mdc_url, tmp_path / "copy", tmp_path / "none")
    found = recover(tmp_path / "copy", tmp_path / "none")
    journaled(tmp_path / "copy", commands[COUNT:], Exchange(MessageBuilder, found.state))
    journaled(journal, commands[COUNT:], Exchange(MessageBuilder, recover(journal, tmp_path / "none").state))
    assert records(tmp_path / "copy") == records(journal)


def test_a_redis_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """Nothing was written."""
    with pytest.raises(OperatorError, match="Redis did not give the stream") as refused:
        import_from("redis://127.0.0.1:1/0", tmp_path / "copy", tmp_path / "none")
    assert refused.value.exit_code == 3
    assert files(tmp_path / "copy") == {}
