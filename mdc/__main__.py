"""Commands of the cache: `python -m mdc embedded` serves fakeredis on 127.0.0.1 (MDC_EMBEDDED_PORT, 0 = a free one)."""

from __future__ import annotations

import asyncio
import sys

import structlog
from pydantic import Field

from mdc.embedded import EmbeddedCache
from service import logs
from service.errors import OperatorError
from service.run import Shutdown, fail, main
from service.settings import ComponentSettings, load


class EmbeddedSettings(ComponentSettings):
    """Settings of the embedded cache."""

    port: int = Field(6390, ge=0, le=65535, validation_alias="MDC_EMBEDDED_PORT", description="0 = a free one")


async def serve(shutdown: Shutdown) -> None:
    """Serve until asked to stop."""
    settings = load(EmbeddedSettings)
    logs.setup("mdc", settings.log_level, settings.log_format)
    cache = EmbeddedCache(settings.port)
    cache.start()
    structlog.get_logger().info("embedded_cache_listening", url=cache.url)
    await shutdown.wait()
    await asyncio.to_thread(cache.stop)


if __name__ == "__main__":
    if sys.argv[1:] != ["embedded"]:
        fail("mdc", OperatorError("unknown command", "The one command is: python -m mdc embedded"))
    main("mdc", serve)
