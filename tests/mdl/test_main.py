"""The command line as people use it: processes, exit codes, one clear line for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from mdl.feeds.replay import read_all
from tests.servers import free_port
from tests.waiting import until_sync


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MDL_", "MDQ_", "MDC_", "ADMIN_", "RUN_"))}
    return clean | {"RUN_DIR": str(tmp_path), "ADMIN_TOKEN": "token", "MDL_ADMIN_PORT": "0"} | more


def mdl(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "mdl", *arguments]
    return subprocess.run(argv, env=environment(tmp_path, **env), capture_output=True, text=True, timeout=90, check=False)


def test_the_reference_table_is_printed(tmp_path: Path) -> None:
    """CSV on stdout and nothing else."""
    done = mdl(tmp_path, "reference", "--symbols", "5", "--seed", "3")
    assert done.returncode == 0
    assert done.stdout.startswith("symbol,prev_close,avg_volume,float,prev_open,")
    assert len(done.stdout.splitlines()) == 6
    assert done.stderr == ""


def test_a_tape_is_written(tmp_path: Path) -> None:
    """With as many events as asked for and the share of quotes."""
    out = tmp_path / "tape.ndjson.zst"
    assert mdl(tmp_path, "tape", "--symbols", "9", "--events", "2000", "--quotes", "0.2", str(out)).returncode == 0
    events: list[dict[str, Any]] = [event for line in read_all(out) for event in json.loads(line.data)]
    assert len(events) == 2000
    assert 0.1 < sum(event["ev"] == "Q" for event in events) / 2000 < 0.3


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({"MDL_SPEED": "fast"}, "MDL_SPEED='fast'"),
        ({"MDL_FEED": "replay"}, "MDL_TAPE"),
        ({"MDL_FEED": "replay", "MDL_TAPE": "gone.ndjson"}, "gone.ndjson does not exist"),
        ({"MDL_MARKET": "bonds"}, "MDL_MARKET"),
        ({"MDL_MASSIVE_URL": "http://x"}, "MDL_MASSIVE_URL"),
        (
            {"MDL_MASSIVE_URL": "ws://some.host", "MDL_API_KEY": "k"},
            "MDL_MASSIVE_URL=ws://some.host would send the vendor's key in clear",
        ),
        ({"MDL_MASSIVE_URL": "ws://some.host", "MDL_API_KEY_FILE": "key"}, "in clear"),
        (
            {"MDL_ENGINE_URL": "http://some.host", "ENGINE_API_TOKEN": "t"},
            "MDL_ENGINE_URL=http://some.host would send the exchange's",
        ),
        ({"MDL_LEASE": "on"}, "MDL_LEASE=on"),
        ({"MDL_RECORD": "1", "MDL_RECORD_DIR": "/dev/null/x"}, "MDL_RECORD_DIR"),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path: Path, env: dict[str, str], word: str) -> None:
    """Exit code 2, no traceback."""
    done = mdl(tmp_path, **env)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tapeline mdl: error: ")
    assert word in last
    assert "Traceback" not in done.stderr


def test_a_taken_admin_port_is_named(tmp_path: Path) -> None:
    """With the variable that moves it."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        done = mdl(tmp_path, MDL_ADMIN_PORT=str(sock.getsockname()[1]))
    assert done.returncode == 2
    assert "MDL_ADMIN_PORT" in done.stderr


def get(url: str) -> httpx.Response | None:
    try:
        return httpx.get(url, timeout=2)
    except httpx.TransportError:
        return None


def test_vendor_and_listener_work_together_as_processes(tmp_path: Path) -> None:
    """A vendor server, a listener on it; faults by admin call; SIGTERM ends both cleanly."""
    port, vendor_admin, admin = free_port(), free_port(), free_port()
    env = environment(
        tmp_path,
        MDL_VENDOR_PORT=str(port),
        MDL_VENDOR_KEYS="k",
        MDL_VENDOR_ADMIN_PORT=str(vendor_admin),
        MDL_ADMIN_PORT=str(admin),
    )
    vendor = subprocess.Popen([sys.executable, "-m", "mdl", "vendor-server"], env=env, stderr=subprocess.DEVNULL)
    listening = env | {"MDL_FEED": "massive", "MDL_API_KEY": "k", "MDL_MASSIVE_URL": f"ws://127.0.0.1:{port}"}
    listener = subprocess.Popen([sys.executable, "-m", "mdl"], env=listening, stderr=subprocess.DEVNULL)
    try:
        until_sync(lambda: (found := get(f"http://127.0.0.1:{admin}/readyz")) and found.status_code == 200, seconds=60)
        until_sync(lambda: httpx.get(f"http://127.0.0.1:{admin}/feed").json()["sources"]["stocks"]["received_events"] > 100)
        fault = httpx.post(
            f"http://127.0.0.1:{vendor_admin}/fault", json={"kind": "drop"}, headers={"Authorization": "Bearer token"}
        )
        assert fault.json()["clients"] == 1
        until_sync(
            lambda: httpx.get(f"http://127.0.0.1:{admin}/feed").json()["sources"]["stocks"]["reconnects"] >= 1, seconds=15
        )  # a closed market is asked after up to 5 s
        assert "tapeline_mdl_published_events_total" in httpx.get(f"http://127.0.0.1:{admin}/metrics").text
        assert httpx.get(f"http://127.0.0.1:{vendor_admin}/clients").status_code == 200
    finally:
        for process in (listener, vendor):
            process.send_signal(signal.SIGTERM)
    assert listener.wait(12) == 0
    assert vendor.wait(12) == 0


def test_the_benchmark_runs(tmp_path: Path) -> None:
    """Tiny: so that it never rots."""
    argv = [sys.executable, "-m", "tests.bench.dataplane.listener", "--tiny"]
    done = subprocess.run(argv, env=environment(tmp_path), capture_output=True, text=True, timeout=180, check=True)
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"events_per_s", "router_events_per_s", "simulator_events_per_s"} == {figure["figure"] for figure in figures}
    assert all(figure["value"] > 0 and figure["unit"] == "events/s" for figure in figures)
