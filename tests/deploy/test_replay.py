"""`python -m deploy.replay`: analyzers over a tape without servers say what plain arithmetic over the file says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.local_run import ROOT
from tests.mdp.plugins.boxes import package
from tests.oracle import expected
from tests.tapes import tape

AT_MS = 1_700_000_000_000


def replay(*words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ | ({"PYTHONPATH": str(path)} if path is not None else {})
    argv = [sys.executable, "-m", "deploy.replay", *words]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)


def documents(*words: str) -> list[dict[str, Any]]:
    done = replay(*words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def trade(sym: str, price: float, at_ms: int, size: int = 100) -> dict[str, Any]:
    return {"ev": "T", "sym": sym, "x": 4, "i": str(at_ms), "z": 3, "p": price, "s": size, "c": [], "t": at_ms, "q": at_ms}


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """Two symbols over two minutes, with a line that is no frame and an event that is no trade."""
    path = tmp_path / "short.ndjson"
    lines = [json.dumps([trade("A", 10 + n, AT_MS + n * 1_000), trade("B", 500 - n, AT_MS + n * 1_000, 7)]) for n in range(120)]
    lines[60:60] = ["tea", json.dumps([{"ev": "T", "sym": "A", "p": "much", "t": AT_MS}])]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("name", ["es-2023-12-25.ndjson.gz", "crypto-2021-04-17.ndjson.gz"])
def test_the_last_quotes_of_a_recorded_session_are_those_of_plain_arithmetic(name: str) -> None:
    """Every field that the oracle knows, of every symbol; how often is flushed changes nothing of it."""
    recorded = tape(name)
    wanted = expected(recorded)
    for every in ("0.1", "30"):
        found = {one["ch"]: one["data"] for one in documents(str(recorded), "--analyzer", "quote", "--last", "--every", every)}
        assert found.keys() == {f"quote:{symbol}" for symbol in wanted}
        for symbol, state in wanted.items():
            told = {field: found[f"quote:{symbol}"][field] for field in state["quote"]}
            assert told == pytest.approx({field: float(value) for field, value in state["quote"].items()}, rel=1e-9)


def test_only_what_was_asked_for_is_printed(short: Path) -> None:
    """Boards need quotes and say nothing of them; patterns choose channels; bad lines and events are counted."""
    done = replay(str(short), "--analyzer", "boards", "--channel", "board:vol*", "--last")
    [board] = map(json.loads, done.stdout.splitlines())
    assert (board["ch"], board["data"]["order"]) == ("board:volume", ["A", "B"])
    assert board["data"]["rows"]["B"]["volume"] == 840
    assert "241 events, 1 documents" in done.stderr
    assert "1 bad" in done.stderr
    assert "1 lines that are no frames" in done.stderr
    bars = documents(str(short), "--analyzer", "bars", "--channel", "bars:1m:A", "--last")
    assert [(bar["ch"], bar["data"]["close"]) for bar in bars] == [("bars:1m:A", 129.0)]


def test_alerts_come_once_and_numbered_however_often_is_flushed(short: Path) -> None:
    """A channel that many partitions feed has running numbers of its own."""
    often, seldom = (documents(str(short), "--analyzer", "range", "--every", every) for every in ("0.1", "40"))
    assert len(often) > 100
    assert [one["seq"] for one in often] == list(range(1, len(often) + 1))
    assert {one["ch"] for one in often} == {"alerts:range"}
    assert [one["data"] for one in seldom] == [one["data"] for one in often]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere.ndjson", "--analyzer", "quote"), "the tape nowhere.ndjson does not exist"),
        (("nowhere.ndjson",), "--analyzer"),
        (("nowhere.ndjson", "--analyzer", "tea"), "invalid choice: 'tea'"),
        (("nowhere.ndjson", "--analyzer", "quote", "--every", "0"), "--every takes seconds from 0.001"),
    ],
)
def test_a_bad_word_is_one_clear_line(words: tuple[str, ...], said: str) -> None:
    """What was typed wrong is said without a traceback."""
    done = replay(*words)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


COUNTING = """
import msgspec
from mdp.plugin import Plugin

class Count(msgspec.Struct):
    n: int = 0

class Counting(Plugin):
    State = Count
    boards = ("counted",)
    def on_trade(self, state, trade, effect):
        state.n += 1
        self.report(trade.ts, {"n": state.n, "volume": self.quote(trade.symbol).volume})
    def document(self, symbol, state):
        return {"n": state.n}
    def rank(self, board, symbol, state):
        return state.n

class Failing(Counting):
    boards = ()
    def on_trade(self, state, trade, effect):
        if trade.price == 40:
            raise ValueError("forty")
"""


def test_a_plugin_s_back_test_is_one_command(short: Path, tmp_path: Path) -> None:
    """Only what it writes is printed, the last second's ranking too; where it fails the place is shown, and one line."""
    points = {"counting": "counter:Counting", "failing": "counter:Failing", "range": "counter:Failing", "lost": "counter:Lost"}
    package(tmp_path, "counter", points, COUNTING)
    done = replay(str(short), "--analyzer", "counting", path=tmp_path)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["ch"] for one in told} == {f"{kind}:counting:{s}" for kind in ("own", "ownlog") for s in "AB"} | {"board:counted"}
    said = [one["data"] for one in told if one["ch"] == "ownlog:counting:B"]
    assert said == [{"n": n, "volume": 7 * n} for n in range(1, 121)]
    last = {one["ch"]: one["data"] for one in told}
    assert (last["own:counting:A"], last["board:counted"]["order"]) == ({"n": 120}, ["A", "B"])
    assert last["board:counted"]["rows"]["A"]["trades"] == 120
    done = replay(str(short), "--analyzer", "failing", "--analyzer", "quote", path=tmp_path)
    assert done.returncode == 1
    assert "in on_trade\n    raise ValueError" in done.stderr
    assert (
        "the plug-in failing failed in on_trade of A at 1700000030000: ValueError: forty (counter.py:"
        in done.stderr.splitlines()[-1]
    )
    done = replay(str(short), "--analyzer", "lost", path=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "the plug-in lost: counter:Lost cannot be imported" in done.stderr
    assert replay(str(short), "--analyzer", "range", "--last", path=tmp_path).returncode == 0  # the built-in one keeps its name
