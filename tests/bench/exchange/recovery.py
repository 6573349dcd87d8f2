"""Measures how many seconds the engine needs to recover its state from a snapshot and the million commands after it.

A seeded market of 100 accounts and two contracts. `quiet` has no consumer of messages; `store` has a message store, so that
every record carries its frame. A fresh process recovers and must have the state of the one that wrote, digest for digest.
Not in it: making the journal, starting Python. The files have just been written, so they come from the page cache. The
folder is TMPDIR's.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

from engine.core.commands import Command, CreateStore
from engine.core.events import encode
from engine.core.exchange import Exchange
from engine.journal.journal import open_journal
from engine.recovery.replay import recover
from engine.recovery.snapshot import snapshot
from engine.recovery.snapshot_files import FileSnapshotStore
from engine.stores.message_builder import MessageBuilder
from service.run import GC_THRESHOLD
from tests.engine.order_flow import commands

BEFORE, AFTER = 20_000, 1_000_000
TINY = 2_000
SEED = 7
GROUP = 256
STEP_NS = 100_000


def main(tiny: bool) -> int:
    """Print a line a workload; return the exit code."""
    after = TINY if tiny else AFTER
    gc.set_threshold(*GC_THRESHOLD)
    for name, first in (("quiet", []), ("store", [CreateStore("bench")])):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            digest = write(folder, [*first], BEFORE if not tiny else TINY, after)
            found = in_a_fresh_process(folder)
            size = sum(path.stat().st_size for path in (folder / "journal").iterdir())
        if found["sha256"] != digest:
            print("tapeline bench: error: the recovered state is another one", file=sys.stderr)
            return 1
        workload = f"{name}: {after} commands after a snapshot, 100 accounts, seed {SEED}"
        figure = "seconds" if name == "quiet" else "store_seconds"
        line = {"bench": "recovery", "figure": figure, "value": found["seconds"], "unit": "s", "workload": workload}
        more = {"cpu_s": found["cpu_s"], "records": found["replayed"], "journal_mb": round(size / 1e6), "sha256": digest}
        more["peak_mb"] = found["peak_mb"]
        print(json.dumps({**line, **more, "excludes": "making the journal, starting Python; page cache warm"}), flush=True)
    return 0


def write(folder: Path, first: list[Command], before: int, after: int) -> str:
    """Let the market live through `before` commands, take a snapshot, then `after` more; return the state's digest."""
    exchange, journal = Exchange(MessageBuilder), open_journal(folder / "journal")
    for index, command in enumerate(chain(first, commands(SEED, before + after)), 1):
        if events := exchange.decide(index, index * STEP_NS, command):
            journal.append(index, index * STEP_NS, encode(events), exchange.message)
        if index % GROUP == 0 or index == before:
            journal.commit()
        if index == before:
            generation = snapshot(exchange.state, journal.last_index, journal.chain, 0)
            FileSnapshotStore(folder / "snapshots").write_generation(generation)
    journal.commit()
    journal.close()
    return exchange.state.digest()


def in_a_fresh_process(folder: Path) -> dict[str, float | str]:
    """Recover there; return seconds, records, peak memory and the digest."""
    argv = [sys.executable, "-m", "tests.bench.exchange.recovery", "--recover", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found: dict[str, float | str] = json.loads(done.stdout)
    return found


def timed(folder: Path) -> None:
    """Recover and print what it took."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)  # as every process of ours
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    found = recover(folder / "journal", folder / "snapshots")
    seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    assert found.snapshot_index > 0, "no snapshot was used"
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak_mb = round(int(status["VmHWM"].split()[0]) / 1024)
    digest = found.state.digest()
    line = {"seconds": round(seconds, 2), "cpu_s": round(cpu_s, 2), "replayed": found.replayed, "peak_mb": peak_mb}
    print(json.dumps({**line, "sha256": digest}))


if __name__ == "__main__":
    if "--recover" in sys.argv[1:]:
        timed(Path(sys.argv[-1]))
        sys.exit(0)
    sys.exit(main("--tiny" in sys.argv[1:]))
