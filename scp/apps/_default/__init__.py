"""Serves the page at / and its session at /api/session. Static files are py4web's own route (static/)."""

from __future__ import annotations

from typing import Any

from py4web import action, request, response

from scp.desk import NOT_BUILT


def index() -> str:
    """Return the page."""
    page: str | None = request.environ["tapeline.desk"].page()
    response.headers["Content-Type"] = "text/html; charset=utf-8" if page else "text/plain; charset=utf-8"
    response.status = 200 if page else 503
    return page or NOT_BUILT


def session() -> dict[str, Any]:
    """Return the stream's address and a viewer token."""
    made: dict[str, Any] = request.environ["tapeline.desk"].session()
    return made


# Called, not written as decorators: py4web is untyped, and this keeps the functions typed.
action("index", method="GET")(index)
action("api/session", method="GET")(session)
