"""Checks that a child process is kept alive, that its log is bounded, and that nothing it started survives it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from deploy import child as module
from deploy.child import Child, LogFile, Refused
from deploy.plan import Process
from tests.local_run import alive
from tests.waiting import until

SLEEPS = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(60)"

Start = Callable[[str], tuple[Child, asyncio.Task[None]]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start Python source as a child; what still runs at the end of the test is killed."""
    started: list[tuple[Child, asyncio.Task[None]]] = []

    def begin(source: str) -> tuple[Child, asyncio.Task[None]]:
        child = Child(Process("reel", ("-c", source), 0), tmp_path, said(tmp_path).append, lambda: None)
        started.append((child, asyncio.create_task(child.run())))
        return started[-1]

    yield begin
    for child, life in started:
        child.kill()
        with contextlib.suppress(Refused):
            await life
    SAID.pop(tmp_path, None)


SAID: dict[Path, list[str]] = {}


def said(where: Path) -> list[str]:
    return SAID.setdefault(where, [])


def log_of(tmp_path: Path) -> str:
    path = tmp_path / "reel.log"
    return path.read_text() if path.exists() else ""


async def test_a_child_writes_to_its_log_and_stops_when_asked(start: Start, tmp_path: Path) -> None:
    """Output goes to the file, SIGTERM ends it, nothing is said about an ordinary end."""
    child, life = start(SLEEPS)
    await until(lambda: "up" in log_of(tmp_path))
    child.stop()
    async with asyncio.timeout(5):
        await life
    assert child.pid is None
    assert said(tmp_path) == []


async def test_a_log_that_cannot_be_written_does_not_stop_the_child(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its output is read on, else it would hang on a full pipe; the fault is told once."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LogFile, "write", full)
    _, life = start("for _ in range(200): print('x' * 4096, flush=True)")
    await until(lambda: any("was drained" in line for line in said(tmp_path)), seconds=20)
    assert not life.done()
    assert sum("No space left on device" in line for line in said(tmp_path)) == 1


async def test_a_child_whose_output_nobody_reads_is_ended(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in the reading is told, and the child starts anew."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(module.Story, "read", broken)
    child, _ = start(SLEEPS)
    await until(lambda: child.restarts == 1, seconds=20)
    assert any("a defect" in line for line in said(tmp_path))


async def test_a_killed_child_lives_again(start: Start, tmp_path: Path) -> None:
    """A death is told with its cause and followed by a new process."""
    child, _ = start(SLEEPS)
    await until(lambda: "up" in log_of(tmp_path))
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.pid not in (None, first), seconds=10)
    assert child.restarts == 1
    assert said(tmp_path)[0].startswith("reel died (SIGKILL); starting it again in 0.2 s")


async def test_a_child_that_refuses_to_start_ends_the_run(start: Start) -> None:
    """Exit code 2 or 3 with its one line is not retried: the line and the code are the run's."""
    _, life = start("import sys; print('tapeline reel: error: no tape. Set TAPE.', file=sys.stderr); sys.exit(3)")
    with pytest.raises(Refused) as refused:
        async with asyncio.timeout(10):
            await life
    assert (refused.value.line, refused.value.code) == ("tapeline reel: error: no tape. Set TAPE.", 3)


async def test_a_refusal_after_it_was_ready_is_a_death_like_others(start: Start, tmp_path: Path) -> None:
    """A server that refuses for a moment in the middle of the day must not end everything."""
    mark = tmp_path / "second"
    source = f"import os, sys, pathlib; p = pathlib.Path({str(mark)!r})\nif p.exists():\n {SLEEPS.replace('; ', chr(10) + ' ')}\n"
    source += "p.touch(); print('tapeline reel: error: refused. Wait.', flush=True); sys.exit(3)"
    child, life = start(source)
    child.was_ready = True
    await until(lambda: "up" in log_of(tmp_path), seconds=10)
    assert not life.done()
    assert child.restarts == 1


async def test_a_defect_at_the_start_is_not_restarted_for_ever(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five deaths without ever being ready end the run and show the traceback."""
    monkeypatch.setattr(module, "restart_pause_s", lambda _: 0.01)
    _, life = start("raise RuntimeError('defect')")
    with pytest.raises(Refused, match="died 5 times before it was ready"):
        async with asyncio.timeout(20):
            await life
    assert any("RuntimeError: defect" in line for line in said(tmp_path))


async def test_nothing_that_a_dead_child_started_survives(start: Start, tmp_path: Path) -> None:
    """A grandchild would keep the port of the next life."""
    mark = tmp_path / "grandchild"
    source = f"import subprocess, pathlib, sys; p = subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]); "
    source += f"pathlib.Path({str(mark)!r}).write_text(str(p.pid)); p.wait()"
    child, _ = start(source)
    grandchild = int(await until(lambda: mark.exists() and mark.read_text()))
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: not alive(grandchild))


async def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """kill -9 of the runner leaves nothing behind."""
    source = f"""
import asyncio, pathlib
from deploy.child import Child
from deploy.plan import Process
child = Child(Process("reel", ("-c", {SLEEPS!r}), 0), pathlib.Path({str(tmp_path)!r}), print, lambda: print(child.pid, flush=True))
asyncio.run(child.run())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", source, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(10):
        pid = int(await parent.stdout.readline())
    await until(lambda: "up" in log_of(tmp_path))
    parent.kill()
    await parent.wait()
    await until(lambda: not alive(pid))


def test_a_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its size a new file begins and one old one is kept."""
    monkeypatch.setattr(module, "LOG_BYTES_MAX", 100)
    log = LogFile(tmp_path / "reel.log")
    for number in range(50):
        log.write(b"%09d\n" % number)
    log.close()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes == {"reel.log": 100, "reel.log.1": 100}
    assert (tmp_path / "reel.log").read_text().endswith("000000049\n")
