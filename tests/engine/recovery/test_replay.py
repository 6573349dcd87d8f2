"""Recovery of the last state: from any snapshot, and never from one that tells another history."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from engine.core.exchange import Exchange
from engine.core.linked import group_of
from engine.core.state import State
from engine.journal.format import Record
from engine.journal.journal import begin_journal, open_journal
from engine.journal.reader import JournalDamaged, segments
from engine.journal.retention import archive_segments
from engine.recovery import replay as recovery
from engine.recovery.replay import IMPORTING, Follower, NotOneHistory, RecordUnknown, Recovered, recover, replay
from engine.recovery.snapshot import restore, snapshot
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.stores.message_builder import MessageBuilder
from tests.engine.lives import STEP_NS, answers, journaled, life, records

COUNT = 600


def snapshotted(journal: Path, snapshots: Path, index: int, kept: int = 3) -> int:
    """Write the snapshot that a follower has at the end of a group up to an index; return the index of its record."""
    follower = Follower(journal, snapshots)
    follower.follow(max(record.link.last_index for record in records(journal) if record.link.last_index <= index))
    generation = snapshot(follower.state, follower.last_index, follower.chain, 0, follower.time_ns, follower.accepted_ms)
    FileSnapshotStore(snapshots, kept).write_generation(generation)
    follower.close()
    return follower.last_index


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal of many segments."""
    journaled(tmp_path / "journal", life(1, COUNT))
    return tmp_path / "journal"


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "snapshots"


@pytest.mark.parametrize("seed", range(4))
def test_recovery_gives_the_last_state_from_any_snapshot(tmp_path: Path, seed: int) -> None:
    """Eight restarts with a snapshot before each: the same digest, and a journal that goes on byte for byte."""
    commands, folder, snapshots = life(seed, COUNT), tmp_path / "journal", tmp_path / "snapshots"
    whole = Exchange(MessageBuilder)
    expected = list(answers(whole, commands))
    dice, done = random.Random(seed), 0
    for stop in [*sorted(dice.sample(range(1, COUNT), 8)), COUNT]:
        recovered = recover(folder, snapshots)
        assert recovered.last_index <= done
        assert recovered.replayed < 200, "no snapshot was used"
        journaled(folder, commands[done:stop], Exchange(MessageBuilder, recovered.state))
        snapshotted(folder, snapshots, dice.randint(done, stop))
        done = stop
    last = recover(folder, snapshots)
    assert last.state.digest() == recover(folder, tmp_path / "none").state.digest() == whole.state.digest()
    assert [record[:4] for record in records(folder)] == expected
    assert last.chain == records(folder)[-1].chain
    assert last.time_ns == expected[-1][1]


def test_without_snapshots_it_begins_with_the_journal(journal: Path, snapshots: Path) -> None:
    """And without a journal, with nothing."""
    found = recover(journal, snapshots)
    assert (found.snapshot_index, found.replayed) == (-1, len(records(journal)))
    nothing = recover(journal.parent / "new", snapshots)
    assert nothing[1:] == Recovered(State(), -1, bytes(16), -1, 0, 0)[1:]
    assert nothing.state.digest() == State().digest()


def test_only_what_comes_after_the_snapshot_is_applied(journal: Path, snapshots: Path) -> None:
    """Records are counted, not indices; a snapshot of the very end needs none."""
    at = snapshotted(journal, snapshots, 400)
    found = recover(journal, snapshots)
    assert (found.snapshot_index, found.replayed) == (at, sum(record.command_index > at for record in records(journal)))
    last = snapshotted(journal, snapshots, COUNT)
    found = recover(journal, snapshots)
    assert (found.last_index, found.replayed) == (last, 0)
    assert found.time_ns == records(journal)[-1].time_ns


def test_the_last_message_is_that_of_the_last_record_with_one(journal: Path, snapshots: Path) -> None:
    """Not that of the last record."""
    wanted = max(record.command_index for record in records(journal) if record.message)
    assert recover(journal, snapshots).state.message_index == wanted
    snapshotted(journal, snapshots, wanted)
    assert recover(journal, snapshots).state.message_index == wanted


def test_a_damaged_snapshot_gives_way_to_the_one_before(journal: Path, snapshots: Path) -> None:
    """The state is the same; with all damaged, the journal's beginning serves."""
    expected = recover(journal, snapshots).state.digest()
    indices = [snapshotted(journal, snapshots, index) for index in (200, 300, 400)]
    for sequence, before in zip(reversed(indices), [indices[1], indices[0], -1], strict=True):
        path = snapshots / f"exchange.{sequence:020d}.snapshot.json"
        path.write_bytes(path.read_bytes()[:-3])
        found = recover(journal, snapshots)
        assert (found.snapshot_index, found.state.digest()) == (before, expected)


def test_a_snapshot_ahead_of_the_journal_is_refused(journal: Path, snapshots: Path) -> None:
    """The journal's end was lost: nobody decides silently to forget it."""
    at = snapshotted(journal, snapshots, COUNT)
    paths = segments(journal)
    paths[-1].unlink()
    paths[-2].write_bytes(paths[-2].read_bytes()[:-1])
    kept = records(journal)[-1].command_index
    with pytest.raises(NotOneHistory, match=f"snapshot is of index {at}, the journal ends at index {kept}: its end was lost"):
        recover(journal, snapshots)
    for path in segments(journal):
        path.unlink()
    with pytest.raises(NotOneHistory, match=r"is empty.*Redis stream.*move the snapshots away"):
        recover(journal, snapshots)


def test_a_snapshot_of_another_history_is_refused(tmp_path: Path, journal: Path, snapshots: Path) -> None:
    """Same index, other chain; and an index that the journal does not have."""
    at = snapshotted(journal, snapshots, 500)
    other = tmp_path / "other"
    journaled(other, [(index, time_ns + 1, command) for index, time_ns, command in life(1, COUNT)])
    with pytest.raises(NotOneHistory, match=f"index {at} and the journal tell two histories"):
        recover(other, snapshots)
    holed = tmp_path / "holed"
    copy = open_journal(holed)
    for record in records(journal):
        if record.command_index != at:
            copy.append(*record[:4])
    copy.commit()
    with pytest.raises(NotOneHistory, match="two histories"):
        recover(holed, snapshots)


def test_a_journal_without_its_beginning_needs_a_snapshot(tmp_path: Path, journal: Path, snapshots: Path) -> None:
    """One that reaches it: in it, or just before it; not one that leaves something out."""
    expected = recover(journal, snapshots).state.digest()
    first = int(segments(journal)[3].stem)
    early = tmp_path / "early"
    snapshotted(journal, early, first - 20)
    before = snapshotted(journal, snapshots, first - 1)
    assert archive_segments(journal, tmp_path / "archive", before) == [
        f"{int(p.stem):020d}.journal" for p in segments(tmp_path / "archive")
    ]
    assert int(segments(journal)[0].stem) == first
    found = recover(journal, snapshots)
    assert (found.state.digest(), found.snapshot_index) == (expected, before)
    assert found.time_ns == records(journal)[-1].time_ns
    with pytest.raises(NotOneHistory, match=f"begins at index {first}, and there is no valid snapshot"):
        recover(journal, tmp_path / "none")
    with pytest.raises(NotOneHistory, match=f"the journal begins at {first} and does not follow it"):
        recover(journal, early)
    snapshotted(journal, snapshots, first + 30)
    assert recover(journal, snapshots).state.digest() == expected


def test_a_journal_that_begins_at_the_snapshot_and_has_nothing_more(tmp_path: Path, journal: Path, snapshots: Path) -> None:
    """The snapshot is the state, its record's time included."""
    at = snapshotted(journal, snapshots, 300)
    record = next(record for record in records(journal) if record.command_index == at)
    begin_journal(tmp_path / "begun", record.chain, at).close()
    found = recover(tmp_path / "begun", snapshots)
    assert (found.last_index, found.chain, found.time_ns, found.replayed) == (at, record.chain, record.time_ns, 0)


def test_damage_halts_with_its_index(journal: Path, snapshots: Path) -> None:
    """Also when a snapshot is there and the damage after it, or in the first bytes of all."""
    at = snapshotted(journal, snapshots, 300)
    path = segments(journal)[-1]
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    with pytest.raises(JournalDamaged) as damage:
        recover(journal, snapshots)
    assert damage.value.index >= int(path.stem) > at
    path.write_bytes(content)
    segments(journal)[0].write_bytes(b"no longer a segment, but of no use either")
    with pytest.raises(JournalDamaged):
        recover(journal, snapshots)


def test_a_torn_end_is_passed_over(journal: Path, snapshots: Path) -> None:
    """It was never committed: the state is that of the record before."""
    path = segments(journal)[-1]
    path.write_bytes(path.read_bytes()[:-1])
    assert recover(journal, snapshots).last_index == records(journal)[-1].command_index < COUNT


def test_events_that_this_version_does_not_know_halt_with_the_index(tmp_path: Path, snapshots: Path) -> None:
    """They are no damage: the operator starts the version that wrote them."""
    journal = open_journal(tmp_path / "journal")
    journal.append(7, 0, msgspec.msgpack.encode([{"type": "moon.landed"}]))
    journal.commit()
    with pytest.raises(RecordUnknown, match="index 7 has unknown events") as unknown:
        recover(tmp_path / "journal", snapshots)
    assert (unknown.value.index, unknown.value.exit_code) == (7, 3)


def test_a_record_that_does_not_follow_says_which_one(journal: Path) -> None:
    """A broken invariant ends the process; the note says where."""
    some = records(journal)
    with pytest.raises((KeyError, AssertionError)) as broken:
        replay(State(), some[300:])
    assert any("while the record at index" in note for note in broken.value.__notes__)


def test_the_same_function_replays_records_from_anywhere(journal: Path) -> None:
    """It counts them and notes when orders were accepted."""
    state, times = State(), dict[int, int]()
    some = records(journal)
    assert replay(state, some, times) == len(some)
    assert state.digest() == recover(journal, journal / "none").state.digest()
    assert {order_id: times[order_id] for order_id in state.orders} == {
        order_id: next(r.time_ns for r in some if r.command_index == group_of(order_id)) // 1_000_000 for order_id in state.orders
    }
    assert replay(state, list[Record]()) == 0


def test_a_follower_goes_as_far_as_it_is_told(tmp_path: Path, snapshots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step through a growing journal: the state of every index asked for, and what it knows of open orders."""
    monkeypatch.setattr(recovery, "SPARE", 0)
    folder, commands, exchange = tmp_path / "journal", life(5, COUNT), Exchange(MessageBuilder)
    journaled(folder, commands[:10], exchange)
    follower, twin, told = Follower(folder, snapshots), Exchange(MessageBuilder), 0
    for done in range(10, COUNT, 37):
        journaled(folder, commands[done : done + 37], exchange)
        for until in (done - 5, done + 20):
            follower.follow(until)
            list(answers(twin, commands[told:until]))
            told = until
            assert follower.state.digest() == twin.state.digest()
            assert follower.last_index <= until
            times = {order_id: commands[group_of(order_id) - 1][1] // 1_000_000 for order_id in twin.state.orders}
            assert {order_id: follower.accepted_ms[order_id] for order_id in twin.state.orders} == times
            assert len(follower.accepted_ms) <= 2 * len(twin.state.orders)
    generation = snapshot(follower.state, follower.last_index, follower.chain, 0, follower.time_ns, follower.accepted_ms)
    assert restore(generation).accepted_ms.keys() == follower.state.orders.keys()
    assert follower.time_ns % STEP_NS == 0
    follower.close()


def test_an_interrupted_import_is_no_journal(journal: Path, snapshots: Path) -> None:
    """A part of a stream must not pass for all of it."""
    (journal / IMPORTING).touch()
    with pytest.raises(NotOneHistory, match="was interrupted"):
        recover(journal, snapshots)
