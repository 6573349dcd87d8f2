"""Measures how many commands a second are decided, journaled with fdatasync and acknowledged over the in-process API.

A seeded market of 100 accounts and two contracts in one process and one event loop; 256 commands are under way all the time,
each with a future of its own, and each answer sends the next one. Percentiles come from all samples. `quiet` has no consumer
of messages; `store` has a message store, so that every command's frame is built and journaled too. With `snapshots`, a
snapshotter follows the journal at the same time and writes a generation every second: `snapshots_p99_ratio` is its p99 ÷ the
p99 of the run before. Not in it: making the commands, start-up, HTTP. The folder is TMPDIR's.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from time import perf_counter

import uvloop

from engine.core.commands import Command, CreateStore
from engine.core.state import State
from engine.journal.format import START
from engine.journal.journal import open_journal
from engine.journal.sequencer import Outcome, Sequencer
from engine.recovery.snapshotter import SnapshotterProcess, Task
from engine.stores.message_builder import MessageBuilder
from service.run import GC_THRESHOLD
from tests.engine.order_flow import commands

COUNT, TINY_COUNT = 400_000, 3_000
WINDOW = 256
SEED = 7
SNAPSHOT_INTERVAL_MS = 1_000
FIGURES = (("commands_per_s", "commands/s"), ("p50_ms", "ms"), ("p99_ms", "ms"), ("p999_ms", "ms"))


def main(tiny: bool) -> int:
    """Print the lines of each workload; return the exit code."""
    listed = list(islice(commands(SEED, COUNT), TINY_COUNT if tiny else COUNT))
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)  # as every process of ours
    found = {}
    for name in ("quiet", "store", "snapshots"):
        found[name] = uvloop.run(measure(listed, name))
        prefix = "" if name == "quiet" else f"{name}_"
        for figure, unit in FIGURES:
            report(name, len(listed), prefix + figure, found[name][figure], unit, found[name]["sha256"])
    ratio = round(float(found["snapshots"]["p99_ms"]) / float(found["quiet"]["p99_ms"]), 2)
    report("snapshots", len(listed), "snapshots_p99_ratio", ratio, "", found["snapshots"]["sha256"])
    return 0


def report(name: str, count: int, figure: str, value: float | str, unit: str, sha256: float | str) -> None:
    """Print one JSON line."""
    workload = f"{name}: {count} commands of 100 accounts, seed {SEED}, {WINDOW} under way, fdatasync a group"
    loop = "uvloop, one process, one thread"
    line = {"bench": "journal", "figure": figure, "value": value, "unit": unit, "workload": workload, "sha256": sha256}
    print(json.dumps({**line, "loop": loop, "disk": disk(), "excludes": "making commands, start-up, HTTP"}), flush=True)


def disk() -> str:
    """Return the file system that the journal is on."""
    argv = ["df", "--output=fstype,source", tempfile.gettempdir()]
    lines = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()
    return " ".join(lines[-1].split()) if lines else "unknown"


async def measure(listed: list[Command], name: str) -> dict[str, float | str]:
    """Run all commands through a fresh sequencer; return the figures and the state's hash."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        sequencer = Sequencer(State(), open_journal(journal), lambda: (State(), open_journal(journal)), MessageBuilder)
        if name == "store":
            await sequencer.submit(CreateStore("bench"))
        snapshots = None
        if name == "snapshots":
            task = Task(str(journal), str(Path(folder) / "snapshots"), SNAPSHOT_INTERVAL_MS)
            snapshotter = SnapshotterProcess(task, -1, START)
            sequencer.on_commit(snapshotter.on_commit)
            snapshots = asyncio.create_task(snapshotter.run())
        elapsed_s, latencies = await drive(sequencer, listed)
        if snapshots is not None:
            snapshots.cancel()
            await asyncio.gather(snapshots, return_exceptions=True)
            print(f"{snapshotter.newest_index} is the newest snapshot's index", file=sys.stderr)
        digest = sequencer.state.digest()
        await sequencer.close()
    latencies.sort()
    figures = {f"p{name}_ms": round(1_000 * latencies[int(len(latencies) * at)], 2) for name, at in PERCENTILES}
    return {"commands_per_s": round(len(listed) / elapsed_s), **figures, "sha256": digest}


PERCENTILES = (("50", 0.5), ("99", 0.99), ("999", 0.999))


async def drive(sequencer: Sequencer, listed: list[Command]) -> tuple[float, list[float]]:
    """Keep WINDOW commands under way until all are answered; return the seconds and every answer's."""
    left, waiting = len(listed), iter(listed)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    latencies: list[float] = []

    def send() -> None:
        command = next(waiting, None)
        if command is None:
            return
        sent_s = perf_counter()

        def answered(future: asyncio.Future[Outcome]) -> None:
            nonlocal left
            latencies.append(perf_counter() - sent_s)
            left -= 1
            if not left:
                done.set_result(None)
            send()

        sequencer.submit(command).add_done_callback(answered)

    began_s = perf_counter()
    for _ in range(WINDOW):
        send()
    await done
    return perf_counter() - began_s, latencies


if __name__ == "__main__":
    sys.exit(main("--tiny" in sys.argv[1:]))
