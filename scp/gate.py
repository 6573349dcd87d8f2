"""Passes only safe HTTP requests on to the app, and gives every answer the same strict headers.

Invariant: nothing of the app runs for a Host that is not this machine (DNS rebinding), nothing is sent without the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from scp.settings import is_loopback
from service import metrics

# A proxy's headers change what py4web believes of host, address and app. No proxy stands before a loopback port.
UNTRUSTED = (
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_PY4WEB_APPNAME",
    "HTTP_X_SCRIPT_NAME",
)
HASHED_FILES = "/static/app/assets/"  # Vite puts a content hash into these names, so they never change

requests = metrics.counter("scp", "requests", "HTTP requests answered, by status", ("status",))


class Gate:
    """A WSGI middleware around the py4web app. `gift` is handed to the app as environ["tapeline.desk"]."""

    def __init__(self, app: WSGIApplication, wds_url: str, gift: object) -> None:
        self._app = app
        self._gift = gift
        self._headers = [
            ("Content-Security-Policy", policy(wds_url)),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
        ]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        guarded = self._guarded(environ["PATH_INFO"], start_response)
        if not host_allowed(environ.get("HTTP_HOST", "")):
            return refuse(guarded, "421 Misdirected Request", "This page answers to localhost and 127.0.0.1 only.")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return refuse(guarded, "405 Method Not Allowed", "Nothing here can be changed.", [("Allow", "GET, HEAD")])
        if environ["PATH_INFO"].startswith("/api/") and not same_origin(environ):
            return refuse(guarded, "403 Forbidden", "This call is for Tapeline's own page.")
        for name in UNTRUSTED:
            environ.pop(name, None)
        environ["tapeline.desk"] = self._gift
        return self._app(environ, guarded)

    def _guarded(self, path: str, start_response: StartResponse) -> StartResponse:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            requests.labels(status[:3]).inc()
            ours = [*self._headers, ("Cache-Control", cache_rule(path, status))]
            names = {name.lower() for name, _ in ours} | {"pragma", "expires"}
            return start_response(status, [pair for pair in headers if pair[0].lower() not in names] + ours, *error)

        return start


def policy(wds_url: str) -> str:
    """Return the Content-Security-Policy: own files only, and the one WebSocket."""
    parts = urlsplit(wds_url)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "font-src 'self'",
            "img-src 'self' data:",
            f"connect-src 'self' {parts.scheme}://{parts.netloc}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


def host_allowed(host: str) -> bool:
    """Tell whether the Host header names this machine; another site's name resolving to 127.0.0.1 is an attack."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return is_loopback(name)
    except ValueError:
        return False


def same_origin(environ: WSGIEnvironment) -> bool:
    """Tell whether the page itself asks: browsers send Sec-Fetch-Site always and Origin across origins; scripts neither."""
    if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") != "same-origin":
        return False
    origin = environ.get("HTTP_ORIGIN")
    return origin is None or origin == f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST', '')}"


def cache_rule(path: str, status: str) -> str:
    """Return Cache-Control: hashed files for ever, tokens and errors never, the rest only after asking again."""
    if path.startswith("/api/") or status[:1] not in "23":
        return "no-store"
    return "public, max-age=31536000, immutable" if path.startswith(HASHED_FILES) else "no-cache"


def refuse(start: StartResponse, status: str, why: str, more: Iterable[tuple[str, str]] = ()) -> list[bytes]:
    """Answer with one plain line."""
    body = f"{why}\n".encode()
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *more])
    return [body]
