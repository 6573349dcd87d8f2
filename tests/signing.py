"""Makes the first administrator of a control plane by its one-time link, as a new user does."""

from __future__ import annotations

import http.client
import json
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
