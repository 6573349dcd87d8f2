"""Runs the pipeline's real processes on private servers, for benchmarks and live tests."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import redis

from tests.servers import RabbitMQ, Redis, free_port
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
# A benchmark may run another revision's components with this revision's measuring code (tests/bench/compare.py).
TREE = Path(os.environ.get("BENCH_TREE", ROOT))
PYTHON = os.environ.get("BENCH_PYTHON", sys.executable)
READY_S_MAX = 30


class Stack:
    """RabbitMQ, Redis and the components as processes of their own. Everything started here is stopped here, by pid."""

    def __init__(self, folder: Path, rabbitmq: RabbitMQ, cache: Redis) -> None:
        self.folder = folder
        self.rabbitmq = rabbitmq
        self.cache = cache
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}
        self.redis: Any = redis.Redis.from_url(cache.url)

    def start(self, name: str, module: str, **env: object) -> subprocess.Popen[bytes]:
        """Start `python -m module` as `name` with settings; its log is in `folder/name.log`."""
        component = module.split()[0].upper()
        port = self.ports[name] = free_port()
        shared = {
            "MDQ_URL": self.rabbitmq.url,
            "MDC_URL": self.cache.url,
            "RUN_DIR": str(self.folder),
            f"{component}_ADMIN_PORT": str(port),
        }
        settings = {key: str(value) for key, value in env.items()}
        with (self.folder / f"{name}.log").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [PYTHON, "-m", *module.split()],
                cwd=TREE,
                env={**os.environ, **shared, **settings},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_die_with_parent,
            )
        return self.processes[name]

    def log(self, name: str) -> str:
        """Return the end of a process's log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def stop(self, name: str, sig: int = signal.SIGTERM) -> int:
        """End one process; return its exit code."""
        process = self.processes.pop(name)
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(sig)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()

    def counts(self) -> dict[str, int]:
        """Return what the processors have counted over all partitions and sources: events, expired, dropped, redelivered, bad.

        Read without the processors' types, which another revision may have others of: keys were streams, now `source/stream`.
        """
        total = dict.fromkeys(("events", "expired", "dropped", "redelivered", "bad"), 0)
        for body in self._bodies_of_counts():
            part = msgspec.json.decode(body)
            for name in total:
                value = part[name]
                by_key = value if isinstance(value, dict) else {"": value}
                total[name] += sum(n for key, n in by_key.items() if key.rpartition("/")[2] != "status")
        return total

    def _bodies_of_counts(self) -> list[bytes]:
        return list(self.redis.hvals("part:counts"))

    def wait(
        self, what: str, check: Callable[[], Any], seconds: float = READY_S_MAX, pause_s: float = 0.05, patience: float = PATIENCE
    ) -> Any:
        """Return the first true answer of `check()`; where the time itself is promised `patience` is 1.

        Raises: TimeoutError after `patience` times `seconds`, naming `what`, with the logs.
        """
        deadline = time.monotonic() + seconds * patience
        while time.monotonic() < deadline:
            answer = check()
            if answer:
                return answer
            dead = [name for name, process in self.processes.items() if process.poll() is not None]
            if dead:
                raise RuntimeError(f"{dead} ended while waiting for {what}: {self.log(dead[0])}")
            time.sleep(pause_s)
        logs = "\n".join(f"--- {name}\n{self.log(name)}" for name in self.processes)
        raise TimeoutError(f"{what}: not within {patience} × {seconds} s\n{logs}")

    def owners(self) -> dict[int, str]:
        """Return partition → worker for the partitions that are owned now."""
        found = {}
        for key in self.redis.scan_iter("lease:partition:*"):
            holder = self.redis.hget(key, "holder")
            if holder:
                found[int(key.rsplit(b":", 1)[1])] = holder.decode()
        return found

    def pids(self) -> dict[str, int]:
        """Return the pid of each process, servers included."""
        servers = {"rabbitmq": self.rabbitmq.pid, "redis": self.cache.pid}
        return {name: process.pid for name, process in self.processes.items()} | servers

    def rss_mb(self) -> dict[str, float]:
        """Return the resident memory of each process in MiB."""
        return {name: _rss_mb(pid) for name, pid in self.pids().items()}

    def close(self) -> None:
        """End every process."""
        for name in list(self.processes):
            self.stop(name)
        self.redis.close()


def _die_with_parent() -> None:
    # A test run that is killed must leave no process behind: the kernel sends SIGKILL when the parent ends (PR_SET_PDEATHSIG).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _tree(pid: int) -> list[int]:
    """Return `pid` and its descendants: a server may be a shell around the real one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [pid]
    try:
        for child in children.read_text().split():
            found += _tree(int(child))
    except OSError:
        return found
    return found


def cpu_s(pid: int) -> float:
    """Return the processor seconds (user + system) that a process and those it started have used so far."""
    ticks = 0
    for one in _tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    total = 0
    for one in _tree(pid):
        try:
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return round(total / 1024, 1)


@contextmanager
def stack() -> Iterator[Stack]:
    """Give a stack with fresh servers and nothing else running; end it all afterwards."""
    with tempfile.TemporaryDirectory(prefix="tapeline-") as folder, RabbitMQ() as rabbitmq, Redis() as cache:
        made = Stack(Path(folder), rabbitmq, cache)
        try:
            yield made
        finally:
            made.close()
