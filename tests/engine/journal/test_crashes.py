"""A life of commands, killed with SIGKILL more than a thousand times, at every kind of write boundary: nothing acknowledged is
lost, nothing is doubled, no group is there in part, and the journal ends with the records of a life without a crash.

Each life is a process of its own (fork) that recovers from the folder, goes on where the journal ends, tells its parent through
a pipe what it acknowledged, and kills itself before, within or behind the n-th call that changes the disk.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from engine.core import commands as cm
from engine.core import events as ev
from engine.journal import journal as journal_module
from engine.journal.journal import open_journal
from engine.journal.reader import read
from engine.journal.sequencer import Sequencer
from engine.stores.message_builder import MessageBuilder
from service.clock import ManualClock
from tests.engine.lives import rebuilt
from tests.engine.order_flow import commands
from tests.scale import many

CRASHES = many(1_050)
COUNT = many(7_000)
ENDS = 1 << 62  # added to the last index of a group that is sent
SEGMENT_BYTES_MAX = 60_000  # many segments: making one is a boundary, too
CHANGES = ("open", "write", "fdatasync", "fsync", "ftruncate", "truncate", "unlink", "rename")


class MortalDisk:
    """Stands before the journal's `os`: the `at`-th call that changes the disk is the process's last one."""

    def __init__(self, at: int, how: str, dice: random.Random) -> None:
        self._left = at
        self._how = how
        self._dice = dice

    def __getattr__(self, name: str) -> Any:
        really = getattr(os, name)
        if name not in CHANGES:
            return really

        def mortal(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left:
                return really(*arguments, **named)
            if self._how == "within" and name == "write":
                file, content = arguments
                really(file, content[: self._dice.randrange(len(content))])
            elif self._how == "after":
                really(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("SIGKILL returned")

        return mortal


def life() -> list[cm.Command]:
    """Return commands that make an event each, so that the n-th has index n."""
    return [cm.CreateStore("consumer"), *islice(commands(7, COUNT), COUNT - 1)]


def fork(work: Callable[[int], None]) -> tuple[int, list[int]]:
    """Run `work(pipe)` in a child; return its wait status and the numbers that it wrote, eight bytes each."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            work(writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, [int.from_bytes(told[at : at + 8], "little") for at in range(0, len(told) - 7, 8)]


def live(folder: Path, listed: list[cm.Command], disk: MortalDisk | None, dice: random.Random, pipe: int) -> None:
    """Recover, then send what the journal does not have, in groups of random size; tell each group's end, then what is acknowledged."""
    if disk is not None:
        journal_module.os = disk  # type: ignore[assignment]

    async def body() -> None:
        state, journal = rebuilt(folder, probing=False)
        journal._segment_bytes_max = SEGMENT_BYTES_MAX
        sequencer = Sequencer(state, journal, lambda: rebuilt(folder), MessageBuilder, ManualClock())
        at = max(journal.last_index, 0)
        while at < len(listed):
            size = dice.randint(1, 6)
            os.write(pipe, (ENDS + min(at + size, len(listed))).to_bytes(8, "little"))
            for outcome in await asyncio.gather(*[sequencer.submit(command) for command in listed[at : at + size]]):
                os.write(pipe, outcome.index.to_bytes(8, "little"))
            at += size
        await sequencer.close()

    asyncio.run(body())


def content(folder: Path) -> list[tuple[int, int, bytes, bytes]]:
    return [record[:4] for record in read(folder)]


def sorted_out(told: list[int]) -> tuple[list[int], set[int]]:
    """Return what was acknowledged, and the ends of the groups."""
    return [number for number in told if number < ENDS], {number - ENDS for number in told if number > ENDS}


@pytest.mark.parametrize("seed", [3])
def test_no_crash_at_any_write_boundary_loses_or_doubles_anything(tmp_path: Path, seed: int) -> None:
    """1,050 SIGKILLs in one life of 7,000 commands; two fifths of both in the usual run."""
    listed = life()
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    status, told = fork(lambda pipe: live(whole, listed, None, random.Random(1), pipe))
    assert (status, sorted_out(told)[0]) == (0, list(range(1, COUNT + 1)))

    dice, acknowledged, crashes, ends = random.Random(seed), 0, 0, {0}
    while crashes < CRASHES:
        at, how = dice.randint(1, 5), dice.choice(("before", "within", "after"))
        disk, groups = MortalDisk(at, how, random.Random(crashes)), random.Random(crashes)
        status, told = fork(lambda pipe, disk=disk, groups=groups: live(broken, listed, disk, groups, pipe))  # type: ignore[misc]
        assert os.WIFSIGNALED(status), f"crash {crashes}: the life ended with status {status}, not by its disk"
        crashes += 1
        done, sent = sorted_out(told)
        acknowledged = max([acknowledged, *done])
        ends |= sent
        last = max((record.command_index for record in read(broken, acknowledged - 1)), default=0)
        assert last >= acknowledged, (
            f"crash {crashes} ({how} change {at}): {acknowledged} was acknowledged, {last} is the last one"
        )
        assert last in ends, f"crash {crashes} ({how} change {at}): {last} is in the middle of a group"
    status, told = fork(lambda pipe: live(broken, listed, None, random.Random(2), pipe))
    assert (status, told[-1]) == (0, COUNT)
    assert content(broken) == content(whole)
    trades = [event.trade_id for record in read(broken) for event in ev.decode(record.payload) if type(event) is ev.Traded]
    assert trades == list(range(1, len(trades) + 1))
    assert len(trades) > 100


def test_a_killed_process_under_load_keeps_its_word(tmp_path: Path) -> None:
    """55 SIGKILLs from outside, at any time: what was acknowledged is in the journal, once, and the next life goes on with it."""
    listed, dice, acknowledged = life(), random.Random(5), 0
    for kill in range(55):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(reading)
                live(tmp_path, listed * 50, None, random.Random(kill), writing)
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            told = pipe.read(8)  # it lives
            for _ in range(dice.randint(0, 40)):
                told += pipe.read(8 * dice.randint(1, 20))
            os.kill(child, signal.SIGKILL)
            while more := pipe.read(1 << 16):
                told += more
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        numbers = [int.from_bytes(told[at : at + 8], "little") for at in range(0, len(told) - 7, 8)]
        acknowledged = max([acknowledged, *sorted_out(numbers)[0]])
        journal = open_journal(tmp_path)
        journal.close()
        assert journal.last_index >= acknowledged
    indices = [record.command_index for record in read(tmp_path)]
    assert indices == list(range(1, len(indices) + 1))
    assert len(indices) > 1_000
