"""The sequencer: order, answers, listeners, full queues and disks that refuse."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.core import commands as cm
from engine.core.events import OrderAccepted
from engine.core.state import State
from engine.journal import sequencer as sequencer_module
from engine.journal.format import Record
from engine.journal.journal import open_journal
from engine.journal.reader import read
from engine.journal.sequencer import EngineBusy, EngineUnavailable, Sequencer
from engine.stores.message_builder import MessageBuilder
from engine.stores.messages import Message
from service.clock import ManualClock
from tests.engine.lives import rebuilt
from tests.waiting import until

X = cm.Instrument("X")


def started(folder: Path, **more: int) -> Sequencer:
    """Return a sequencer on a folder."""
    return Sequencer(*rebuilt(folder), lambda: rebuilt(folder), MessageBuilder, ManualClock(), **more)


async def opened(folder: Path, **more: int) -> Sequencer:
    """Return one with a contract, a store and a rich account."""
    sequencer = started(folder, **more)
    for command in (cm.CreateInstrument(X, 100), cm.CreateStore(""), cm.Deposit(1, 10**9)):
        await sequencer.submit(command)
    return sequencer


def order(name: str) -> cm.PlaceOrder:
    return cm.PlaceOrder(1, "X", name, 0, 1, 100)


async def test_answers_come_in_order_when_the_journal_has_them(tmp_path: Path) -> None:
    """What is submitted at once is a group; its records reach the listeners whole and in order."""
    folder = tmp_path / "journal"
    folder.mkdir()
    sequencer = await opened(folder)
    groups: list[Sequence[Record]] = []
    sequencer.on_commit(groups.append)
    futures = [sequencer.submit(order(str(n))) for n in range(50)]
    outcomes = await asyncio.gather(*futures)
    assert [outcome.index for outcome in outcomes] == list(range(4, 54))
    assert all(type(outcome.events[0]) is OrderAccepted for outcome in outcomes)
    assert [len(group) for group in groups] == [50]
    assert list(read(folder, after_index=3)) == list(groups[0])
    assert sequencer.committed_index == sequencer.last_message_index == 53
    await sequencer.close()


async def test_an_outcome_knows_what_the_rest_of_its_group_did(tmp_path: Path) -> None:
    """Until the next group is decided: then it lets go of the others, however long somebody keeps it."""
    sequencer = await opened(tmp_path)
    first, second, third = await asyncio.gather(*[sequencer.submit(order(name)) for name in "abc"])
    assert list(first.later()) == [second.events, third.events]
    assert list(third.later()) == []
    await sequencer.submit(order("d"))
    assert list(first.later()) == []
    await sequencer.close()


async def test_a_group_has_a_most_and_the_rest_goes_on_in_the_next_turn(tmp_path: Path) -> None:
    """Ten at a time, nothing lost between the turns."""
    sequencer = await opened(tmp_path, group_max=10)
    sizes: list[int] = []
    sequencer.on_commit(lambda records: sizes.append(len(records)))
    await asyncio.gather(*[sequencer.submit(order(str(n))) for n in range(35)])
    assert sizes == [10, 10, 10, 5]
    await sequencer.close()


async def test_a_command_without_events_leaves_a_hole(tmp_path: Path) -> None:
    """A tick has an index and no record; after a restart indices go on above the journal."""
    sequencer = await opened(tmp_path)
    assert (await sequencer.submit(cm.Tick())).index == 4
    assert (await sequencer.submit(order("a"))).index == 5
    await sequencer.close()
    assert [record.command_index for record in read(tmp_path)] == [1, 2, 3, 5]
    again = started(tmp_path)
    assert again.committed_index == 5
    assert (await again.submit(order("b"))).index == 6
    await again.close()


async def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    """Nothing of the refused one happens; room comes back with the next turn."""
    sequencer = await opened(tmp_path, queue_max=3)
    futures = [sequencer.submit(order(str(n))) for n in range(3)]
    with pytest.raises(EngineBusy, match="3 commands are waiting"):
        sequencer.submit(order("too many"))
    await asyncio.gather(*futures)
    await sequencer.submit(order("fits"))
    assert len(sequencer.state.orders) == 4
    await sequencer.close()


@pytest.mark.parametrize("calls", [["write"], ["fdatasync"], ["fdatasync", "ftruncate"]])
async def test_a_full_disk_refuses_loses_nothing_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    """The group's commands fail, what follows is refused, the state is the journal's; with room, service goes on."""
    sequencer = await opened(tmp_path)
    await sequencer.submit(order("before"))
    before = sequencer.state.digest()
    attempts = 0

    def full(*_: object) -> int:
        nonlocal attempts
        attempts += 1
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        for call in calls:
            disk.setattr(os, call, full)
        failed = await asyncio.gather(*[sequencer.submit(order(f"f{n}")) for n in range(5)], return_exceptions=True)
        assert [type(error) for error in failed] == [EngineUnavailable] * 5
        with pytest.raises(EngineUnavailable, match="No space left"):
            sequencer.submit(order("while full"))
        await until(lambda: attempts > 2, 10, "vain attempts to go on")
        with pytest.raises(EngineUnavailable, match="No space left"):
            sequencer.submit(order("still full"))
    await until(lambda: not sequencer.refusal, 10)
    assert sequencer.state.digest() == before
    assert [record.command_index for record in read(tmp_path)] == [1, 2, 3, 4], "what was refused is in no reader's sight"
    outcome = await sequencer.submit(order("f0"))
    assert type(outcome.events[0]) is OrderAccepted
    assert outcome.index > 9, "an index that was given is not given again"
    await sequencer.close()
    state, _ = rebuilt(tmp_path)
    assert state.digest() == sequencer.state.digest()


async def test_a_broken_invariant_ends_the_service(tmp_path: Path) -> None:
    """Nothing of the group is written or answered; who waits for the failure gets it."""
    sequencer = await opened(tmp_path)
    failing = asyncio.create_task(sequencer.failed())
    await asyncio.sleep(0)
    sequencer.state.ledger._credit(sequencer.state.ledger.accounts[1], 1)  # money from nowhere
    future = sequencer.submit(order("a"))
    with pytest.raises(AssertionError, match="money is"):
        await failing
    assert not future.done()
    with pytest.raises(EngineUnavailable, match="broken invariant"):
        sequencer.submit(order("b"))
    assert [record.command_index for record in read(tmp_path)] == [1, 2, 3]


async def test_closing_writes_what_is_queued(tmp_path: Path) -> None:
    """And refuses from then on."""
    sequencer = await opened(tmp_path)
    future = sequencer.submit(order("last"))
    await sequencer.close()
    assert (await future).index == 4
    with pytest.raises(EngineUnavailable, match="stopping"):
        sequencer.submit(order("late"))


@pytest.mark.parametrize(
    ("call", "passed"), [("open", 0), ("write", 0), ("fdatasync", 0), ("fdatasync", 1), ("rename", 0), ("fsync", 0)]
)
async def test_a_group_at_the_end_of_a_segment_is_refused_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, passed: int
) -> None:
    """Whichever call into the system fails: nobody's command is on the disk, and what is sent again is there once."""
    monkeypatch.setattr(sequencer_module, "RETRY_S", 0.01)
    sequencer = Sequencer(State(), open_journal(tmp_path, 300), lambda: rebuilt(tmp_path), MessageBuilder, ManualClock())
    for command in (cm.CreateInstrument(X, 100), cm.CreateStore(""), cm.Deposit(1, 10**9)):
        await sequencer.submit(command)
    known, really, left = list(read(tmp_path)), getattr(os, call), [passed]

    def refused(*arguments: Any, **named: Any) -> Any:
        if call == "open" and not arguments[1] & os.O_CREAT:
            return really(*arguments, **named)
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(*arguments, **named)

    names = [str(number) for number in range(20)]  # the first segment is full: they begin the next one
    with monkeypatch.context() as disk:
        disk.setattr(os, call, refused)
        told = await asyncio.gather(*[sequencer.submit(order(name)) for name in names], return_exceptions=True)
        assert left[0] < 0
    assert {type(one) for one in told} == {EngineUnavailable}
    await until(lambda: not sequencer.refusal, 10, "the disk takes writes again")
    assert list(read(tmp_path)) == known
    assert len(sequencer.state.orders) == 0
    outcomes = await asyncio.gather(*[sequencer.submit(order(name)) for name in names])
    written = list(read(tmp_path, known[-1].command_index))
    assert [record.command_index for record in written] == [outcome.index for outcome in outcomes]
    frames = [msgspec.json.decode(record.message, type=Message) for record in written]
    assert [frame.prev_message_index for frame in frames[1:]] == [frame.message_index for frame in frames[:-1]]
    assert frames[0].prev_message_index == known[-1].command_index
    digest = sequencer.state.digest()
    await sequencer.close()
    assert rebuilt(tmp_path)[0].digest() == digest
