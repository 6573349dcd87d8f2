"""One trace from the vendor's frame to the clients' frames, out of the real processes, at an OTLP collector."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.live.test_clients import Watcher, busiest, token
from tests.market import Market
from tests.stack import ROOT
from tests.waiting import until
from wds.client import Client

if TYPE_CHECKING:
    from tests.traces.collector import Collector, Seen

pytestmark = pytest.mark.live

# The way of an event, each the parent of the next one.
PATH = [
    ("tapeline-mdl", "mdl.frame"), ("tapeline-mdl", "mdl.publish"), ("tapeline-mdp", "mdq.wait"), ("tapeline-mdp", "mdp.apply"),
    ("tapeline-mdp", "mdp.flush"), ("tapeline-wds", "wds.fanout"), ("tapeline-wds", "wds.push"),
]  # fmt: skip


def chain(spans: list[Seen]) -> list[Seen]:
    """Return the spans of one trace from its root to a push, by their parents; shorter when one is missing."""
    by_id = {span.id: span for span in spans}
    push = next((span for span in spans if span.name == "wds.push"), None)
    found = [push] if push is not None else []
    while found and found[0].parent in by_id:
        found.insert(0, by_id[found[0].parent])
    return found


def whole(collector: Collector) -> list[Seen]:
    """Return the first trace that has come all the way, [] while there is none."""
    chains = map(chain, collector.traces().values())
    return next((found for found in chains if [(span.service, span.name) for span in found] == PATH), [])


async def test_one_trace_leads_from_the_frame_to_the_push(
    market: Market, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every hop tells its part, with the hop before as parent, one after the other; clients see nothing of it; with the
    collector gone everything flows on.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.05")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    await asyncio.to_thread(market.start)
    url = await asyncio.to_thread(market.start_wds)
    symbol = await asyncio.to_thread(busiest, market)
    async with Client(url, token(market)) as client:
        watcher = Watcher(client)
        watching = asyncio.create_task(watcher.run())
        await client.subscribe(f"quote:{symbol}", f"trades:{symbol}", hz="raw")
        found = await until(lambda: whole(collector), 20, what="a whole trace")
        assert found[0].parent == ""
        assert len({span.trace for span in found}) == 1
        frame, publish, wait, apply, flush, fanout, push = found
        assert frame.start_ns <= frame.end_ns <= publish.start_ns <= publish.end_ns
        assert wait.start_ns == frame.end_ns, "the wait begins when the batch was closed"
        assert wait.end_ns == apply.start_ns <= apply.end_ns <= flush.start_ns <= flush.end_ns
        assert fanout.start_ns <= push.start_ns <= push.end_ns <= fanout.end_ns
        assert push.end_ns - frame.start_ns < 60e9
        assert push.attributes["channel"] in (f"quote:{symbol}", f"trades:{symbol}")
        assert push.attributes["subscribers"] == 1
        assert frame.attributes["events"] >= 1
        assert not any(b"trace" in str(frame).encode() for frame in watcher.frames), "it is nobody's business outside"
        collector.refuse = True
        refused, pushed = collector.requests, len(watcher.frames)
        await until(
            lambda: collector.requests > refused and len(watcher.frames) > pushed + 20, 20, what="flow without a collector"
        )
        watching.cancel()
    await asyncio.to_thread(market.settle)


def test_without_the_packages_one_line_says_what_to_install(tmp_path: Path) -> None:
    """Asked for and not installed: the component ends at once, with the extra's name."""
    (tmp_path / "opentelemetry.py").write_text("")  # found first, and no package: as if nothing was installed
    settings = {"MDL_FEED": "simulator", "MDL_ADMIN_PORT": "0", "RUN_DIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "mdl"], cwd=ROOT, env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"} | settings,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "OpenTelemetry is not installed" in last
    assert "tapeline[otel]" in last
    assert "Traceback" not in done.stderr
