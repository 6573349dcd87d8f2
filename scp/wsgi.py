"""Builds the WSGI app: py4web with our one app, without its dashboard, behind the gate."""

from __future__ import annotations

import contextlib
import io
import logging
import uuid
from typing import Any
from wsgiref.types import WSGIApplication

import structlog
from py4web import core

from scp.desk import Desk
from scp.gate import Gate
from scp.settings import APPS, ScpSettings

log = structlog.get_logger()


class LoggedErrors:
    """py4web's error tickets as log lines: its own store keeps whole requests, with headers, in SQLite."""

    def log(self, app_name: str, snapshot: dict[str, Any]) -> str:
        """Log the traceback and return the ticket's number, which the error page shows."""
        ticket = uuid.uuid4().hex[:12]
        log.error("request_failed", app=app_name, ticket=ticket, traceback=snapshot.get("traceback"))
        return ticket


def application(settings: ScpSettings) -> WSGIApplication:
    """Load py4web's apps folder and return the guarded app.  Raises: RuntimeError when an app does not import."""
    folder = settings.run_dir.resolve() / "scp"
    folder.mkdir(parents=True, exist_ok=True)
    # py4web puts its session secret and error store here; the default is inside the source tree.
    core.DEFAULTS["PY4WEB_SERVICE_FOLDER"] = str(folder)
    core.DEFAULTS["PY4WEB_SERVICE_DB_URI"] = "sqlite:memory"
    core.error_logger.plugins["_default"] = LoggedErrors()
    level = logging.getLogger().level
    with contextlib.redirect_stdout(io.StringIO()):  # "[X] loaded _default" is not a log line
        app = core.wsgi(apps_folder=str(APPS), logging_level=level, app_names="_default")
    if failed := core.Reloader.ERRORS.get("_default"):
        raise RuntimeError(f"the py4web app does not import:\n{failed}")
    return Gate(app, settings.wds_url, Desk(settings))
