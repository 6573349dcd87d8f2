"""Runs several worker processes on one port, restarts those that die, and drains them when asked to stop.

The kernel spreads connections over them (SO_REUSEPORT). Limits per user and address hold in each worker by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys

import structlog

from service.run import Shutdown, backoff_s
from wds.settings import WdsSettings

STEADY_S = 30.0  # a worker that lived this long is restarted at once
DRAIN_S_MAX = 9.0
log = structlog.get_logger()


async def supervise(settings: WdsSettings, shutdown: Shutdown) -> None:
    """Keep WDS_WORKERS processes running until asked to stop."""
    await asyncio.gather(*(_keep(number, shutdown) for number in range(settings.workers)))


async def _keep(number: int, shutdown: Shutdown) -> None:
    attempt = 0
    loop = asyncio.get_running_loop()
    while not shutdown.asked:
        began = loop.time()
        code = await _once(number, shutdown)
        if shutdown.asked:
            return
        attempt = 0 if loop.time() - began > STEADY_S else attempt + 1
        if code:
            log.error("worker_died", worker=number, code=code, restarts=attempt)
        else:
            log.info("worker_drained", worker=number, restarts=attempt)
        await shutdown.sleep(backoff_s(attempt, random.random(), first_s=0.2, most_s=10.0))


async def _once(number: int, shutdown: Shutdown) -> int:
    # Its stdin is a pipe that we hold: when we die in whatever way, it ends, and the worker sees that and drains.
    environment = {**os.environ, "WDS_WORKER": str(number), "WDS_PARENT": str(os.getpid())}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wds", "serve", env=environment, stdin=asyncio.subprocess.PIPE
    )
    log.info("worker_started", worker=number, pid=process.pid)
    ended = asyncio.ensure_future(process.wait())
    stopping = asyncio.ensure_future(shutdown.wait())
    await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not ended.done():
        await _end(process, ended)
    return await ended


async def _end(process: asyncio.subprocess.Process, ended: asyncio.Future[int]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await asyncio.wait({ended}, timeout=DRAIN_S_MAX)
    if not ended.done():
        process.kill()


async def follow_parent(shutdown: Shutdown) -> None:
    """Ask for shutdown when the parent's end of our stdin closes."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    shutdown.ask()
