"""How smooth is the page, and does its heap stay flat: the first desk's nine widgets at 5,000 updates a second in headless Chromium?

A real control plane and a stand-in for the stream, on the same cores as the browser. `fps`: frames painted a second over the whole
stretch. `frame_p99_ms`: between two frames. `main_thread_ms_s`: processor time of the page's main thread. `heap_growth_mb`: used
JavaScript heap after a collection, the end against the end of the warm-up; `nodes_growth`: elements of the document likewise.
Before that `idle_frames_s` and `idle_main_thread_ms_s`: the same page while nothing moves and the pipeline only reports.
`--seconds 300` for five minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench.control.scp import percentile
from tests.live.page.browser import Desk, chromium
from tests.scp.conftest import ScpProcess
from tests.servers import free_port

SYMBOLS, UPDATES_S = 1_250, 5_000
WARM_S = 10.0
IDLE_S = 15.0
FRAMES = """window.frameTimes = []; (function each(now) { window.frameTimes.push(now); requestAnimationFrame(each); })(0);"""


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the measured stretch")
    parser.add_argument("--rate", type=int, default=UPDATES_S, help="updates a second")
    options = parser.parse_args()
    with opened(0) as desk:
        idle(desk, min(IDLE_S, options.seconds))
    with opened(options.rate) as desk:
        measure(desk, options.seconds, options.rate)


@contextlib.contextmanager
def opened(rate: int) -> Iterator[Desk]:
    """A page on a control plane and a stream of so many updates a second."""
    port = free_port()
    stream = subprocess.Popen([sys.executable, "-m", "tests.scp.stand_in", str(port), str(SYMBOLS), str(rate)])
    try:
        with tempfile.TemporaryDirectory() as folder:
            scp = ScpProcess(Path(folder), WDS_PORT=str(port))
            try:
                with chromium() as browser:
                    desk = Desk(browser, f"http://127.0.0.1:{scp.port}/#BTC-PERP", cookies=[scp.admin])
                    desk.live(60)
                    yield desk
                    assert desk.complaints == [], desk.complaints
                    desk.close()
            finally:
                scp.end()
    finally:
        stream.terminate()
        stream.wait(10)


def idle(desk: Desk, seconds: float) -> None:
    """Print what the page does while nothing moves."""
    cdp = counters(desk)
    desk.page.wait_for_timeout(min(WARM_S, seconds) * 1000)
    frames, busy_ms, began_s = desk.value("tapeline.frames"), metric(cdp, "TaskDuration") * 1000, time.monotonic()
    desk.page.wait_for_timeout(seconds * 1000)
    took_s = time.monotonic() - began_s
    work = f"{desk.page.locator('.panel').count()} widgets, {SYMBOLS} symbols, nothing moves, {took_s:.0f} s"
    busy_ms = metric(cdp, "TaskDuration") * 1000 - busy_ms
    say("idle_frames_s", (desk.value("tapeline.frames") - frames) / took_s, "frames/s", work)
    say("idle_main_thread_ms_s", busy_ms / took_s, "ms/s", work)


def counters(desk: Desk) -> Any:
    """Return a session of the page's own counters, in processor time."""
    cdp = desk.page.context.new_cdp_session(desk.page)
    cdp.send("Performance.enable", {"timeDomain": "threadTicks"})
    return cdp


def measure(desk: Desk, seconds: float, rate: int) -> None:
    """Print every figure of an open page."""
    cdp = counters(desk)
    desk.page.wait_for_timeout(min(WARM_S, seconds) * 1000)
    before = state(cdp)
    updates, began_s = desk.value("tapeline.updates"), time.monotonic()
    desk.page.evaluate(FRAMES)
    busy_ms = metric(cdp, "TaskDuration") * 1000
    desk.page.wait_for_timeout(seconds * 1000)
    took_s = time.monotonic() - began_s
    busy_ms = metric(cdp, "TaskDuration") * 1000 - busy_ms
    updates, times = desk.value("tapeline.updates") - updates, desk.value("frameTimes.slice(1)")
    desk.page.evaluate("window.frameTimes.length = 0")
    after = state(cdp)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    widgets = desk.page.locator(".panel").count()
    work = f"{widgets} widgets, {SYMBOLS} symbols, {updates / took_s:.0f} of {rate} updates/s, {took_s:.0f} s"
    say("fps", len(gaps) / (times[-1] - times[0]) * 1000, "frames/s", work)
    say("frame_p99_ms", percentile(gaps, 0.99), "ms", work)
    say("main_thread_ms_s", busy_ms / took_s, "ms/s", work)
    say("heap_growth_mb", (after[0] - before[0]) / 1e6, "MB", f"{work}; {after[0] / 1e6:.1f} MB at the end")
    say("nodes_growth", after[1] - before[1], "nodes", f"{work}; {after[1]:.0f} at the end")


def state(cdp: Any) -> tuple[float, float]:
    """Return the bytes of the heap that are in use after a collection, and the document's nodes."""
    cdp.send("HeapProfiler.collectGarbage")
    return metric(cdp, "JSHeapUsedSize"), metric(cdp, "Nodes")


def metric(cdp: Any, name: str) -> float:
    """Return one of Chromium's own counters of the page."""
    return next(float(one["value"]) for one in cdp.send("Performance.getMetrics")["metrics"] if one["name"] == name)


def say(figure: str, value: float, unit: str, workload: str) -> None:
    """Print one line."""
    line = {"bench": "page", "figure": figure, "value": round(value, 1), "unit": unit, "workload": workload}
    print(json.dumps({**line, "excludes": f"the first {WARM_S:g} s"}), flush=True)


if __name__ == "__main__":
    main()
