"""Runs listener and processors in one process: the simulator's events become documents in a cache."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from deploy.pipeline import serve
from mdc.embedded import EmbeddedCache
from service.admin import bind
from service.run import Shutdown
from tests.local_run import ROOT, LocalRun
from tests.waiting import until_sync


@pytest.fixture
def cache() -> Iterator[EmbeddedCache]:
    cache = EmbeddedCache()
    cache.start()
    yield cache
    cache.stop()


def pipeline(cache: EmbeddedCache, run_dir: Path, **variables: str) -> subprocess.Popen[str]:
    env = {
        "MDC_URL": cache.url,
        "MDQ_URL": "memory://local",
        "RUN_DIR": str(run_dir),
        "MDL_ADMIN_PORT": "0",
        "MDP_ADMIN_PORT": "0",
    }
    env |= {"MDL_SYMBOLS": "5", "MDL_RATE": "500"}
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.pipeline"], cwd=ROOT, env=LocalRun.clean_environment() | env | variables,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def document(cache: EmbeddedCache, channel: str) -> dict[str, Any]:
    with redis.Redis.from_url(cache.url) as client:
        raw = client.get(f"ch:{channel}")
    return json.loads(raw)["data"] if isinstance(raw, bytes) else {}


def received_events(cache: EmbeddedCache) -> int:
    """Return what the listeners have received, by their own word in the status."""
    sources = document(cache, "status:pipeline").get("sources", {})
    return sum((source["listener"] or {}).get("received_events", 0) for source in sources.values())


def test_events_become_documents_and_the_end_is_clean(cache: EmbeddedCache, tmp_path: Path) -> None:
    """SIGTERM drains: what the listener published last is in the cache, exit code 0, both components named in the log."""
    process = pipeline(cache, tmp_path)
    try:
        until_sync(lambda: received_events(cache) > 100, seconds=20)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=15)
    finally:
        process.kill()
    events = [json.loads(line) for line in err.splitlines()]
    assert process.returncode == 0
    assert {"mdl", "mdp"} <= {event["component"] for event in events}
    assert [event for event in events if event["level"] in ("error", "critical")] == []


@pytest.mark.parametrize("variable", ["MDL_ADMIN_PORT", "MDP_ADMIN_PORT"])
def test_a_failure_of_either_half_ends_both(cache: EmbeddedCache, tmp_path: Path, variable: str) -> None:
    """Half a pipeline is none: the process ends with the half's one line, and its parent starts it again."""
    with bind("127.0.0.1", 0, "X") as holder:
        process = pipeline(cache, tmp_path, **{variable: str(holder.getsockname()[1])})
        try:
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 2
    (line,) = [line for line in err.splitlines() if not line.startswith("{")]
    assert line.startswith("tapeline pipeline: error: cannot listen on")
    assert variable in line


@pytest.mark.parametrize("how", ["returns", "breaks"])
async def test_a_half_that_ends_unasked_ends_both_with_an_error(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it just returns: an exit code of 0 would look like an end that somebody had asked for."""
    listened = []

    async def processors(*_: object) -> None:
        if how == "breaks":
            raise ZeroDivisionError("a defect")

    async def listener(_: object, shutdown: Shutdown, __: object) -> None:
        await shutdown.wait()
        listened.append(True)

    monkeypatch.setattr("deploy.pipeline.worker.run", processors)
    monkeypatch.setattr("deploy.pipeline.listener.run", listener)
    monkeypatch.setenv("MDQ_URL", f"memory://half-{how}")
    shutdown = Shutdown()
    async with asyncio.timeout(10):
        await serve(shutdown)
    assert listened
    assert "the task pipeline processors ended unexpectedly" in str(shutdown.fault)
