"""The recorded tapes through the real processes: what the widgets' channels say afterwards equals an independent computation."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from mdc.reader import Reader
from tests.bench.dataplane.pipeline import check_order, count_events, make_tape
from tests.oracle import differences, expected
from tests.servers import free_port
from tests.stack import ROOT, Stack
from tests.tapes import tape

pytestmark = pytest.mark.live


def read_all(running: Stack, symbols: list[str]) -> dict[str, tuple[Any, Any, Any]]:
    """Return symbol → (quote, prints, minute bars) as a reader of the cache sees them."""

    async def read() -> dict[str, tuple[Any, Any, Any]]:
        reader = Reader(running.cache.url, lambda docs: None, lambda up, why: None)
        found = {}
        for symbol in symbols:
            snapshots = [await reader.snapshot(f"{kind}:{symbol}") for kind in ("quote", "trades", "bars:1m")]
            quote, prints, bars = (json.loads(s.data) if s is not None else None for s in snapshots)
            found[symbol] = (quote, prints or [], bars)
        await reader.close()
        return found

    return asyncio.run(read())


def check(running: Stack, recorded: Path) -> None:
    """Compare every symbol of the tape."""
    wanted = expected(recorded)
    got = read_all(running, list(wanted))
    faults = [fault for symbol, state in wanted.items() for fault in differences(symbol, state, *got[symbol])]
    assert not faults, faults[:10]


def start(running: Stack, workers: int, recorded: Path, speed: str) -> None:
    """Start processors, then the replay."""
    for n in range(workers):
        running.start(f"mdp{n}", "mdp", MDP_WORKER=f"w{n}")
    running.wait("every partition owned", lambda: len(running.owners()) == 8 and len(set(running.owners().values())) == workers)
    running.start("mdl", "mdl", MDL_FEED="replay", MDL_TAPE=recorded, MDL_SPEED=speed, MDL_LEASE="off")


def finished(running: Stack, total: int) -> bool:
    """Return whether every event of the tape was counted."""
    counts = running.counts()
    assert counts["expired"] == counts["dropped"] == counts["bad"] == 0, counts
    return counts["events"] >= total


def events_on(recorded: Path) -> int:
    """Return how many events a tape holds."""
    with gzip.open(recorded, "rb") as lines:
        return sum(line.count(b'"ev":') for line in lines)


@pytest.mark.parametrize("name", ["es-2023-12-25.ndjson.gz", "crypto-2021-04-17.ndjson.gz"])
def test_replay_at_full_speed_equals_an_independent_computation(running: Stack, name: str) -> None:
    """A recorded session at full speed leaves exactly the quotes, bars and prints that plain arithmetic over the file gives."""
    recorded = tape(name)
    total = events_on(recorded)
    start(running, 1, recorded, "max")
    running.wait("the whole tape", lambda: finished(running, total), 60)
    check(running, recorded)
    assert running.counts()["events"] == total


def test_killing_one_of_three_workers_and_adding_another_changes_no_number(running: Stack) -> None:
    """With SIGKILL in mid-replay on the owner of the symbol and a new worker later, nothing is lost and nothing doubled."""
    recorded = tape("es-2023-12-25.ndjson.gz")
    total = events_on(recorded)
    start(running, 3, recorded, "700")
    running.wait("a part of the tape", lambda: total * 0.2 < running.counts()["events"] < total * 0.7, 60)
    victim = running.owners()[partition_of_es()]
    running.stop(f"mdp{victim[1:]}", signal.SIGKILL)
    running.start("mdp9", "mdp", MDP_WORKER="w9")
    running.wait("the newcomer's share", lambda: "w9" in running.owners().values(), 20)
    running.wait("the whole tape", lambda: finished(running, total), 60)
    check(running, recorded)
    assert running.counts()["events"] == total


def partition_of_es() -> int:
    """Return the partition of the only symbol on the tape, by the published rule crc32 mod 8."""
    return zlib.crc32(b"ESH4") % 8


def test_wds_get_prints_the_same_numbers(running: Stack) -> None:
    """`python -m wds get` prints one JSON line a channel with what the tape says."""
    recorded = tape("es-2023-12-25.ndjson.gz")
    start(running, 1, recorded, "max")
    running.start("wds", "wds serve", WDS_PORT=(port := free_port()))
    running.wait("the whole tape", lambda: finished(running, events_on(recorded)), 60)
    command = [sys.executable, "-m", "wds", "get", "quote:ESH4", "bars:1m:ESH4", "trades:ESH4"]
    env = {**os.environ, "WDS_URL": f"ws://127.0.0.1:{port}/v1/stream", "RUN_DIR": str(running.folder)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    lines = {line["ch"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert [list(line) for line in lines.values()] == [["ch", "epoch", "seq", "ts", "data"]] * 3
    wanted = expected(recorded)["ESH4"]
    got = [lines[f"{kind}:ESH4"]["data"] for kind in ("quote", "trades", "bars:1m")]
    assert not differences("ESH4", wanted, *got)


def test_full_speed_with_a_killed_worker_loses_nothing(running: Stack) -> None:
    """A large tape at full speed over three processors, one of them killed: the replay waits for the take-over, all arrive once."""
    recorded, symbols, events = running.folder / "tape.ndjson", 500, 1_200_000
    make_tape(recorded, symbols, events)
    total = count_events(recorded)
    start(running, 3, recorded, "max")
    running.wait("a part of the tape", lambda: running.counts()["events"] > total * 0.1, 60)
    running.stop("mdp1", signal.SIGKILL)
    running.wait("the whole tape", lambda: finished(running, total), 90)
    assert running.counts()["events"] == total
    assert check_order(running, recorded) == symbols
