"""Passes on only requests that are meant for us, and gives every answer the same strict headers.

Invariant: nothing of the app runs for a Host that is not ours (DNS rebinding), for a proxy's headers from who is no proxy of
ours, or for a change that another site's page sends; nothing is sent without the policy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from scp.settings import Network, is_loopback
from service import metrics

# A proxy's headers change what py4web believes of host, address and app; we read one of them, from proxies that we trust.
PROXY_HEADERS = (
    "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PORT", "HTTP_FORWARDED",
)  # fmt: skip
OTHERS = ("HTTP_X_PY4WEB_APPNAME", "HTTP_X_SCRIPT_NAME")
HASHED_FILES = tuple(
    f"/static/app/{page}assets/" for page in ("", "door/", "operate/")
)  # a content hash is in these names, so they never change
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

requests = metrics.counter("scp", "requests", "HTTP requests answered, by status", ("status",))


class Gate:
    """A WSGI middleware around everything. `public_url` empty = this machine's names, on any port (a tunnel may change it)."""

    def __init__(self, app: WSGIApplication, wds_url: str, public_url: str = "", proxies: Sequence[Network] = ()) -> None:
        self._app = app
        self._public_url = public_url
        self._proxies = proxies
        self._policy, self._docs_policy = policy(wds_url), policy(wds_url, foreign_page=True)
        self._headers = [
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
        ]
        if public_url.startswith("https://"):
            self._headers.append(("Strict-Transport-Security", "max-age=31536000"))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        guarded = self._guarded(environ["PATH_INFO"], start_response)
        if not host_allowed(environ.get("HTTP_HOST", ""), self._public_url):
            return refuse(guarded, "421 Misdirected Request", f"This page answers to {self._names()} only.")
        if environ["REQUEST_METHOD"] not in METHODS:
            return refuse(guarded, "405 Method Not Allowed", f"Only {', '.join(METHODS)}.", [("Allow", ", ".join(METHODS))])
        if environ["PATH_INFO"].startswith("/api/") and not same_origin(environ, self._public_url):
            return refuse(
                guarded, "403 Forbidden", "This call is for Tapeline's own page; scripts send an API token and no Origin."
            )
        address = client_address(environ, self._proxies)
        if address is None:
            return refuse(
                guarded,
                "400 Bad Request",
                "Proxy headers from an address that is not in SCP_TRUSTED_PROXIES; name the proxy there.",
            )
        environ["tapeline.address"] = address
        for name in (*PROXY_HEADERS, *OTHERS):
            environ.pop(name, None)
        return self._app(environ, guarded)

    def _names(self) -> str:
        return urlsplit(self._public_url).netloc or "localhost and 127.0.0.1"

    def _guarded(self, path: str, start_response: StartResponse) -> StartResponse:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            requests.labels(status[:3]).inc()
            allowed = self._docs_policy if path == "/docs" else self._policy
            ours = [("Content-Security-Policy", allowed), *self._headers, ("Cache-Control", cache_rule(path, status))]
            names = {name.lower() for name, _ in ours} | {"pragma", "expires"}
            return start_response(status, [pair for pair in headers if pair[0].lower() not in names] + ours, *error)

        return start


def policy(wds_url: str, foreign_page: bool = False) -> str:
    """Return the Content-Security-Policy: own files only, and the one WebSocket.

    A `foreign_page` (Swagger UI) writes styles and markup by itself; its scripts are files of ours all the same.
    """
    parts = urlsplit(wds_url)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self' 'unsafe-inline'" if foreign_page else "style-src 'self'",
            "font-src 'self'",
            "img-src 'self' data:",
            f"connect-src 'self' {parts.scheme}://{parts.netloc}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            *(() if foreign_page else ("require-trusted-types-for 'script'",)),
        )
    )


@lru_cache(256)
def host_allowed(host: str, public_url: str = "") -> bool:
    """Tell whether the Host header names us; another site's name resolving to our address is an attack."""
    if public_url:
        return host.lower() == urlsplit(public_url).netloc
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return is_loopback(name)
    except ValueError:
        return False


def same_origin(environ: WSGIEnvironment, public_url: str = "") -> bool:
    """Tell whether the page itself asks: browsers send Sec-Fetch-Site always and Origin across origins; scripts neither."""
    if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") != "same-origin":
        return False
    origin = environ.get("HTTP_ORIGIN")
    return origin is None or origin == (public_url or f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST', '')}")


def client_address(environ: WSGIEnvironment, proxies: Sequence[Network]) -> str | None:
    """Return whose request it is: the peer, or whom a trusted proxy says it forwards for. None = headers of no proxy of ours."""
    peer = str(environ.get("REMOTE_ADDR", ""))
    trusted = any(_is_in(peer, network) for network in proxies)
    if not trusted:
        return None if any(name in environ for name in PROXY_HEADERS) else peer
    hops = [hop.strip() for hop in environ.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
    while hops and any(_is_in(hops[-1], network) for network in proxies):
        hops.pop()  # the right-most that is no proxy of ours is the client; what stands left of it anybody may have written
    return hops[-1][:64] if hops else peer


def _is_in(address: str, network: Network) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False


def cache_rule(path: str, status: str) -> str:
    """Return Cache-Control: hashed files for ever, answers and errors never, the rest only after asking again."""
    if path.startswith(("/api/", "/MessageStore", "/ExchangeWideControls")) or status[:1] not in "23":
        return "no-store"
    return "private, max-age=31536000, immutable" if path.startswith(HASHED_FILES) else "no-cache"


def refuse(start: StartResponse, status: str, why: str, more: Iterable[tuple[str, str]] = ()) -> list[bytes]:
    """Answer with one plain line."""
    body = f"{why}\n".encode()
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *more])
    return [body]
