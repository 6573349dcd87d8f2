"""`python -m engine backup` and `restore`: taken under load, put back elsewhere, the same exchange at the backup's index."""

from __future__ import annotations

import argparse
import io
import json
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.backup import backup as under_test
from engine.backup import command
from engine.backup.backup import put_back, take
from engine.core.exchange import Exchange
from engine.journal.reader import segments
from engine.journal.sequencer import TERM_GAP
from engine.recovery.inspection import moment
from engine.recovery.replay import NotOneHistory, recover
from engine.recovery.snapshot import snapshot
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.standby import role as roles
from engine.standby import set_aside
from engine.standby.role import Role
from engine.stores.message_builder import MessageBuilder
from service.backup import BackupInvalid
from service.errors import OperatorError
from tests.engine.lives import journaled, life, records
from tests.engine_process import OPERATOR, EngineProcess
from tests.stack import ROOT
from tests.waiting import until_sync

LIFE = life(4, 300)
NOW_NS = 10**18 * 2


def run(engine: EngineProcess, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "engine", *arguments]
    return subprocess.run(command, cwd=ROOT, env=engine.settings, input=given, capture_output=True, timeout=120, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exchange's folder: a journal in segments, a snapshot in the middle, keys."""
    own, exchange = tmp_path / "own", Exchange(MessageBuilder)
    journaled(own / "journal", LIFE[:150], exchange)
    record = records(own / "journal")[-1]
    files = snapshot(exchange.state, record.command_index, record.chain, record.time_ns, record.time_ns)
    FileSnapshotStore(own / "snapshots").write_generation(files)
    journaled(own / "journal", LIFE[150:], exchange)
    (own / "keys.json").write_text("{}")
    (own / "operator.key").write_text("tl_x")
    return own


def packed(folder: Path) -> tuple[bytes, dict[str, Any]]:
    out = io.BytesIO()
    about = take(folder, folder / "keys.json", out, NOW_NS)
    return out.getvalue(), about


def restored(content: bytes, folder: Path, exact: bool = False) -> dict[str, Any]:
    return put_back(io.BytesIO(content), folder, folder / "keys.json", exact, NOW_NS)


def test_a_backup_is_the_same_exchange_and_goes_on_in_a_new_term(folder: Path, tmp_path: Path) -> None:
    """The digest at its index is equal; no id of what came later is given again; nothing is left beside the journal."""
    content, about = packed(folder)
    state = recover(folder / "journal", folder / "snapshots")
    assert (about["index"], about["digest"]) == (state.last_index, state.state.digest())
    assert {path.name for path in folder.iterdir()} == {"journal", "snapshots", "keys.json", "operator.key"}
    new = tmp_path / "new"
    (new / "lost+found").mkdir(parents=True)  # as a new volume has it
    said = restored(content, new)
    assert moment(new / "journal", new / "snapshots", about["index"]).digest == about["digest"]
    assert (said["term"], said["goesOnAt"]) == (about["term"] + 1, about["index"] + TERM_GAP)
    assert roles.read(new) == Role("leader", about["term"] + 1)
    assert ((new / "operator.key").read_text(), (new / "keys.json").stat().st_mode & 0o777) == ("tl_x", 0o600)
    exact = tmp_path / "exact"
    restored(content, exact, exact=True)
    assert recover(exact / "journal", exact / "snapshots").state.digest() == about["digest"]
    assert roles.read(exact) is None


def test_what_was_set_aside_comes_along(folder: Path, tmp_path: Path) -> None:
    """An earlier leader's own commands are in no journal: listed by the restored exchange as by the first, and backed up again."""
    aside = folder / set_aside.FOLDER
    aside.mkdir()
    for name, first in (("00000000000000000101-00000000000000000102", 101), ("00000000000000000900-00000000000000000900", 900)):
        about = json.dumps({"after": first - 1, "leader": "http://b", "leaderTerm": 1, "time": "2026-11-23T00:00:00Z"})
        (aside / f"{name}.jsonl").write_text(f'{about}\n{{"index":{first}}}\n')
    (aside / "next.tmp").write_text("a part of one")
    content, about = packed(folder)
    assert about["setAside"] == 2
    listed = [list(set_aside.listed(folder, False))]
    for number in (1, 2):
        new = tmp_path / f"new{number}"
        restored(content, new)
        listed.append(list(set_aside.listed(new, False)))
        files = [json.loads(line)["commands"] for line in set_aside.listed(new, True)]
        assert (files, {path.suffix for path in (new / set_aside.FOLDER).iterdir()}) == ([1, 1], {".jsonl"})
        content, _ = packed(new)
    assert listed == [['{"index":101}', '{"index":900}']] * 3
    (folder / set_aside.REWIND).write_text("{}")
    with pytest.raises(OperatorError, match="not yet taken out of its journal"):
        packed(folder)


def test_what_was_archived_meanwhile_is_not_missed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that vanish while they are copied, and snapshots that are removed, only make it begin later."""
    copy_snapshot = under_test._copy_snapshot
    gone = [path for path in segments(folder / "journal") if int(path.stem) <= 100]

    def and_prune(source: Path, target: Path) -> None:
        copy_snapshot(source, target)
        for path in gone:
            path.unlink(missing_ok=True)

    monkeypatch.setattr(under_test, "_copy_snapshot", and_prune)
    content, about = packed(folder)
    restored(content, tmp_path / "new")
    assert moment(tmp_path / "new" / "journal", tmp_path / "new" / "snapshots", about["index"]).digest == about["digest"]
    for path in (folder / "snapshots").iterdir():
        path.unlink()
    with pytest.raises(NotOneHistory, match="no valid snapshot"):
        packed(folder)


def test_what_is_no_empty_folder_is_left_alone(folder: Path, tmp_path: Path) -> None:
    """A folder with anything in it, one whose engine runs, a damaged backup: refused, and the folder is as it was."""
    content, _ = packed(folder)
    with pytest.raises(OperatorError, match=r"is not empty: it has journal, keys\.json"):
        restored(content, folder)
    held = roles.lock(tmp_path / "busy")
    with pytest.raises(OperatorError, match="Another engine has"):
        restored(content, tmp_path / "busy")
    roles.os.close(held)
    for cut in (100, len(content) // 2, len(content) - 20_000):
        with pytest.raises(BackupInvalid):
            restored(content[:cut], tmp_path / "new")
        assert {path.name for path in (tmp_path / "new").iterdir()} <= {"lock"}
    restored(content, tmp_path / "new")


def test_what_cannot_be_backed_up_says_why(folder: Path, tmp_path: Path) -> None:
    """No journal, a standby that is not complete, another backup under way, damage."""
    with pytest.raises(OperatorError, match="There is no journal"):
        packed(tmp_path / "none")
    given = argparse.Namespace(file=str(tmp_path / "none.tar"), exact=False)
    with pytest.raises(OperatorError, match="cannot be read"):
        command.run_restore(tmp_path / "new", tmp_path / "new" / "keys.json", given, NOW_NS)
    with pytest.raises(OperatorError, match="There is no journal"):
        command.run_backup(tmp_path / "new", tmp_path / "new" / "keys.json", given, NOW_NS)
    assert not Path(given.file).exists()
    roles.write(folder, Role("standby", 0, "http://127.0.0.1:1", filling=True))
    with pytest.raises(OperatorError, match="does not have all"):
        packed(folder)
    (folder / "role.json").unlink()
    with under_test._staging(folder), pytest.raises(OperatorError, match="Another backup"):
        packed(folder)
    path = segments(folder / "journal")[-2]
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(OperatorError, match="damaged at index"):
        packed(folder)


@pytest.mark.live
def test_a_backup_of_a_running_exchange_is_an_exchange_that_runs(tmp_path: Path) -> None:
    """Through a pipe while orders, snapshots and pruning go on; it comes up elsewhere and takes orders under new ids."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    engine, other = EngineProcess(first, ENGINE_SNAPSHOT_INTERVAL_MS="300", ENGINE_PRUNE="true"), EngineProcess(second)
    engine.start()
    engine.ready()
    prepare(engine.url)
    enough, orders = threading.Event(), count(1)
    load = threading.Thread(target=trade, args=(engine.url, enough, orders), daemon=True)
    try:
        load.start()
        until_sync(lambda: next(orders) > 100, 30, "orders are flowing")
        done = run(engine, "backup", "-")
        assert done.returncode == 0, done.stderr.decode()
    finally:
        enough.set()
        load.join(20)
        engine.end(signal.SIGTERM)
    about = json.loads(done.stderr.decode().splitlines()[-1])
    came = run(other, "restore", "-", given=done.stdout)
    assert came.returncode == 0, came.stderr.decode()
    for folder in (first / "engine", second / "engine"):
        assert moment(folder / "journal", folder / "snapshots", about["index"]).digest == about["digest"]
    other.start()
    try:
        other.ready()
        order = {"account": 1, "symbol": "BTC-PERP", "clOrdID": "after", "side": "Buy", "orderQty": 1, "price": 45_000}
        answer = httpx.post(f"{other.url}/Order", json=order, headers=OPERATOR, timeout=20)
        assert answer.status_code == 201, answer.text
        assert int(answer.json()["orderId"]) > about["index"] + TERM_GAP
    finally:
        other.end(signal.SIGTERM)


def prepare(url: str) -> None:
    listed = {"symbol": "BTC-PERP", "tickSize": "0.5", "lotSize": "0.001", "markPrice": 50_000}
    assert httpx.put(f"{url}/Instrument", json=listed, headers=OPERATOR, timeout=20).status_code in (200, 201)
    paid = httpx.post(f"{url}/Account/1/Deposit", json={"amount": 10**15}, headers=OPERATOR, timeout=20)
    assert paid.status_code in (200, 201), paid.text


def trade(url: str, enough: threading.Event, orders: count[int]) -> None:
    """Place and cancel until it is enough."""
    with httpx.Client(base_url=url, headers=OPERATOR, timeout=20) as client, suppress(httpx.HTTPError):
        while not enough.is_set():
            name = f"o{next(orders)}"
            order = {"account": 1, "symbol": "BTC-PERP", "clOrdID": name, "side": "Buy", "orderQty": 1, "price": 45_000}
            client.post("/Order", json=order)
            client.request("DELETE", "/Order", params={"account": 1, "clOrdID": name})
