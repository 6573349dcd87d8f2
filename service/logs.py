"""Writes log events to stderr, one JSON line each: an event has a name (`feed_connected`), facts are fields."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog


def setup(component: str, level: str = "info", form: str = "json") -> None:
    """Send structlog and the standard library's logging to stderr in one form, every line naming the component."""
    structlog.contextvars.bind_contextvars(component=component)
    chain: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: Any = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if form == "console" else _render_json
    structlog.configure(
        processors=[*chain, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=chain, processors=[_drop_meta, last]))
    logging.basicConfig(handlers=[handler], level=getattr(logging, level.upper()), force=True)
    for chatty in ("aiormq", "aio_pika", "websockets", "uvicorn.access", "uvicorn.error", "httpx"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


def level() -> str:
    """Return the level from which on events are written."""
    return logging.getLevelName(logging.getLogger().level).lower()


def set_level(name: str) -> None:
    """Write events from this level on: debug, info, warning or error. Takes effect at once, for the whole process."""
    number = getattr(logging, name.upper())
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
    logging.getLogger().setLevel(number)


def _drop_meta(_: Any, __: str, event: Any) -> Any:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


def _render_json(_: Any, __: str, event: Any) -> str:
    return orjson.dumps(event, default=str).decode()
