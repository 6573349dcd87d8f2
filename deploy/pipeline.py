"""Runs listener and processors in one process around the in-memory queue: what a machine without RabbitMQ runs.

Invariant: neither runs without the other; when one ends, for whatever reason, the process drains and ends with an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from mdl import listener
from mdl.settings import MdlSettings
from mdp import worker
from mdp.settings import MdpSettings
from mdq.connect import open_broker
from service import logs
from service.run import Shutdown, main
from service.settings import load, shown
from service.tasks import Tasks

log = structlog.get_logger()


async def serve(shutdown: Shutdown) -> None:
    """Run both until asked to stop; when one of them fails, the process ends and its parent starts it again."""
    mdl, mdp = load(MdlSettings), load(MdpSettings)
    logs.setup("pipeline", mdl.log_level, mdl.log_format)
    log.info("starting", mdl=shown(mdl), mdp=shown(mdp))
    broker = open_broker(mdl.mdq_url, "pipeline", queue_type=mdl.mdq_queue_type)
    await broker.connect()
    # The processors outlive the listener: they drain what it published last.
    draining = Shutdown()
    tasks = Tasks("pipeline", shutdown.fail)
    processing = tasks.start("processors", _until(draining, "mdp", worker.run(mdp, draining, broker, shutdown.ask)), ends=True)
    listening = tasks.start("listener", _until(shutdown, "mdl", listener.run(mdl, shutdown, broker)), ends=True)
    await asyncio.wait({listening})
    draining.ask()
    await asyncio.wait({processing})


async def _until(shutdown: Shutdown, component: str, body: Coroutine[Any, Any, None]) -> None:
    """Run a component that ends when it is asked to and not before."""
    structlog.contextvars.bind_contextvars(component=component)
    await body
    if not shutdown.asked:
        raise RuntimeError("nobody had asked it to")


if __name__ == "__main__":
    main("pipeline", serve)
