"""Makes the first administrator of a control plane by its one-time link, as a new user does."""

from __future__ import annotations

import http.client
import json
import secrets
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

from tests.waiting import until_sync

ADMIN, PASSWORD = "ann", "green tractors at dawn"


def first_admin(port: int, run_dir: Path) -> dict[str, Any]:
    """Use the link in `run_dir` and return the session's cookie as browsers' automation takes it."""
    path = run_dir / "welcome.url"
    link = until_sync(lambda: path.is_file() and path.read_text().strip(), 20, "the first administrator's link").partition("#")[2]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = json.dumps({"link": link, "username": ADMIN, "password": PASSWORD})
    connection.request("POST", "/api/v1/links/use", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    assert answer.status == 200, text
    connection.close()
    return browser_cookie(answer.getheader("Set-Cookie") or "", port)


def browser_cookie(header: str, port: int) -> dict[str, Any]:
    """Return a Set-Cookie header in the form of Playwright's add_cookies."""
    (name, morsel), *_ = SimpleCookie(header).items()
    return {"name": name, "value": morsel.value, "url": f"http://127.0.0.1:{port}/", "httpOnly": True, "sameSite": "Strict"}


def another(port: int, admin: dict[str, Any], role: str) -> dict[str, Any]:
    """Invite somebody with a role, as the administrator with this cookie, and return their cookie once they have a password."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def ask(method: str, path: str, body: Any = None, **headers: str) -> tuple[Any, str]:
        given = {name.replace("_", "-"): value for name, value in headers.items()} | {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), given)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        assert answer.status < 300, document
        return document, answer.getheader("Set-Cookie") or ""

    cookie = f"{admin['name']}={admin['value']}"
    me, _ = ask("GET", "/api/v1/me", Cookie=cookie)
    name = f"{role}-{secrets.token_hex(3)}"
    made, _ = ask("POST", "/api/v1/users", {"username": name, "role": role}, Cookie=cookie, X_CSRF_Token=me["csrf"])
    _, given = ask("POST", "/api/v1/links/use", {"link": made["link"].partition("#")[2], "password": PASSWORD})
    connection.close()
    return browser_cookie(given, port)
