"""Listener and processors in one process around the in-memory queue: what a machine without RabbitMQ runs."""

from __future__ import annotations

import asyncio

import structlog

from mdl import listener
from mdl.settings import MdlSettings
from mdp import worker
from mdp.settings import MdpSettings
from mdq.connect import open_broker
from service import logs
from service.run import Shutdown, main
from service.settings import load, shown

log = structlog.get_logger()


async def serve(shutdown: Shutdown) -> None:
    """Run both until asked to stop; when one of them fails, the process ends and its parent starts it again."""
    mdl, mdp = load(MdlSettings), load(MdpSettings)
    logs.setup("pipeline", mdl.log_level, mdl.log_format)
    log.info("starting", mdl=shown(mdl), mdp=shown(mdp))
    broker = open_broker(mdl.mdq_url, "pipeline")
    await broker.connect()
    # The processors outlive the listener: they drain what it published last.
    draining = Shutdown()
    processing = asyncio.create_task(_named("mdp", worker.run(mdp, draining, broker)))
    listening = asyncio.create_task(_named("mdl", listener.run(mdl, shutdown, broker)))
    await asyncio.wait({listening, processing}, return_when=asyncio.FIRST_COMPLETED)
    shutdown.ask()
    await asyncio.wait({listening})
    draining.ask()
    await asyncio.wait({processing})
    await asyncio.gather(listening, processing)


async def _named(component: str, body: object) -> None:
    structlog.contextvars.bind_contextvars(component=component)
    await body  # type: ignore[misc]


if __name__ == "__main__":
    main("pipeline", serve)
