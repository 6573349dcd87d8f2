"""Gives the controllers the pages' HTML, the session's cookie, and a token for the stream, never stored or logged."""

from __future__ import annotations

import time
from typing import Any

from scp.control import Control
from scp.security.door import Caller
from scp.security.roles import SCOPES
from scp.settings import APPS, ScpSettings
from service import metrics

PAGE = APPS / "_default" / "static" / "app" / "index.html"
DOCS = PAGE.parent / "docs" / "index.html"
OPERATE = PAGE.parent / "operate" / "index.html"
DOOR = PAGE.parent / "door" / "index.html"
NOT_BUILT = "The page is not built yet. Run: python -m scp.build\n"

minted = metrics.counter("scp", "tokens", "stream tokens signed")


class Desk:
    """What the py4web controllers may use."""

    def __init__(self, settings: ScpSettings, control: Control, port: int) -> None:
        self.control = control
        self._wds_url = settings.wds_url
        self._reference = bool(settings.rest_url)
        self._minter = control.minter
        self._cookie = cookie_name(settings, port)
        self._secure = settings.secure
        self._life_s = settings.session_s

    def session(self, caller: Caller) -> dict[str, Any]:
        """Return {wds_url, token, expires_s, now_ms, may, reference}. The page asks again before `expires_s` is over.

        `now_ms` is our time since the epoch: a browser's clock may be wrong, and ages are told by the difference. `may`: scopes.
        `reference`: whether company data and older candles can be asked for here.
        """
        now_s = time.time()
        session = caller.session.public_id if caller.session is not None else caller.token_id
        token = self._minter.token(caller.username, session, "operate" in caller.scopes, int(now_s))
        minted.inc()
        now_ms, may = round(now_s * 1000), sorted(caller.scopes & SCOPES.keys())
        return {
            "wds_url": self._wds_url, "token": token.text, "expires_s": token.expires_s, "now_ms": now_ms, "may": may,
            "reference": self._reference,
        }  # fmt: skip

    def page(self, name: str) -> str | None:
        """Return the HTML of a page (app, door, docs, operate), None while the front end is not built."""
        path = {"door": DOOR, "docs": DOCS, "operate": OPERATE}.get(name, PAGE)
        return path.read_text("utf-8") if path.is_file() else None

    def cookie(self, secret: str) -> str:
        """Return the Set-Cookie header that keeps a session's secret in the browser; an empty one takes it away."""
        parts = [f"{self._cookie}={secret}", "Path=/", "HttpOnly", "SameSite=Strict", f"Max-Age={self._life_s if secret else 0}"]
        return "; ".join([*parts, "Secure"] if self._secure else parts)


def cookie_name(settings: ScpSettings, port: int) -> str:
    """Return the cookie's name. Browsers send a loopback host's cookies to all its ports: each run there has its own name."""
    return "__Host-tapeline" if settings.secure else f"tapeline-{port}"
