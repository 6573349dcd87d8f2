"""Asks the exchange's gateway for stores, instruments and books: HTTP/1.1 and JSON, one call a question.

A thread asks, so the event loop never waits; the connection is direct, whatever proxies the environment names, and no answer
sends us, and our token, to another server.
"""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from mdl.feeds.exchange_market import UNREADABLE, Instrument, Snapshot, Store
from mdl.feeds.feed import FeedClosed

ANSWER_S_MAX = 3.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Without this, urllib follows a redirect anywhere and takes the Authorization header along."""

    def redirect_request(self, *_: Any) -> None:
        return None


_open = urllib.request.build_opener(urllib.request.ProxyHandler({}), _StayHere).open

T = TypeVar("T")


class Gateway:
    """One exchange. Every call raises FeedClosed when it does not answer, or answers something else than expected."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def create_store(self, store: str) -> Store:
        """Make a message store, or find it made; nothing is kept for us before."""
        return await self._ask("PUT", f"/MessageStore?storeId={_text(store)}", Store)

    async def purge(self, store: str, index: int) -> None:
        """Give back all messages up to `index`, which stays so."""
        await asyncio.to_thread(self._call, "DELETE", f"/MessageStore/Purge?storeId={_text(store)}&messageIndex={index}")

    async def instruments(self) -> list[Instrument]:
        """Return all contracts."""
        return await self._ask("GET", "/Instrument", list[Instrument])

    async def book(self, symbol: str) -> Snapshot:
        """Return all levels of a symbol and the index of the last command in them."""
        return await self._ask("GET", f"/OrderBook?symbol={_text(symbol)}&depth=0", Snapshot)

    def joined_url(self, store: str, last_seen: int | None) -> str:
        """Return the address of a store's messages after `last_seen`; None = of all that it holds."""
        since = "" if last_seen is None else f"&lastSeen={last_seen}"
        return f"{self.url.replace('http', 'ws', 1)}/joined?storeId={_text(store)}{since}"

    async def _ask(self, method: str, path: str, kind: type[T]) -> T:
        body = await asyncio.to_thread(self._call, method, path)
        try:
            return msgspec.json.decode(body, type=kind)
        except UNREADABLE as error:
            raise FeedClosed(f"{method} {path} of the exchange: unexpected answer: {error}") from None

    def _call(self, method: str, path: str) -> bytes:
        request = urllib.request.Request(self.url + path, method=method, headers=self.headers)  # noqa: S310  # the settings allow http(s) only
        try:
            with _open(request, timeout=ANSWER_S_MAX) as answer:
                return bytes(answer.read(ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as refused:
            detail = refused.read(300).decode(errors="replace")
            raise FeedClosed(f"{method} {path} of the exchange: {refused.code} {detail}".rstrip()) from None
        except urllib.error.URLError as error:
            raise FeedClosed(f"the exchange at {self.url} cannot be reached: {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            raise FeedClosed(f"the exchange at {self.url} did not answer: {error!r}") from None


def _text(value: str) -> str:
    """Return a query value; the store without a name is written as two quotation marks."""
    return quote(value or '""', safe="")
