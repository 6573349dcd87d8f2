"""Builds the WSGI app: py4web with our one app, without its dashboard, behind the gate and the door."""

from __future__ import annotations

import contextlib
import io
import logging
import uuid
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from py4web import core

from scp.api.routes import rules
from scp.control import Control
from scp.desk import Desk, cookie_name
from scp.gate import Gate
from scp.handover import Handed
from scp.problems import CONTENT_TYPE, Problem
from scp.security.door import Door
from scp.settings import APPS, ScpSettings

IN_WORDS = {
    404: ("not_found", "There is nothing here; /openapi.json lists what there is"),
    405: ("method_not_allowed", "This path has other methods; /openapi.json lists them"),
    500: ("internal", "Something broke here; the log has it under this request_id"),
}
log = structlog.get_logger()


class LoggedErrors:
    """py4web's error tickets as log lines: its own store keeps whole requests, with headers, in SQLite."""

    def log(self, app_name: str, snapshot: dict[str, Any]) -> str:
        """Log the traceback and return the ticket's number, which the error page shows."""
        ticket = uuid.uuid4().hex[:12]
        log.error("request_failed", app=app_name, ticket=ticket, traceback=snapshot.get("traceback"))
        return ticket


def in_our_words(app: WSGIApplication, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """Answer as the app does, but for the framework's own pages of 404, 405 and 500: these are problems like all others."""
    said: list[tuple[str, list[tuple[str, str]]]] = []

    def hold(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], object]:
        said[:] = [(status, headers)]
        return lambda _: None

    given: Iterable[bytes] = app(environ, hold)
    status, headers = said[0]
    number = int(status[:3])
    ours = any(name.lower() == "content-type" and value.startswith(CONTENT_TYPE) for name, value in headers)
    if number in IN_WORDS and not ours:
        if hasattr(given, "close"):
            given.close()
        return Problem(number, *IN_WORDS[number]).answer(start, environ["tapeline.asked"].request_id)
    place = environ.pop("tapeline.stream", None)
    if place is not None and number == 200 and environ["REQUEST_METHOD"] == "GET" and "gunicorn.socket" in environ:
        start(status, [(name, value) for name, value in headers if name.lower() != "content-length"])
        return Handed(environ, place, environ["tapeline.desk"].control.fleet.begin)
    if place is not None:
        place.leave()
    start(status, headers)
    return given


def application(settings: ScpSettings, control: Control, port: int) -> WSGIApplication:
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
    desk = Desk(settings, control, port)

    def with_desk(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        environ["tapeline.desk"] = desk
        return in_our_words(app, environ, start)

    door = Door(with_desk, rules(), control.store, control.lives, cookie_name(settings, port))
    return Gate(door, settings.wds_url, settings.public_url, settings.proxies)
