"""Gives the controllers the page's HTML, and for a session the stream's address and a fresh token, never stored or logged."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from scp.settings import APPS, ScpSettings
from scp.tokens import Minter, signing_key
from service import metrics

PAGE = APPS / "_default" / "static" / "app" / "index.html"
NOT_BUILT = "The page is not built yet. Run: python -m scp.build\n"

minted = metrics.counter("scp", "tokens", "viewer tokens signed")


class Desk:
    """What the py4web controllers may use."""

    def __init__(self, settings: ScpSettings) -> None:
        self._wds_url = settings.wds_url
        self._minter = Minter(signing_key(settings.run_dir), settings.token_s)

    def session(self) -> dict[str, Any]:
        """Return {wds_url, token, expires_s, now_ms}. The page asks again before `expires_s` is over.

        `now_ms` is our time since the epoch: a browser's clock may be wrong, and ages are told by the difference.
        """
        now_s = time.time()
        token = self._minter.viewer("local", int(now_s))
        minted.inc()
        return {"wds_url": self._wds_url, "token": token.text, "expires_s": token.expires_s, "now_ms": round(now_s * 1000)}

    def page(self, path: Path = PAGE) -> str | None:
        """Return the page's HTML, or None while the front end is not built."""
        return path.read_text("utf-8") if path.is_file() else None
