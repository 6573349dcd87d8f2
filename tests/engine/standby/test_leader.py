"""With `sync` an answer means that the standby's disk has it, too; without a standby nothing is taken, and nothing is silent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import websockets

from engine.access.keys import Role
from engine.journal import journal as journal_module
from engine.standby import frames
from engine.standby import leader as leader_module
from engine.standby.frames import Ack, Hello
from tests.cable import Cable
from tests.engine.gateway.ground import Ground, exchange, order_body
from tests.engine.standby.rig import Copy, alike, following, in_step
from tests.waiting import until


async def answer(ground: Ground, method: str, path: str, **body: Any) -> tuple[int, str]:
    """Return the status of an answer, and the code of its problem."""
    got = await ground.http.request(method, ground.url + path, json=body or None)
    return got.status_code, got.json().get("code", "") if got.status_code >= 400 else ""


async def heard(socket: websockets.ClientConnection) -> None:
    """Listen until the connection is closed."""
    while True:
        await socket.recv()


async def test_without_a_standby_commands_are_refused_and_with_one_they_are_taken(tmp_path: Path) -> None:
    """Definitely not done, said before anything is written; a standby that goes away has the same effect at once."""
    async with exchange(tmp_path / "leader", sync_s=5.0) as ground:
        assert await answer(ground, "POST", "/Account/1/Deposit", amount=5) == (503, "NoStandby")
        assert await answer(ground, "GET", "/Account") == (503, "NoStandby")
        assert "no standby has followed yet" in (await ground.ask("GET", "/Replication"))["problem"]
        async with following(ground, tmp_path / "copy") as copy:
            await until(lambda: not ground.sequencer.refusal, 10)
            await ground.market(1, 2)
            placed = [ground.order(1 + n % 2, f"o{n}", "Buy" if n % 2 else "Sell", 1, 100) for n in range(60)]
            await asyncio.gather(*placed)
            held = copy.journal.last_index
            assert held == ground.sequencer.committed_index, "nothing was answered that the standby's disk does not have"
            assert copy.state.digest() == ground.digest
        await until(lambda: bool(ground.sequencer.refusal), 10)
        assert await answer(ground, "POST", "/Order", **order_body(1, "alone")) == (503, "NoStandby")
        assert ground.sequencer.journal.last_index == held


async def test_what_the_standby_does_not_confirm_is_uncertain_and_done_once(tmp_path: Path) -> None:
    """The line hangs: told in time that nothing is certain, nobody reads it meanwhile; asked again it has been done once."""
    async with exchange(tmp_path / "leader", sync_s=0.5) as ground:
        with Cable(ground.url) as cable:
            async with following(ground, tmp_path / "copy", url=cable.url) as copy:
                await until(lambda: not ground.sequencer.refusal, 10)
                await ground.market(1)
                heard: list[int] = []
                ground.sequencer.on_commit(lambda records: heard.append(records[-1].command_index))
                cable.hang()
                first = asyncio.create_task(answer(ground, "POST", "/Order", **order_body(1, "unsure")))
                await until(lambda: ground.sequencer.unsettled, 10)
                reading = asyncio.create_task(answer(ground, "GET", "/Order?account=1&clOrdID=unsure"))
                assert await first == (503, "NotReplicated")
                assert await reading == (503, "NoStandby")
                assert heard == [], "message stores and streams are not told either"
                assert await answer(ground, "POST", "/Order", **order_body(1, "refused")) == (503, "NoStandby")
                cable.mend()
                await until(lambda: not ground.sequencer.refusal, 30, "the standby is in step again")
                assert heard != []
                again = await ground.ask("POST", "/Order", 409, **order_body(1, "unsure"))
                assert again["code"] == "DuplicateClOrdID"
                assert await answer(ground, "GET", "/Order?account=1&clOrdID=refused") == (404, "UnknownOrder")
                await in_step(ground, copy)
                assert copy.state.digest() == ground.digest
        alike(ground.folder, tmp_path / "copy")


async def test_async_answers_alone_and_says_how_far_behind_the_standby_is(tmp_path: Path) -> None:
    """Orders go on while the line hangs; the lag is a number."""
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1)
        with Cable(ground.url) as cable:
            async with following(ground, tmp_path / "copy", url=cable.url) as copy:
                await in_step(ground, copy)
                cable.hang()
                for number in range(20):
                    await ground.order(1, f"o{number}", "Buy", 1, 99)
                view = (await ground.ask("GET", "/Replication"))["standby"]
                assert view["lagCommands"] == 20
                await until(lambda: ground.standbys.lag_ms > 50, 10)
                cable.mend()
                await in_step(ground, copy, 30)
                assert ground.standbys.lag_ms == 0


async def test_an_engine_has_one_standby(tmp_path: Path) -> None:
    """A second one is told who is there; the same one again takes the place of its dead connection."""
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1)
        async with following(ground, tmp_path / "one") as copy:
            await in_step(ground, copy)
            second = Copy(ground, tmp_path / "two", name="two")
            second.start()
            await until(lambda: "has a standby, copy" in second.follower.problem, 10)
            await second.stop()
            again = Copy(ground, tmp_path / "again")
            again.start()
            await until(lambda: again.journal.last_index == copy.journal.last_index, 10)
            await again.stop()


@pytest.mark.parametrize(
    "said",
    [
        "", "{", "[]", b"\x00\xff", '{"type":"ack","term":0,"index":0}', '{"type":"hello","name":"x"}',
        '{"type":"hello","name":"x","term":0,"index":0,"chain":"zz"}', "9" * 60_000,
    ],
)  # fmt: skip
async def test_nonsense_ends_the_connection_and_nothing_else(tmp_path: Path, said: str | bytes) -> None:
    """Whoever has a replica's key and speaks another language is told in the close frame."""
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1)
        async with websockets.connect(f"{ground.ws_url}{frames.PATH}", additional_headers=ground.key(Role.REPLICA)) as socket:
            await socket.send(said)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4400
        await ground.order(1, "unharmed", "Buy", 1, 99)


async def test_a_standby_that_lies_is_cut_and_one_of_a_later_term_stops_the_leader(tmp_path: Path) -> None:
    """Who confirms what was never sent could lose everything that is answered then."""
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1)
        hello = frames.encode(Hello("liar", 0, -1, "0" * 32))
        async with websockets.connect(f"{ground.ws_url}{frames.PATH}", additional_headers=ground.key(Role.REPLICA)) as socket:
            await socket.send(hello)
            assert json.loads(await socket.recv())["index"] == ground.sequencer.journal.last_index
            await socket.send(frames.encode(Ack(0, 10**15)))
            with pytest.raises(websockets.ConnectionClosed):
                await heard(socket)
        await ground.order(1, "a", "Buy", 1, 99)
        async with websockets.connect(f"{ground.ws_url}{frames.PATH}", additional_headers=ground.key(Role.REPLICA)) as socket:
            await socket.send(hello)
            await until(lambda: ground.standbys.standby is not None)
            await socket.send(frames.encode(Ack(3, 1)))
            await until(lambda: ground.deposed == [3])
        assert await answer(ground, "POST", "/Order", **order_body(1, "b")) == (503, "JournalUnavailable")


async def test_a_leader_whose_disk_refuses_never_sends_what_it_takes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused group is on no disk; service resumes, in step, with journals that are alike."""
    async with exchange(tmp_path / "leader", sync_s=5.0) as ground, following(ground, tmp_path / "copy") as copy:
        await until(lambda: not ground.sequencer.refusal, 10)
        await ground.market(1)
        sync, full = journal_module.os.fdatasync, [True]

        def refusing(file: int) -> None:
            if full[0] and str(ground.folder) in journal_module.os.readlink(f"/proc/self/fd/{file}"):
                raise OSError(28, "No space left on device")
            sync(file)

        monkeypatch.setattr(journal_module.os, "fdatasync", refusing)
        assert await answer(ground, "POST", "/Order", **order_body(1, "full")) == (503, "JournalUnavailable")
        full[0] = False
        await until(lambda: not ground.sequencer.refusal, 10)
        await ground.order(1, "full", "Buy", 1, 99)
        await in_step(ground, copy)
        alike(ground.folder, tmp_path / "copy")


async def test_a_silent_standby_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took the connection and says nothing: gone after a while, its place is free."""
    monkeypatch.setattr(leader_module, "SILENCE_S", 0.5)
    async with exchange(tmp_path / "leader") as ground:
        await ground.market(1)
        async with websockets.connect(f"{ground.ws_url}{frames.PATH}", additional_headers=ground.key(Role.REPLICA)) as socket:
            await socket.send(frames.encode(Hello("silent", 0, -1, "0" * 32)))
            await until(lambda: ground.standbys.standby is not None)
            await until(lambda: ground.standbys.standby is None, 10)
