"""Serves the pages on a listening socket: gunicorn with one worker of a few threads.

One worker, because the metrics and the admin port live in it; a page costs a few requests, the data flows through WDS.
"""

from __future__ import annotations

import logging
import socket
import sys
from typing import Any
from wsgiref.types import WSGIApplication

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from scp.announce import Announcer
from scp.control import Control, internal, open_store
from scp.health import Health
from scp.settings import ScpSettings, is_loopback
from scp.wsgi import application

# A request gives the interpreter away some fifteen times (files, sockets, the poller), and whoever holds it then may keep it for
# so long; with the usual 5 ms the 99th percentile of eight threads was twice as late.
SWITCH_S = 0.0005
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
        self._health: Health | None = None
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
            "worker_exit": self._worker_ends,
        }.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        """Return the app; called in the worker."""
        self._control = Control(self._settings, open_store(self._settings))
        self._control.use_url(_url(self._address))
        return application(self._settings, self._control, self._address[1])

    def _worker_ready(self, _: Any) -> None:
        sys.setswitchinterval(SWITCH_S)
        announcer = Announcer(self._control, self._settings.mdc_url, self._settings.longest_s)
        self._control.announce = announcer.now
        self._health = Health(self._settings, self._control, announcer)
        self._health.start()
        self._control.keep_configurations()
        log.info("page_ready", url=f"{self._settings.public_url or _url(self._address)}/", wds_url=self._settings.wds_url)
        self._welcome()

    def _worker_ends(self, _: Any, __: Any) -> None:
        if self._health is not None:
            self._health.stop()

    def _welcome(self) -> None:
        """While there is no administrator: make the link that makes one, for whoever sees our output or RUN_DIR."""
        secret = self._control.sign_in.first_link(internal("start"))
        path = self._control.welcome_file
        path.unlink(missing_ok=True)
        if secret is not None:
            link = self._control.link(secret)
            path.touch(0o600)
            path.write_text(f"{link}\n")
            # Other machines' logs are collected: there the link is asked for by whoever may run a command beside us.
            told = (
                f"this link makes the first administrator, once, within a day: {link}"
                if is_loopback(self._settings.host)
                else f"the first administrator's link is in {path}"
            )
            print(f"tapeline scp: nobody can sign in yet; {told}", flush=True)


def _url(address: tuple[str, int]) -> str:
    host, port = address
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
