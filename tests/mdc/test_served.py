"""Checks who serves the embedded cache: the newest real server of the machine, else fakeredis, one process at one port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from mdc import served
from tests.caches import answers
from tests.stack import ROOT, _die_with_parent
from tests.waiting import until_sync


@contextmanager
def cache(**variables: str) -> Iterator[tuple[subprocess.Popen[bytes], redis.Redis]]:
    """A running `python -m mdc embedded` and a client of it."""
    port = served.usable_port(0)
    env = os.environ | {"MDC_EMBEDDED_PORT": str(port)} | variables
    process = subprocess.Popen([sys.executable, "-m", "mdc", "embedded"], env=env, cwd=ROOT, preexec_fn=_die_with_parent)
    with redis.Redis(port=port) as client:
        try:
            until_sync(lambda: answers(client), seconds=30)
            yield process, client
        finally:
            process.kill()
            process.wait()


def a_server(folder: Path, name: str, said: str) -> str:
    """A program of that name which says its version."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{said}'\n")
    path.chmod(0o755)
    return str(path)


def test_the_newest_server_of_the_machine_is_taken(tmp_path: Path) -> None:
    """Redis and Valkey count alike; one that is too old or cannot run does not."""
    old = a_server(tmp_path, "old", "Redis server v=6.0.16 sha=0 malloc=libc")
    mended = a_server(tmp_path, "mended", "Redis server v=6.2.14 sha=0 malloc=libc")
    valkey = a_server(tmp_path, "valkey", "Valkey server v=8.1.1 sha=0 malloc=jemalloc")
    broken = a_server(tmp_path, "broken", "Segmentation fault")
    assert served.newest([old, mended, valkey, broken]) == valkey
    assert served.newest([mended, old]) == mended
    assert served.newest([old, broken, str(tmp_path / "missing")]) is None


def test_servers_are_looked_for_on_the_path_and_beside_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel puts its program beside our Python, where PATH need not lead."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        a_server(folder, "redis-server", "Redis server v=7.0.1")
    monkeypatch.setenv("PATH", str(first))
    monkeypatch.setattr(sys, "executable", str(second / "python"))
    assert served.candidates() == [str(first / "redis-server"), str(second / "redis-server")]


@pytest.mark.live
def test_a_real_server_takes_the_place_of_the_process(tmp_path: Path) -> None:
    """The process we started is the server: what is sent to it ends the cache, and nothing is written to the disk."""
    program = served.newest(served.candidates())
    assert program is not None, "install redis-server"
    with cache(MDC_EMBEDDED_SERVER=program) as (process, client):
        assert client.info("server")["process_id"] == process.pid
        assert client.config_get("save", "appendonly", "bind") == {"save": "", "appendonly": "no", "bind": "127.0.0.1"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_without_a_server_fakeredis_serves() -> None:
    """The same command, in Python."""
    with cache(MDC_EMBEDDED_SERVER=served.IN_PYTHON) as (process, client):
        client.set("a", 1)
        assert client.get("a") == b"1"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize("server", [served.IN_PYTHON, "/bin/true"])
def test_a_taken_port_is_one_line(server: str) -> None:
    """The port and its variable are named before any server is started."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        env = os.environ | {"MDC_EMBEDDED_PORT": str(port), "MDC_EMBEDDED_SERVER": server}
        argv = [sys.executable, "-m", "mdc", "embedded"]
        done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 2
    assert f"tapeline mdc: error: cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "MDC_EMBEDDED_PORT" in done.stderr
