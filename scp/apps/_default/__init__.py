"""Registers pages and API with py4web. Static files are py4web's own route (static/). Who may do what: scp/security/rules.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from py4web import action, request, response

from scp.api import federation
from scp.api.calls import Route
from scp.api.routes import ROUTES, answer
from scp.desk import NOT_BUILT


def index() -> str:
    """Return the page."""
    return _page("app")


def door() -> str:
    """Return the page for signing in, and for one-time links."""
    return _page("door")


def docs() -> str:
    """Return the page that shows the API's description."""
    return _page("docs")


def operate() -> str:
    """Return the operators' pages."""
    return _page("operate")


def session() -> dict[str, Any]:
    """Return the stream's address and a token for it."""
    made: dict[str, Any] = request.environ["tapeline.desk"].session(request.environ["tapeline.caller"])
    return made


def to_provider() -> str:
    """Send the browser to the provider."""
    return _browser_page(federation.go(_desk().control, request.environ["tapeline.asked"]))


def from_provider() -> str:
    """Take it back from there."""
    return _browser_page(federation.back(_desk().control, request.environ, request.environ["tapeline.asked"]))


def _browser_page(page: federation.Page) -> str:
    response.status = page.status
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    for name, value in page.headers:
        response.headers[name] = value
    if page.secret is not None:
        response.headers["Set-Cookie"] = _desk().cookie(page.secret)
    return page.body


def _desk() -> Any:
    return request.environ["tapeline.desk"]


def _page(name: str) -> str:
    page: str | None = request.environ["tapeline.desk"].page(name)
    response.headers["Content-Type"] = "text/html; charset=utf-8" if page else "text/plain; charset=utf-8"
    response.status = 200 if page else 503
    return page or NOT_BUILT


def _serve(route: Route) -> Callable[..., bytes]:
    def call(**path: str) -> bytes:
        desk = request.environ["tapeline.desk"]
        status, headers, body, given = answer(route, desk.control, request.environ, path)
        response.status = status
        response.headers["Content-Type"] = "application/octet-stream"
        for name, value in headers:
            response.headers[name] = value
        if given is not None and given.stream is not None:
            request.environ["tapeline.stream"] = given.stream
        if given is not None and given.secret is not None:
            response.headers["Set-Cookie"] = desk.cookie(given.secret)
        return body

    call.__name__ = route.handler.__name__
    return call


# Called, not written as decorators: py4web is untyped, and this keeps the functions typed.
action("index", method="GET")(index)
action("sign-in", method="GET")(door)
action("sign-in/oidc", method="GET")(to_provider)
action("sign-in/oidc/callback", method="GET")(from_provider)
action("welcome", method="GET")(door)
action("docs", method="GET")(docs)
action("operate", method="GET")(operate)
action("api/session", method="GET")(session)
for one in (route for route in ROUTES if not route.path.endswith("/")):  # the framework takes one at the end by itself
    action(re.sub(r"\{(\w+)\}", r"<\1>", one.path.lstrip("/")), method=one.method)(_serve(one))
