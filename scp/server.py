"""Serves the pages on a listening socket: gunicorn with one worker of a few threads.

One worker, because the metrics and the admin port live in it; a page costs a few requests, the data flows through WDS.
"""

from __future__ import annotations

import logging
import socket
from typing import Any
from wsgiref.types import WSGIApplication

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from scp.health import Health
from scp.settings import ScpSettings
from scp.wsgi import application

DRAIN_S = 5  # requests under way get this long after SIGTERM

log = structlog.get_logger()


class QuietLogger(Logger):  # type: ignore[misc]  # gunicorn is untyped
    """gunicorn's messages through our one log form; its chatter of every start is for debugging."""

    def setup(self, cfg: Any) -> None:
        """Send the error log to the root handlers and drop the access log: metrics count requests."""
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)
        self.access_log.propagate = False


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    """gunicorn around `application(settings)`, listening on `sock`."""

    def __init__(self, settings: ScpSettings, sock: socket.socket) -> None:
        self._settings = settings
        self._address = sock.getsockname()[:2]  # gunicorn closes our handle once it has its own
        self._sock = sock
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn up; nothing is read from its own files or variables."""
        for name, value in {
            "bind": f"fd://{self._sock.fileno()}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._settings.threads,
            "graceful_timeout": DRAIN_S,
            "timeout": 60,
            "keepalive": 5,
            "logger_class": QuietLogger,
            "control_socket_disable": True,
            "post_worker_init": self._worker_ready,
        }.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        """Return the app; called in the worker."""
        return application(self._settings)

    def _worker_ready(self, _: Any) -> None:
        Health(self._settings).start()
        host, port = self._address
        log.info("page_ready", url=f"http://{host}:{port}/", wds_url=self._settings.wds_url)
