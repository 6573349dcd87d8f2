"""What do heartbeats cost: one a second of every component, and the control plane's look at all of them?

A real Redis; a process beside it beats for 5, 50 and 500 components, each with its own connection, as they are. `redis_ms_s`: what
that takes of Redis' processor in a second, an idle Redis taken off; `beat_us`: the same for one beat, its connection's share
included; `writer_us`: what a beat costs its component. `look_ms`: processor time of the control plane's process for one look at all
components whose beats are all new, cache client and loop included; `look_redis_ms`: what Redis does for it. No profile is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from mdc import keys
from scp.fleet.fleet import SHARED_S, Fleet
from scp.settings import ScpSettings
from service.heartbeat import BEAT_S, Heartbeat, Vitals
from tests.servers import Redis
from tests.waiting import until_sync

COUNTS = (5, 50, 500)
MORE = {"clients": 120, "sources": {"stocks": "live", "crypto": "live"}, "queue_bytes": 4096}


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each stretch")
    parser.add_argument("--tiny", action="store_true", help="two seconds, to see that the benchmark itself works")
    parser.add_argument("--beat", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.beat:
        asyncio.run(beat(options.beat, settings_of(options.url, options.folder)))
        return
    seconds = 2.0 if options.tiny else options.seconds
    with Redis() as cache, tempfile.TemporaryDirectory() as folder:
        asked = redis.Redis.from_url(cache.url)
        (Path(folder) / "admin.token").write_text("0" * 64)
        (Path(folder) / "admin.token").chmod(0o600)
        idle_s = stretch(asked, seconds)
        for count in COUNTS[:2] if options.tiny else COUNTS:
            measure(asked, cache.url, Path(folder), count, seconds, idle_s)


def settings_of(url: str, folder: Path) -> ScpSettings:
    return ScpSettings(run_dir=folder, mdc_url=url)


async def beat(count: int, settings: ScpSettings) -> None:
    """Beat for so many components, spread over the second, until stdin closes; then print the processor time of a second."""
    made = [
        Heartbeat("wds", settings, 20_000 + number, list, lambda: Vitals({"frames": time.monotonic() * 900}, 7.0, [1, 2], MORE))
        for number in range(count)
    ]
    for one in made:
        await one.start()
        await asyncio.sleep(BEAT_S / count)
    print("beating", flush=True)
    began_s, used_s = time.monotonic(), time.process_time()
    await asyncio.to_thread(sys.stdin.read)
    print((time.process_time() - used_s) / (time.monotonic() - began_s), flush=True)


def measure(asked: Any, url: str, folder: Path, count: int, seconds: float, idle_s: float) -> None:
    """Print what so many components cost."""
    with beating(url, folder, count) as told:
        until_sync(lambda: asked.hlen(keys.COMPONENTS) == count, 30, f"{count} components")
        redis_s = stretch(asked, seconds) - idle_s
        look_s, look_redis_s = looks(asked, Fleet(settings_of(url, folder)), seconds, redis_s + idle_s, count)
    work = f"{count} components, one beat a second each, {seconds:g} s"
    say("redis_ms_s", redis_s * 1000, "ms/s", work)
    say("beat_us", redis_s * 1e6 * BEAT_S / count, "µs", work)
    say("writer_us", told[0] * 1e6 * BEAT_S / count, "µs", work)
    say("look_ms", look_s * 1000, "ms", work)
    say("look_redis_ms", look_redis_s * 1000, "ms", work)


@contextlib.contextmanager
def beating(url: str, folder: Path, count: int) -> Iterator[list[float]]:
    """Have a process beat; at the end the list has the processor time of its second."""
    argv = [sys.executable, "-m", "tests.bench.control.heartbeats", "--beat", str(count), "--url", url, "--folder", str(folder)]
    told: list[float] = []
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == "beating\n"
        yield told
        process.stdin.close()
        told.append(float(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def used_s(asked: Any) -> float:
    """Return the processor time that Redis has used."""
    found = asked.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def stretch(asked: Any, seconds: float) -> float:
    """Return what Redis uses of its processor in a second."""
    before_s, began_s = used_s(asked), time.monotonic()
    time.sleep(seconds)
    return (used_s(asked) - before_s) / (time.monotonic() - began_s)


def looks(asked: Any, fleet: Fleet, seconds: float, redis_s: float, count: int) -> tuple[float, float]:
    """Look once a second, so that every beat is a new one; return the processor time of a look here and in Redis."""
    assert len(fleet.components()) == count
    assert SHARED_S < BEAT_S
    number, mine_s, before_s, began_s = max(2, int(seconds)), 0.0, used_s(asked), time.monotonic()
    for _ in range(number):
        time.sleep(BEAT_S)
        mine_s -= time.process_time()
        assert all(one.state == "ready" and one.controllable for one in fleet.components())
        mine_s += time.process_time()
    of_redis_s = used_s(asked) - before_s - redis_s * (time.monotonic() - began_s)
    return mine_s / number, max(0.0, of_redis_s) / number


def say(figure: str, value: float, unit: str, workload: str) -> None:
    """Print one line."""
    line = {"bench": "heartbeats", "figure": figure, "value": round(value, 2), "unit": unit, "workload": workload}
    print(json.dumps({**line, "excludes": "starting; what components count for their beats"}), flush=True)


if __name__ == "__main__":
    main()
