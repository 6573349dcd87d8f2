"""Runs several real workers on one port and checks restarts, drain, and the command line of scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Process, free_port
from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.talk import Talk
from wds.access.keys import mint_local

ROOT = Path(__file__).resolve().parent.parent.parent


def environment(tmp_path: Path, **more: Any) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WDS_", "MDC_", "MDQ_"))}
    return {**kept, "RUN_DIR": str(tmp_path), **{name: str(value) for name, value in more.items()}}


def script(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "wds", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90, check=False)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


@pytest.fixture
def service(tmp_path: Path, redis_url: str) -> Iterator[tuple[Process, int, dict[str, str]]]:
    """Two workers behind one port, as processes."""
    port = free_port()
    env = environment(
        tmp_path, WDS_PORT=port, WDS_WORKERS=2, WDS_ADMIN_PORT=0, MDC_URL=redis_url, WDS_URL=f"ws://127.0.0.1:{port}"
    )
    process = Process([sys.executable, "-m", "wds"], env, ROOT, tmp_path / "wds.log")
    yield process, port, env
    process.stop(signal.SIGKILL)


async def connected(port: int) -> Talk | None:
    try:
        return await Talk.to(port)
    except OSError:
        return None


@pytest.mark.live
async def test_workers_share_a_port_are_restarted_and_drain(service: tuple[Process, int, dict[str, str]], tmp_path: Path) -> None:
    """Both answer; a killed one comes back; SIGTERM drains with bye 4200 and leaves no process behind."""
    process, port, _ = service
    talk = await until(lambda: connected(port), seconds=20)
    await talk.close()
    before = await until(lambda: len(found := children(process.pid)) == 2 and found, seconds=20)
    os.kill(before[0], signal.SIGKILL)
    after = await until(lambda: len(found := children(process.pid)) == 2 and before[0] not in found and found, seconds=20)
    talk = await until(lambda: connected(port), seconds=20)
    assert (await talk.ask(op="auth", token=mint_local(tmp_path)))["ok"]
    os.kill(process.pid, signal.SIGTERM)
    assert await talk.closed(10) == 4200
    await until(lambda: not process.running, seconds=12)
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in after), seconds=5)


@pytest.mark.live
async def test_scripts_get_and_watch(service: tuple[Process, int, dict[str, str]], redis_url: str) -> None:
    """`get` prints one line a channel with its keys in order; what has no data is an error and an exit code."""
    _, port, env = service
    publisher = Publisher(redis_url)
    await publisher.empty("k1")
    await publisher.publish("quote:A", {"last": 1})
    (await until(lambda: connected(port), seconds=20)) and None
    done = script(env, "get", "quote:A")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == ["ch", "epoch", "seq", "ts", "data"]
    done = script(env, "get", "quote:A", "quote:NONE", "what:ever")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert "quote:NONE: no data yet (unavailable)" in done.stderr
    assert "unknown_channel" in done.stderr
    watching = Process(
        [sys.executable, "-m", "wds", "watch", "quote:A", "--hz", "raw"], env, ROOT, Path(env["RUN_DIR"]) / "watch.log"
    )
    try:
        await until(lambda: '"t":"snap"' in watching.tail(), seconds=20)
        await publisher.publish("quote:A", {"last": 2})
        await until(lambda: '"t":"upd"' in watching.tail(), seconds=20)
    finally:
        watching.stop()
    await publisher.close()


def test_what_a_script_cannot_do_is_one_clear_line(tmp_path: Path) -> None:
    """Nobody there, no key, a bad setting: one line on stderr, a code, no traceback."""
    env = environment(tmp_path, WDS_URL=f"ws://127.0.0.1:{free_port()}")
    done = script(env, "get", "quote:A")
    assert done.returncode == 2
    assert "WDS_TOKEN is not set" in done.stderr
    token = script(env, "token", "--ch", "quote:*", "--ttl", "60", "--sub", "me").stdout.strip()
    assert token.count(".") == 2
    done = script({**env, "WDS_TOKEN": token}, "get", "quote:A")
    assert done.returncode == 3
    assert "cannot be reached" in done.stderr
    done = script({**env, "WDS_PORT": "99999999"})
    assert done.returncode == 2
    assert "WDS_PORT" in done.stderr
    for line in (done.stderr, script({**env, "WDS_URL": "nonsense", "WDS_TOKEN": token}, "get", "quote:A").stderr):
        assert "Traceback" not in line
        assert line.startswith("tapeline wds: error:")


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    """Starting where somebody listens names the port and the variable."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        env = environment(tmp_path, WDS_PORT=taken.getsockname()[1], WDS_ADMIN_PORT=0, LOG_LEVEL="error")
        done = script(env)
    assert done.returncode == 2
    assert "WDS_PORT" in done.stderr
    assert "Traceback" not in done.stderr
