"""Asks admin ports and the exchange's gateway over HTTP: bounded in time and size, no redirects, no proxy of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx
import msgspec

from service.errors import UNREADABLE

ANSWER_BYTES_MAX = 8 << 20
CONNECT_S = 1.0


class Reply(NamedTuple):
    """An answer: status, headers, body."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def document(self) -> Any:
        """Return the JSON in it; None when there is none."""
        try:
            return msgspec.json.decode(self.body)
        except UNREADABLE:
            return None

    @property
    def words(self) -> str:
        """Return what it says in words."""
        found = self.document
        words = found.get("detail", "") if isinstance(found, dict) else ""
        return str(words or f"HTTP status {self.status}")[:400]


class Unreachable(Exception):
    """Nobody answered, or with something that is no answer; the text says what."""


class Redirected(Unreachable):
    """It answered, and sends us elsewhere, where we do not go."""


class Remote:
    """A client for one loop, made on first use. Every call has the deadline of whoever awaits it."""

    def __init__(self, connect_s: float = CONNECT_S) -> None:
        self._connect_s = connect_s
        self._http: httpx.AsyncClient | None = None

    async def ask(
        self,
        method: str,
        url: str,
        token: str = "",
        body: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request, `body` as JSON.  Raises: Unreachable; TimeoutError by whoever set the deadline."""
        if self._http is None:
            limits = httpx.Limits(max_connections=256, max_keepalive_connections=0)
            timeout = httpx.Timeout(None, connect=self._connect_s)
            self._http = httpx.AsyncClient(follow_redirects=False, trust_env=False, limits=limits, timeout=timeout)
        sent = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        content = None if body is None else msgspec.json.encode(body)
        if content is not None:
            sent["Content-Type"] = "application/json"
        chunks, size = [], 0
        try:
            async with self._http.stream(method, url, params=params, content=content, headers=sent) as answer:
                async for chunk in answer.aiter_bytes():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > ANSWER_BYTES_MAX:
                        raise Unreachable(f"its answer has more than {ANSWER_BYTES_MAX >> 20} MiB")
        except httpx.HTTPError as error:
            raise Unreachable(str(error) or type(error).__name__) from None
        if 300 <= answer.status_code < 400:
            raise Redirected("it answers with a redirect, which is not followed")
        return Reply(answer.status_code, answer.headers, b"".join(chunks))
