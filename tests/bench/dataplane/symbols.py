"""How much memory does a symbol take, in a processor and in Redis, when a week has filled everything that is kept of it?

Workload: a tape of `symbols` stocks, all known to the reference file, at full speed → listener → RabbitMQ → one processor with all
analyzers, which owns every partition → Redis. Each symbol trades every hour of some earlier days, then on the last day every five
minutes, every minute for the last 6.5 hours, every five seconds for the last ten minutes and every second of the last two: so the
histories of all widths but the day's (one row a day) and the prints are full, which is checked for a sample of symbols. Bytes a
symbol are what the process and Redis grew by from before the tape, divided. Excluded: what nobody of the market causes
(connections, code), which is the figure `empty`. News and halts are not on the tape.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import zstandard

from mdc import keys
from mdc.channels import KINDS
from mdl.simulation.universe import reference_csv, universe
from tests.bench.dataplane.pipeline import settled
from tests.stack import Stack, stack

NEW_YORK = ZoneInfo("America/New_York")
LAST_DAY = datetime(2026, 3, 13, tzinfo=NEW_YORK)  # a Friday
BEGINS_H, ENDS_H = 4, 20
FRAME_EVENTS = 500
SAMPLE = 20  # symbols whose histories are counted
MIB = 2**20
WORKER_MIB_MAX, REDIS_MB_MAX = 1024, 2500  # what 12,000 symbols may take


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=12_000)
    parser.add_argument("--days", type=int, default=8, help="trading days in all, at most eight")
    parser.add_argument("--tiny", action="store_true", help="a few symbols, to see that the benchmark itself works")
    options = parser.parse_args()
    if options.tiny:
        options.symbols, options.days = 24, 2
    with stack() as running:
        measure(running, options.symbols, options.days)


def measure(running: Stack, symbols: int, days: int) -> None:
    """Fill the histories and print what that takes."""
    tape, reference = running.folder / "week.ndjson.zst", running.folder / "reference.csv"
    listed = universe(symbols, 7)
    reference.write_text(reference_csv(listed))
    total = write_tape(tape, listed.symbols, days)
    running.start("mdp", "mdp", MDP_WORKER="bench", MDP_REFERENCE=reference)
    running.wait("partitions owned", lambda: len(running.owners()) == 8)
    empty = memory(running)
    began_s = time.monotonic()
    running.start("mdl", "mdl", MDL_FEED="replay", MDL_TAPE=tape, MDL_SPEED="max", MDL_LEASE="off")
    running.wait("all events", lambda: settled(running) >= total, seconds=120 + total / 10_000, pause_s=0.5)
    took_s = time.monotonic() - began_s
    counts = running.counts()
    lost = counts["expired"] + counts["dropped"]
    assert (counts["events"], lost, counts["bad"]) == (total, 0, 0), f"lost or doubled: {counts}, tape {total}"
    running.wait("full histories", lambda: not missing(running, listed.symbols, days), 30, pause_s=0.5)
    full = memory(running)
    workload = f"{symbols} symbols, {days} trading days, {total} trades and quotes at full speed, all analyzers, 1 worker"
    facts = {"workload": workload, "lost": lost, "load": round(os.getloadavg()[0], 1), "seconds": round(took_s)}
    for name, value in full.items():
        emit(f"{name}_mib", round(value / MIB, 1), "MiB", empty=round(empty[name] / MIB, 1), **facts)
        emit(f"{name}_bytes_a_symbol", round((value - empty[name]) / symbols), "bytes", **facts)
    for kind, used in sorted(kinds(running, listed.symbols).items()):
        emit(f"redis_{kind}_bytes_a_symbol", round(used), "bytes", sample=min(SAMPLE, symbols), **facts)
    if symbols == 12_000:
        over = full["worker"] > WORKER_MIB_MAX * MIB or full["redis"] > REDIS_MB_MAX * 1_000_000
        emit("over", int(over), f"1 = more than {WORKER_MIB_MAX} MiB a worker or {REDIS_MB_MAX} MB of Redis", **facts)


def write_tape(path: Path, names: list[str], days: int) -> int:
    """Write the tape; return how many events it has."""
    events = 0
    with zstandard.open(path, "wb", cctx=zstandard.ZstdCompressor(level=1)) as file:
        for at_ms in moments(days):
            for first in range(0, len(names), FRAME_EVENTS):
                frame = [text(name, events + n, at_ms) for n, name in enumerate(names[first : first + FRAME_EVENTS])]
                events += len(frame)
                file.write(f'{{"received_ns":{at_ms * 1_000_000},"frame":[{",".join(frame)}]}}\n'.encode())
        for first in range(0, len(names), FRAME_EVENTS):
            frame = [
                f'{{"ev":"Q","sym":"{name}","bp":9.9,"bs":100,"ap":10.1,"as":200,"t":{at_ms},"z":3}}'
                for name in names[first : first + FRAME_EVENTS]
            ]
            events += len(frame)
            file.write(f'{{"received_ns":{at_ms * 1_000_000},"frame":[{",".join(frame)}]}}\n'.encode())
    return events


def moments(days: int) -> Iterator[int]:
    """Yield when every symbol trades (ms)."""
    trading = [day for back in range(2 * days + 2, -1, -1) if (day := LAST_DAY - timedelta(days=back)).weekday() < 5][-days:]
    for day in trading[:-1]:
        yield from (_ms(day, hour * 3600) for hour in range(BEGINS_H, ENDS_H))
    ends_s = ENDS_H * 3600
    minutes_s, fives_s, seconds_s = ends_s - 400 * 60, ends_s - 620, ends_s - 130
    yield from (_ms(LAST_DAY, second) for second in range(BEGINS_H * 3600, minutes_s, 300))
    yield from (_ms(LAST_DAY, second) for second in range(minutes_s, fives_s, 60))
    yield from (_ms(LAST_DAY, second) for second in range(fives_s, seconds_s, 5))
    yield from (_ms(LAST_DAY, second) for second in range(seconds_s, ends_s, 1))


def _ms(day: datetime, second: int) -> int:
    return round(datetime.combine(day, datetime.min.time(), NEW_YORK).timestamp() + second) * 1000


def text(name: str, number: int, at_ms: int) -> str:
    """Return a trade as the vendor writes it; prices and sizes differ, so that nothing is shorter than in a market."""
    price, size = 1_000 + number * 7919 % 90_000, 100 + number * 31 % 900
    extended = "12" if number % 2 else "12,37"
    return (
        f'{{"ev":"T","sym":"{name}","x":{1 + number % 20},"i":"{number:014d}","z":3,"p":{price / 100:.2f},"s":{size},'
        f'"c":[{extended}],"t":{at_ms},"q":{number}}}'
    )


def memory(running: Stack) -> dict[str, float]:
    """Return bytes of the worker, as Redis counts its own, and as the system counts Redis."""
    rss, info = running.rss_mb(), running.redis.info("memory")
    return {"worker": rss["mdp"] * MIB, "redis": info["used_memory"], "redis_rss": rss["redis"] * MIB}


def missing(running: Stack, names: list[str], days: int) -> list[str]:
    """Return what of a sample's histories is not full."""
    wanted = {kind: KINDS[kind].keep for kind in ("bars:1s", "bars:5s", "bars:1m")} | {
        "bars:1h": min(KINDS["bars:1h"].keep, 16 * days - 1)
    }
    sample = names[:: max(1, len(names) // SAMPLE)]
    found = [
        f"{kind}:{name}" for name in sample for kind, rows in wanted.items() if running.redis.llen(f"hist:{kind}:{name}") < rows
    ]
    return found + [f"trades:{name}" for name in sample if running.redis.llen(f"ch:trades:{name}") < KINDS["trades"].keep]


def kinds(running: Stack, names: list[str]) -> dict[str, float]:
    """Return kind → bytes of Redis a symbol, of a sample: its documents, its histories and its checkpoint."""
    found: dict[str, float] = {}
    sample = names[:: max(1, len(names) // SAMPLE)][:SAMPLE]
    for kind in (one.name for one in KINDS.values() if one.per_symbol):
        own = [f"{prefix}:{kind}:{name}" for prefix in ("ch", "hist") for name in sample]
        used = sum(running.redis.memory_usage(key, samples=0) or 0 for key in own)
        if used:
            found[kind.replace(":", "_")] = used / len(sample)
    cells = 0
    for number in range(8):
        for field, value in running.redis.hscan_iter(keys.checkpoint(number), count=1_000):
            cells += len(field) + len(value)
    found["checkpoint_cells"] = cells / len(names)
    return found


def emit(figure: str, value: Any, unit: str, **facts: Any) -> None:
    """Print one result line."""
    print(json.dumps({"bench": "symbols", "figure": figure, "value": value, "unit": unit, **facts}), flush=True)


if __name__ == "__main__":
    main()
