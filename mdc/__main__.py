"""Commands of the cache in, a served fakeredis or the README's tables out.

`python -m mdc embedded` serves on 127.0.0.1 (MDC_EMBEDDED_PORT, 0 = a free one); `python -m mdc table` prints the tables of
mdc/README.md.
"""

from __future__ import annotations

import asyncio
import sys

import structlog
from pydantic import Field

from mdc.embedded import EmbeddedCache
from mdc.table import tables
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
    match sys.argv[1:]:
        case ["embedded"]:
            main("mdc", serve)
        case ["table"]:
            print(tables())
        case _:
            fail("mdc", OperatorError("unknown command", "The commands are: python -m mdc embedded, python -m mdc table"))
