"""Checks how a component runs as a process: signals, drain, exit codes, waiting for dependencies."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import OperatorError
from service.run import Shutdown, backoff_s, wait_for
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent


def component(body: str) -> subprocess.Popen[str]:
    """Start a process whose component runs `body`, and return it when it said `up`."""
    source = (
        f"import asyncio\nfrom service import run\nfrom service.errors import OperatorError\n{body}\nrun.main('reel', serve)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_component(sent: signal.Signals) -> None:
    """SIGTERM and Ctrl-C let the component finish what it holds; it ends with 0."""
    process = component("""
async def serve(shutdown):
    print("up", flush=True)
    await shutdown.wait()
    await asyncio.sleep(0.05)
    print("drained", flush=True)
""")
    process.send_signal(sent)
    out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == ("drained\n", "", 0)


def test_a_drain_that_hangs_is_cut_off() -> None:
    """What does not end within the bound is cancelled, said in the log, and the process ends with 1."""
    process = component("""
run.DRAIN_S_MAX = 0.2
async def serve(shutdown):
    print("up", flush=True)
    await asyncio.Event().wait()
""")
    process.terminate()
    out, err = process.communicate(timeout=10)
    assert "drain_timed_out" in out + err
    assert process.returncode == 1


def test_an_operating_failure_is_one_line() -> None:
    """An OperatorError ends the process with its code and no traceback."""
    process = component("""
async def serve(shutdown):
    print("up", flush=True)
    raise OperatorError("the tape is torn", "Mend it", exit_code=3)
""")
    _, err = process.communicate(timeout=10)
    assert err == "tapeline reel: error: the tape is torn. Mend it.\n"
    assert process.returncode == 3


def test_a_broken_invariant_is_a_traceback() -> None:
    """Anything else is a defect: it is shown in full and the process dies."""
    process = component("""
async def serve(shutdown):
    print("up", flush=True)
    assert 1 == 2, "sums differ"
""")
    _, err = process.communicate(timeout=10)
    assert "AssertionError: sums differ" in err
    assert process.returncode == 1


async def test_sleeping_ends_when_the_stop_is_asked_for() -> None:
    """A pause never delays a stop."""
    shutdown = Shutdown()
    pause = asyncio.create_task(shutdown.sleep(60))
    await asyncio.sleep(0)
    shutdown.ask()
    async with asyncio.timeout(1):
        assert await pause is True
    assert shutdown.asked


async def test_sleeping_without_a_stop_says_so() -> None:
    """A pause that ran its time returns False."""
    assert await Shutdown().sleep(0.001) is False


async def test_waiting_goes_on_until_the_dependency_answers() -> None:
    """A dependency that is down is asked again, not given up."""
    tries = 0

    async def probe() -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise ConnectionRefusedError("connection refused")

    async with asyncio.timeout(5):
        await wait_for("the cache", probe, Shutdown(), "Start Redis")
    assert tries == 4


async def test_waiting_ends_when_the_stop_is_asked_for() -> None:
    """A component that waits for its dependencies stops at once."""
    shutdown, asked = Shutdown(), asyncio.Event()

    async def probe() -> None:
        asked.set()
        raise ConnectionRefusedError

    waiting = asyncio.create_task(wait_for("the cache", probe, shutdown, "Start Redis"))
    await until(asked.is_set)
    shutdown.ask()
    async with asyncio.timeout(1):
        await waiting


async def test_a_refusal_is_not_waited_for() -> None:
    """Wrong credentials do not become right by waiting."""

    async def probe() -> None:
        raise PermissionError("wrong password")

    with pytest.raises(OperatorError, match=r"the cache refused the connection: wrong password\. Set MDC_URL") as failed:
        await wait_for("the cache", probe, Shutdown(), "Set MDC_URL", refused=(PermissionError,))
    assert failed.value.exit_code == 3


async def test_a_defect_in_a_probe_is_not_waited_for() -> None:
    """Only network faults are a reason to wait."""

    async def probe() -> None:
        raise KeyError("defect")

    with pytest.raises(KeyError):
        await wait_for("the cache", probe, Shutdown(), "Start Redis")


def test_backoff_grows_to_its_bound_with_jitter() -> None:
    """Pauses double from 0.1 s to 5 s; the dice spread them, never to zero."""
    assert [round(backoff_s(n, 1.0), 3) for n in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff_s(1_000_000, 0.0) == pytest.approx(0.5)
    assert backoff_s(0, 0.0) == pytest.approx(0.01)
