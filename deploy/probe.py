"""Asks a component's admin port and returns its JSON answer, or None when there is none."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

ANSWER_S_MAX = 2.0


async def ask(port: int, path: str, token: str = "") -> dict[str, Any] | None:
    """Return the JSON object at `path` of a loopback port, whatever the HTTP status; None when nobody answers with one."""
    return await asyncio.to_thread(_ask, f"http://127.0.0.1:{port}{path}", token)


def _ask(url: str, token: str) -> dict[str, Any] | None:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310 - always http to loopback
    try:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S_MAX) as answer:  # noqa: S310 - as above
                body = answer.read()
        except urllib.error.HTTPError as refused:  # 503 of /readyz carries the reasons
            body = refused.read()
        found = json.loads(body)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
