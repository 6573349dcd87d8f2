"""A standby copies the journal byte for byte over every kind of network, and refuses what is not the leader's history."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
from pathlib import Path
from socket import gaierror
from typing import Any

import pytest

from engine.access.keys import Role
from engine.core.events import TermBegan
from engine.journal import journal as journal_module
from engine.journal.journal import open_journal
from engine.journal.retention import archive_segments
from engine.recovery.replay import recover
from engine.recovery.snapshot import snapshot
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.standby import follower as follower_module
from engine.standby import leader as leader_module
from engine.standby import line as line_module
from service.errors import OperatorError
from tests.cable import Cable
from tests.engine.gateway.ground import exchange
from tests.engine.standby.rig import Copy, alike, following, in_step
from tests.waiting import until


async def test_a_standby_has_the_same_bytes_and_the_same_state(tmp_path: Path) -> None:
    """From the beginning, live, and after it was away; keys come along; the view says how far it is."""
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1, 2)
        async with following(ground, tmp_path / "copy") as copy:
            await in_step(ground, copy)
            for number in range(20):
                await ground.order(1 + number % 2, f"a{number}", "Buy" if number % 2 else "Sell", 1, 100)
            await in_step(ground, copy)
            assert copy.state.digest() == ground.digest
            view = await ground.ask("GET", "/Replication")
            assert (view["role"], view["term"], view["replication"]) == ("leader", 0, "async")
            assert (view["standby"]["index"], view["standby"]["lagCommands"]) == (ground.sequencer.committed_index, 0)
            await until(lambda: copy.keys.exists() and copy.keys.read_bytes() == ground.keys.file.path.read_bytes())
        alike(ground.folder, tmp_path / "copy")
        await ground.order(1, "away", "Buy", 1, 99)
        async with following(ground, tmp_path / "copy") as copy:
            await in_step(ground, copy)
            assert copy.state.digest() == ground.digest
        alike(ground.folder, tmp_path / "copy")


async def test_a_cut_and_a_silent_line_are_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset, hanging in either direction: each time the standby is in step again, with the same bytes."""
    monkeypatch.setattr(follower_module, "SILENCE_S", 1.5)
    monkeypatch.setattr(leader_module, "SILENCE_S", 1.5)
    monkeypatch.setattr(follower_module, "CONNECT_S", 1.5)
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1)
        with Cable(ground.url) as cable:
            async with following(ground, tmp_path / "copy", url=cable.url) as copy:
                await in_step(ground, copy)
                for number, fault in enumerate((cable.cut, cable.hang_answers, cable.hang_questions)):
                    fault()
                    await ground.order(1, f"while-{number}", "Buy", 1, 99)
                    if fault == cable.hang_answers:
                        assert ground.standbys.lag_commands != 0
                    await until(lambda: bool(copy.follower.problem), 20, "the standby notices")
                    cable.mend()
                    await in_step(ground, copy, 30)
                    assert copy.state.digest() == ground.digest
            alike(ground.folder, tmp_path / "copy")


async def test_a_standby_whose_disk_refuses_goes_on_when_it_takes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a refused write stays, in the middle of a group neither; the reason is said."""
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1)
        async with following(ground, tmp_path / "copy") as copy:
            await in_step(ground, copy)
            write, full = journal_module.write_all, [True]

            def refusing(file: int, content: bytes) -> None:
                if full[0] and os.readlink(f"/proc/self/fd/{file}").startswith(str(copy.folder)):
                    write(file, content[: len(content) // 2])
                    raise OSError(errno.ENOSPC, "No space left on device")
                write(file, content)

            monkeypatch.setattr(journal_module, "write_all", refusing)
            await ground.order(1, "full", "Buy", 1, 99)
            await until(lambda: "No space left" in copy.follower.problem, 10)
            full[0] = False
            await in_step(ground, copy)
            assert copy.state.digest() == ground.digest
        alike(ground.folder, tmp_path / "copy")


async def test_another_history_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """A longer journal, one of another exchange, one that lacks what is archived: one line each, nothing changed."""
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1)
        for name, indices in (("longer", (1, 2, 3, 4, 5, 6)), ("other", (1, 2))):
            journal = open_journal(tmp_path / name)
            for index in indices:
                journal.append(index, index, b"\x90")
                journal.commit()
            journal.close()
            before = [path.read_bytes() for path in (tmp_path / name).iterdir()]
            with pytest.raises(OperatorError, match=r"two histories\. Start it with an empty ENGINE_DIR"):
                await Copy(ground, tmp_path / name).follower.run()
            assert [path.read_bytes() for path in (tmp_path / name).iterdir()] == before


async def test_a_new_standby_of_a_trimmed_journal_gets_the_snapshot(tmp_path: Path) -> None:
    """The leader's first segments are archived: snapshot and journal together make its state; one that lacks them is told so."""
    journal = tmp_path / "leader"
    async with exchange(journal) as ground:
        await ground.market(1)
        async with following(ground, tmp_path / "old") as old:
            await in_step(ground, old)
    opened = open_journal(journal, segment_bytes_max=1)  # each group begins a segment
    opened.append(opened.last_index + 1, 10**18, b"\x90")
    opened.commit()
    opened.append(opened.last_index + 1, 10**18, b"\x90")
    opened.commit()
    opened.close()
    recovered = recover(journal, tmp_path / "none")
    files = snapshot(recovered.state, recovered.last_index, recovered.chain, 10**18, recovered.time_ns)
    FileSnapshotStore(tmp_path / "leader-snapshots").write_generation(files)
    assert archive_segments(journal, tmp_path / "archive", recovered.last_index)
    async with exchange_of(journal, tmp_path) as ground:
        async with following(ground, tmp_path / "new") as copy:
            await until(lambda: copy.journal.last_index == ground.sequencer.journal.last_index, 20)
        alike(journal, tmp_path / "new")
        assert recover(tmp_path / "new", tmp_path / "new-snapshots").state.digest() == recovered.state.digest()
        with pytest.raises(OperatorError, match=r"archived\. Start it with an empty ENGINE_DIR"):
            await Copy(ground, tmp_path / "old").follower.run()


def exchange_of(journal: Path, folder: Path):  # type: ignore[no-untyped-def]
    """Run an engine on a journal whose beginning is archived: its state is put there by the snapshot."""
    return exchange(journal, snapshots=folder / "leader-snapshots")


async def test_a_wrong_key_is_said_and_a_right_one_helps(tmp_path: Path) -> None:
    """A trader's key copies nothing; a replica's key that is withdrawn ends the copying within a second."""
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1)
        trader = ground.key(Role.TRADER, "1")["Authorization"].removeprefix("Bearer ")
        async with following(ground, tmp_path / "copy", key=trader) as copy:
            await until(lambda: "ENGINE_FOLLOW_KEY" in copy.follower.problem, 10)
            assert copy.journal.last_index == -1
        replica = ground.key(Role.REPLICA)["Authorization"].removeprefix("Bearer ")
        async with following(ground, tmp_path / "copy", key=replica) as copy:
            await in_step(ground, copy)
            ground.keys.file.withdraw(replica.split("_")[1], ground.keys.clock.wall_ns())
            ground.keys.look()
            await until(lambda: "ENGINE_FOLLOW_KEY" in copy.follower.problem, 20)


async def test_a_name_that_nobody_finds_is_looked_up_by_one_thread_and_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader's container is gone: its name takes longer to fail than a try lasts, and fails with nobody listening any more."""
    now, most, failed = 0, 0, threading.Event()
    reported: list[dict[str, Any]] = []

    def slow(*_: object) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        failed.wait(5)
        now -= 1
        raise gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(line_module, "getaddrinfo", slow)
    monkeypatch.setattr(follower_module, "CONNECT_S", 0.05)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with exchange(tmp_path / "leader") as ground, following(ground, tmp_path / "copy") as copy:
        await until(lambda: most, 10)
        await until(lambda: "says nothing" in copy.follower.problem, 10)
        failed.set()
        await until(lambda: "name resolution" in copy.follower.problem, 10)
    gc.collect()
    assert most == 1
    assert not reported


async def test_a_leader_of_an_earlier_term_stops_when_it_hears_of_a_later_one(tmp_path: Path) -> None:
    """Whoever knows a later term says so in its first message; the leader takes no command from then on."""
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1)
        copy = Copy(ground, tmp_path / "copy")
        copy.state.apply(TermBegan(1))
        failing = asyncio.create_task(ground.sequencer.failed())
        herald = asyncio.create_task(copy.follower.herald())
        await until(lambda: ground.deposed == [1], 10)
        refused = await ground.ask("POST", "/Account/1/Deposit", 503, amount=1)
        assert "copy leads in term 1" in refused["detail"]
        with pytest.raises(OperatorError, match="led in term 0"):
            await failing
        herald.cancel()
        await asyncio.gather(herald, return_exceptions=True)
        await copy.stop()


@pytest.mark.parametrize("ends", [OSError("the leader was killed"), asyncio.CancelledError()])
async def test_what_is_on_the_disk_is_in_the_state_however_the_connection_ends(tmp_path: Path, ends: BaseException) -> None:
    """The leader dies, or this standby is promoted, between the disk's write and the word of it: a state without that group
    would go on beside its own journal."""
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1)
        async with following(ground, tmp_path / "copy") as copy:
            await in_step(ground, copy)
            said, before = copy.follower._ack, copy.journal.last_index

            def dying() -> str:
                if copy.journal.last_index > before:
                    raise ends
                return said()

            copy.follower._ack = dying  # type: ignore[method-assign]
            await ground.order(1, "o", "Buy", 1, 99)
            await until(lambda: copy.journal.last_index > before, 10)
            await until(lambda: copy.state.digest() == ground.digest, 10)
            copy.follower._ack = said  # type: ignore[method-assign]
        alike(ground.folder, tmp_path / "copy")
