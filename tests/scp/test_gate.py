"""scp/gate.py: who gets through, and the headers that every answer carries."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from scp.gate import Gate, cache_rule, client_address, host_allowed, policy


def ask(path: str = "/", **environ: str) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Send one request through a gate; return status, headers and the environ that the app saw (empty: it never ran)."""
    seen: dict[str, Any] = {}
    got: list[Any] = []

    def app(given: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(given)
        start_response("200 OK", [("Content-Type", "text/html"), ("Cache-Control", "public"), ("Pragma", "cache")])
        return [b"page"]

    request: dict[str, Any] = {"PATH_INFO": path, "HTTP_HOST": "127.0.0.1:8000", "REMOTE_ADDR": "127.0.0.1"} | environ
    setup_testing_defaults(request)
    list(Gate(app, "ws://127.0.0.1:8400/v1/stream")(request, lambda *given: got.extend(given)))
    assert len({name.lower() for name, _ in got[1]}) == len(got[1]), "a header came twice"
    return got[0], dict(got[1]), seen


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"])
def test_this_machines_names_pass(host: str) -> None:
    """Whatever the port: a tunnel may change it."""
    assert host_allowed(host)


@pytest.mark.parametrize(
    "host", ["", "evil.com", "evil.com:8000", "127.0.0.1.evil.com", "localhost@evil.com", "[::1", "10.0.0.1"]
)
def test_other_names_are_misdirected(host: str) -> None:
    """A foreign name that resolves to 127.0.0.1 (DNS rebinding) never reaches the app."""
    status, headers, seen = ask(HTTP_HOST=host)
    assert status.startswith("421")
    assert "Content-Security-Policy" in headers
    assert not seen


def test_the_policy_allows_our_files_and_one_stream_only() -> None:
    """No inline script, no frame, no third party."""
    rules = dict(rule.split(" ", 1) for rule in policy("ws://127.0.0.1:8400/v1/stream").split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'"
    assert rules["connect-src"] == "'self' ws://127.0.0.1:8400"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert not any(word in " ".join(rules.values()) for word in ("unsafe", "http:", "https:", "*"))


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"])
def test_other_methods_are_refused(method: str) -> None:
    """No other site's page is ever told that it may send something (CORS)."""
    status, headers, seen = ask(REQUEST_METHOD=method)
    assert status.startswith("405")
    assert "POST" in headers["Allow"]
    assert not [name for name in headers if name.startswith("Access-Control")]
    assert not seen


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "desk.example.com:8443", "desk.example.com.evil.com", ""])
def test_with_a_public_address_only_that_name_passes(host: str) -> None:
    """The links, the cookie and the origin are that one's; a poisoned Host cannot change them."""
    assert host_allowed("DESK.example.com", "https://desk.example.com")
    assert not host_allowed(host, "https://desk.example.com")


def test_who_is_behind_a_trusted_proxy_is_the_last_stranger() -> None:
    """What stands left of it anybody may have written."""
    proxies = [ip_network("10.0.0.0/8")]
    said = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "1.2.3.4, 203.0.113.9, 10.0.0.2"}
    assert client_address(said, proxies) == "203.0.113.9"
    assert client_address({"REMOTE_ADDR": "10.0.0.1"}, proxies) == "10.0.0.1"
    assert client_address(said | {"REMOTE_ADDR": "192.0.2.1"}, proxies) is None
    assert client_address({"REMOTE_ADDR": "192.0.2.1"}, proxies) == "192.0.2.1"


@pytest.mark.parametrize(
    "foreign",
    [
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "same-site"},
        {"HTTP_SEC_FETCH_SITE": "none"},
        {"HTTP_ORIGIN": "http://evil.com"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": "http://127.0.0.1:9999"},
    ],
)
def test_another_site_gets_no_session(foreign: dict[str, str]) -> None:
    """The token is for the page of this very origin; a link or another port's page does not get it."""
    status, _, seen = ask("/api/session", **foreign)
    assert status.startswith("403")
    assert not seen


@pytest.mark.parametrize("own", [{}, {"HTTP_SEC_FETCH_SITE": "same-origin"}, {"HTTP_ORIGIN": "http://127.0.0.1:8000"}])
def test_the_page_itself_gets_a_session(own: dict[str, str]) -> None:
    """And the answer is not kept."""
    status, headers, seen = ask("/api/session", **own)
    assert status == "200 OK"
    assert headers["Cache-Control"] == "no-store"
    assert seen["tapeline.address"] == "127.0.0.1"


def test_a_proxys_headers_are_not_believed() -> None:
    """py4web would take host, address and app from them: from who is no proxy of ours they are refused, the rest is dropped."""
    for name in ("HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_FORWARDED"):
        status, _, seen = ask(**{name: "evil.com"})
        assert (status[:3], seen) == ("400", {})
    _, _, seen = ask(HTTP_X_PY4WEB_APPNAME="/_dashboard")
    assert not [name for name in seen if name.startswith(("HTTP_X_FORWARDED", "HTTP_X_PY4WEB"))]


@pytest.mark.parametrize(
    ("path", "status", "rule"),
    [
        ("/api/session", "200 OK", "no-store"),
        ("/", "503 Service Unavailable", "no-store"),
        ("/", "200 OK", "no-cache"),
        ("/static/app/theme.js", "200 OK", "no-cache"),
        ("/static/app/assets/index-Dx4kXJAl.js", "200 OK", "private, max-age=31536000, immutable"),
        ("/static/app/assets/gone.js", "404 Not Found", "no-store"),
    ],
)
def test_only_hashed_files_are_kept(path: str, status: str, rule: str) -> None:
    """Tokens and errors are never stored, the page is asked for again, files with a hash in their name are kept."""
    assert cache_rule(path, status) == rule


def test_the_apps_own_cache_headers_do_not_survive() -> None:
    """py4web says `private` and `Pragma: cache` of static files."""
    _, headers, _ = ask()
    assert headers["Cache-Control"] == "no-cache"
    assert "Pragma" not in headers
