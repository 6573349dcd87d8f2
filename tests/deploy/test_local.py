"""Runs `make run` as people do, with everything embedded: live data, restarts, refusals, and stops in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from service.admin import bind
from tests.local_run import ROOT, LocalRun, alive
from tests.scale import everything
from tests.waiting import until_sync

SMALL = {"FEED": "simulator", "SYMBOLS": "20", "RATE": "200"}
BOTH = {"SYMBOLS": "20", "RATE": "200", "BOTS_RATE": "100"}  # what `make run` does without options: simulator and exchange


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    """A small simulator run that is ready."""
    with LocalRun(tmp_path_factory.mktemp("run"), **SMALL) as run:
        run.says("ready after")
        yield run


def wds(run: LocalRun, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command-line client against the run."""
    env = {**os.environ, "RUN_DIR": str(run.dir), "WDS_URL": f"ws://127.0.0.1:{run.port('WDS_PORT')}"}
    env |= {"WDS_TOKEN": token} if token else {}
    argv = [sys.executable, "-m", "wds", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90, check=False)


def test_it_tells_where_to_look(running: LocalRun) -> None:
    """The line with the address holds a page that answers."""
    line = running.says("open http://127.0.0.1:")
    address = line.split("open ")[1].split(" ")[0]
    assert address.endswith(str(running.port("SCP_PORT")))
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.status == 200
        assert answer.url.endswith("/sign-in")
        assert b"<html" in answer.read().lower()


def test_the_first_link_opens_the_page_once(running: LocalRun) -> None:
    """The line with the address has a link below it; who uses it is administrator and gets the desk."""
    assert "/welcome#" in running.says("nobody can sign in yet")
    (cookie,) = running.cookies()
    request = urllib.request.Request(
        f"http://127.0.0.1:{running.port('SCP_PORT')}/", headers={"Cookie": f"{cookie['name']}={cookie['value']}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert b"boards" in answer.read().lower()
    assert not (running.dir / "welcome.url").exists()


def test_a_script_gets_a_live_document(running: LocalRun) -> None:
    """`python -m wds get board:volume` prints a document with symbols of the simulator."""
    got = until_sync(lambda: (done := wds(running, "get", "board:volume")).returncode == 0 and done.stdout, seconds=20)
    assert '"order"' in got
    assert '"rows"' in got


def ask(run: LocalRun, path: str, method: str = "GET", csrf: str = "") -> Any:
    """Ask the control plane as the first administrator."""
    (cookie,) = run.cookies()
    headers = {"Cookie": f"{cookie['name']}={cookie['value']}", "X-CSRF-Token": csrf}
    request = urllib.request.Request(f"http://127.0.0.1:{run.port('SCP_PORT')}{path}", headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def test_the_stream_takes_the_key_that_signs_now(running: LocalRun) -> None:
    """It asks the control plane for keys; one that was made a moment ago, because the one before was stolen, is found."""
    csrf = ask(running, "/api/v1/me")["csrf"]
    for _ in range(2):
        token = ask(running, "/api/session")["token"]
        got = wds(running, "get", "board:volume", token=token)
        assert got.returncode == 0, got.stderr
        (signing,) = [key["kid"] for key in ask(running, "/jwks.json")["keys"]]
        assert jwt.get_unverified_header(token)["kid"] == signing
        ask(running, f"/api/v1/stream-keys/{signing}", "DELETE", csrf)


def test_processes_and_ports_are_on_file(running: LocalRun) -> None:
    """local.json names every child and its pid; each has a log."""
    assert running.pids().keys() == {"mdc", "pipeline", "wds", "scp"}
    assert all(alive(pid) for pid in running.pids().values())
    assert {path.name for path in (running.dir / "logs").glob("*.log")} == {"mdc.log", "pipeline.log", "wds.log", "scp.log"}


@pytest.mark.parametrize("name", ["wds", "pipeline", "mdc", "scp"])
def test_a_killed_child_is_replaced_and_data_flows_again(running: LocalRun, name: str) -> None:
    """Each process may die; the run goes on and the same question is answered again."""
    first = running.pids()[name]
    os.kill(first, signal.SIGKILL)
    until_sync(lambda: running.pids().get(name, first) != first, seconds=20)
    assert f"{name} died (SIGKILL); starting it again" in running.output
    until_sync(lambda: '"order"' in wds(running, "get", "board:volume").stdout, seconds=40, every_s=0.2)


def test_a_second_run_in_the_same_place_is_refused(running: LocalRun) -> None:
    """It says where the first one is and ends with 2; the first is not disturbed."""
    with LocalRun(running.dir, **SMALL) as second:
        assert second.ends() == 2
    assert f"already runs in {running.dir} (process {running.process.pid})" in second.output
    assert running.process.poll() is None


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    """One line with the port and its variable, exit code 2, nothing started."""
    with bind("127.0.0.1", 0, "X") as holder:
        port = holder.getsockname()[1]
        with LocalRun(tmp_path, SCP_PORT=str(port), **SMALL) as run:
            assert run.ends() == 2
    assert len(run.lines) == 1
    assert run.lines[0].startswith(f"tapeline run: error: cannot listen on 127.0.0.1:{port}: address already in use.")
    assert "SCP_PORT" in run.lines[0]


@pytest.mark.parametrize("sent", [signal.SIGINT, *([signal.SIGTERM, signal.SIGHUP] if everything() else [])])
def test_it_stops_in_order_and_leaves_nothing(tmp_path: Path, sent: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal: exit code 0 within 10 s, no process, no local.json."""
    with LocalRun(tmp_path, **SMALL) as run:
        run.says("ready after")
        pids = run.pids()
        began_s = time.monotonic()
        run.process.send_signal(sent)
        assert run.ends(15) == 0, run.output
        assert time.monotonic() - began_s < 10
        assert not [name for name, pid in pids.items() if alive(pid)]
        assert run.lines[-1] == "tapeline: stopped"
        assert "killed" not in run.output
        assert run.facts == {}


def test_ctrl_c_while_starting_is_a_stop_like_any_other(tmp_path: Path) -> None:
    """Nobody has to wait for the start to be able to stop."""
    with LocalRun(tmp_path, **SMALL) as run:
        run.says("started mdc")
        pids = until_sync(lambda: len(found := run.pids()) == 4 and found, seconds=10)
        run.interrupt()
        assert run.ends(15) == 0, run.output
        assert not [name for name, pid in pids.items() if alive(pid)]


@pytest.mark.faults
def test_a_second_ctrl_c_ends_everything_at_once(tmp_path: Path) -> None:
    """Who cannot wait for the drain presses again."""
    with LocalRun(tmp_path, **SMALL) as run:
        run.says("ready after")
        pids = run.pids()
        os.kill(pids["wds"], signal.SIGSTOP)  # a child that hangs makes the first stop last
        run.interrupt()
        run.says("stopping", 5)
        run.interrupt()
        assert run.ends(5) == 130
        until_sync(lambda: not any(alive(pid) for pid in pids.values()))


@pytest.mark.faults
def test_a_child_that_hangs_is_killed_within_the_bound(tmp_path: Path) -> None:
    """The stop takes 10 s at the most, and says who was late."""
    with LocalRun(tmp_path, **SMALL) as run:
        run.says("ready after")
        pids = run.pids()
        os.kill(pids["wds"], signal.SIGSTOP)
        began_s = time.monotonic()
        run.interrupt()
        assert run.ends(15) == 0
        assert time.monotonic() - began_s < 11
        assert "wds did not stop in time and was killed" in run.output
        assert not any(alive(pid) for pid in pids.values())


def test_a_replay_is_followed_to_its_end_and_stays_up(tmp_path: Path) -> None:
    """The number of events is told, and the end state can still be asked for."""
    tape = tmp_path / "day.ndjson"
    trade = '[{{"ev":"T","sym":"REEL","x":4,"p":{price},"s":100,"t":{at},"q":{number},"i":"{number}"}}]\n'
    at = 1_700_058_600_000  # a Wednesday, 09:30 in New York
    tape.write_text("".join(trade.format(price=10 + n % 7, at=at + n, number=n) for n in range(1, 1001)))
    with LocalRun(tmp_path / "run", TAPE=str(tape), SPEED="max") as run:
        assert "1,000 events" in run.says("replay finished")
        got = until_sync(lambda: (done := wds(run, "get", "quote:REEL")).returncode == 0 and done.stdout, seconds=20)
        assert '"volume":100000' in got
        run.interrupt()
        assert run.ends(15) == 0


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    """A small run of simulator and exchange that is ready."""
    with LocalRun(tmp_path_factory.mktemp("exchange"), **BOTH) as run:
        run.says("ready after")
        yield run


def last_trade(run: LocalRun) -> int:
    """Return the number of the newest print of the exchange's first contract, 0 when there is none yet."""
    got = wds(run, "get", "trades:BTC-PERP")
    prints = json.loads(got.stdout)["data"] if got.returncode == 0 else []
    return max((int(one["id"]) for one in prints), default=0)


def test_without_options_simulator_and_exchange_are_live_at_once(exchange: LocalRun) -> None:
    """The exchange has its process, its bots, its place and its ports; a script gets prints, quote and depth of both markets."""
    assert exchange.pids().keys() == {"mdc", "engine", "bots", "pipeline", "wds", "scp"}
    assert (
        "feed: simulator (20 symbols, 200 events/s, seed 7) + built-in exchange (bots: 100 commands/s, seed 7)"
        " + news (simulated)" in exchange.output
    )
    assert exchange.facts["feed"] == "simulator+engine+news"
    assert (exchange.dir / "engine").is_dir()
    with urllib.request.urlopen(f"http://127.0.0.1:{exchange.port('ENGINE_ADMIN_PORT')}/readyz", timeout=10) as answer:
        assert answer.status == 200
    until_sync(lambda: last_trade(exchange), seconds=30)
    until_sync(lambda: '"bids":[[' in wds(exchange, "get", "book:BTC-PERP").stdout, seconds=20)
    until_sync(lambda: '"order"' in wds(exchange, "get", "board:volume").stdout, seconds=20)
    until_sync(lambda: '"title"' in wds(exchange, "get", "news:latest").stdout, seconds=20)


@pytest.mark.parametrize("name", ["engine", "bots", "pipeline"])
def test_a_killed_part_of_the_exchange_is_replaced_and_it_trades_on(exchange: LocalRun, name: str) -> None:
    """The exchange comes back as it was: its trades are counted on."""
    before = until_sync(lambda: last_trade(exchange), seconds=30)
    first = exchange.pids()[name]
    os.kill(first, signal.SIGKILL)
    until_sync(lambda: exchange.pids().get(name, first) != first, seconds=20)
    until_sync(lambda: last_trade(exchange) > before + 5, seconds=60, every_s=0.2)
    assert "exchange_messages_lost" not in (exchange.dir / "logs" / "pipeline.log").read_text()


@pytest.mark.faults
def test_the_exchange_is_the_same_one_at_the_next_run(tmp_path: Path) -> None:
    """It stops within the bound without a kill, leaves nothing behind but its journal, and goes on from there."""
    trades = 0
    for feed in ("engine", "simulator+engine"):
        with LocalRun(tmp_path, **(BOTH | {"FEED": feed})) as run:
            run.says("ready after")
            pids = run.pids()
            trades = until_sync(lambda before=trades: (now := last_trade(run)) > before and now, seconds=30)
            run.interrupt()
            assert run.ends(15) == 0, run.output
            assert not [name for name, pid in pids.items() if alive(pid)]
            assert "killed" not in run.output
