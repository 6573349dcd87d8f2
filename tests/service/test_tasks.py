"""Watched tasks: which endings are faults, who hears of them, and what a process does about one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from service.errors import OperatorError
from service.run import Shutdown, main
from service.tasks import Tasks
from tests.waiting import until


async def fails(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def returns() -> int:
    await asyncio.sleep(0)
    return 7


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_task_that_fails_is_reported_at_once_with_its_name_and_error() -> None:
    """The report is one line that an operator can read."""
    heard: list[OperatorError] = []
    tasks = Tasks("mdl", heard.append)
    tasks.start("route", fails(ValueError("boom")))
    await until(lambda: heard)
    assert "the task mdl route ended unexpectedly: ValueError: boom" in str(heard[0])
    assert (heard, heard[0].exit_code) == (tasks.faults, 1)
    with pytest.raises(OperatorError, match="boom"):
        tasks.check()


async def test_returning_is_a_fault_unless_the_task_is_one_that_ends() -> None:
    """A loop that is left quietly is as bad as one that breaks."""
    heard: list[OperatorError] = []
    tasks = Tasks("mdl", heard.append)
    assert await tasks.start("job", returns(), ends=True) == 7
    assert not heard
    tasks.start("loop", returns())
    await until(lambda: heard)
    assert "mdl loop ended unexpectedly: it returned" in str(heard[0])


async def test_a_task_cancelled_by_what_it_awaits_is_a_fault() -> None:
    """Libraries cancel the futures of a lost connection; whoever awaited one would be gone in silence."""
    heard: list[OperatorError] = []
    tasks = Tasks("mdl", heard.append)
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await answer

    tasks.start("reader", wait())
    await asyncio.sleep(0)
    answer.cancel()
    await until(lambda: heard)
    assert "CancelledError" in str(heard[0])


async def test_tasks_that_are_asked_to_end_are_no_faults() -> None:
    """Cancelled by close, by its owner, and one that fails while it ends."""
    tasks = Tasks("mdl", lambda fault: pytest.fail(str(fault)))

    async def untidy() -> None:
        try:
            await forever()
        finally:
            raise ValueError("while ending")

    tasks.start("a", forever())
    tasks.start("b", untidy())
    alone = tasks.start("c", forever())
    await asyncio.sleep(0)
    alone.cancel()
    await tasks.close()
    assert not tasks.faults
    tasks.check()


async def test_close_outlives_a_swallowed_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What catches the first cancellation gets a second one."""
    monkeypatch.setattr("service.tasks.AGAIN_S", 0.01)
    tasks = Tasks("mdl")

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await forever()
        await forever()

    tasks.start("a", stubborn())
    await asyncio.sleep(0)
    await asyncio.wait({asyncio.ensure_future(tasks.close())}, timeout=5)
    assert not tasks.faults
    assert not tasks._running


async def test_an_operating_error_keeps_its_own_words() -> None:
    """What to do about it is known better by who raised it; a task may have a listener of its own."""
    heard: list[OperatorError] = []
    tasks = Tasks("mdl", lambda fault: pytest.fail(str(fault)))
    error = OperatorError("the disk is full", "Make room", 3)
    tasks.start("writer", fails(error), on_fault=heard.append)
    await until(lambda: heard)
    assert heard == [error]


async def test_faults_are_bounded() -> None:
    """A job that fails on and on does not fill the memory."""
    heard: list[OperatorError] = []
    tasks = Tasks("mdl", heard.append)
    for number in range(30):
        tasks.start(f"job{number}", fails(ValueError()))
    await until(lambda: len(heard) == 30)
    assert len(tasks.faults) == 10


def ended(body: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Return the exit code of a process with that body and its error lines."""
    with pytest.raises(SystemExit) as exited:
        main("test", body)
    lines = capsys.readouterr().err.splitlines()
    return int(str(exited.value.code)), [line for line in lines if line.startswith("tapeline")]


def test_a_fault_nobody_takes_ends_the_process_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    """The body is asked to drain; then one line and a code above zero, although the body itself saw nothing."""
    drained = []

    async def body(shutdown: Shutdown) -> None:
        Tasks("mdl").start("route", fails(ValueError("boom")))
        await shutdown.wait()
        drained.append(True)

    code, lines = ended(body, capsys)
    assert (code, drained) == (1, [True])
    (line,) = lines
    assert line.startswith("tapeline test: error: the task mdl route ended unexpectedly: ValueError: boom. ")


def test_a_thread_that_breaks_ends_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    """Threads are watched like tasks."""

    def work() -> None:
        raise ValueError("in a thread")

    async def body(shutdown: Shutdown) -> None:
        threading.Thread(target=work, name="recorder").start()
        await shutdown.wait()

    before = threading.excepthook
    code, (line,) = ended(body, capsys)
    assert code == 1
    assert "recorder" in line
    assert "in a thread" in line
    assert threading.excepthook is before
