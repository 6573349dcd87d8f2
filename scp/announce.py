"""Tells the data service, through the cache, whose sessions have ended: at once, and again each half second.

Again, because the cache may have been emptied, and because another control plane may have ended them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from mdc.connect import CacheUnavailable, open_cache
from mdc.revoked import KEPT_MS, Revoked
from scp.control import Control, sweep
from scp.store.database import StoreUnavailable

EVERY_S = 0.5
SWEEP_S = 3600.0
log = structlog.get_logger()


class Announcer:
    """Runs on the loop of the admin thread. `life_s` = how long a token may be good after its session ended."""

    def __init__(self, control: Control, mdc_url: str, life_s: int) -> None:
        self._control = control
        self._life_ms = (life_s + 60) * 1000
        self._revoked = Revoked(open_cache(mdc_url, "tapeline-scp", timeout_s=2.0))
        self._news: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.fault: str | None = None

    def now(self) -> None:
        """Tell at once. May be called from any thread."""
        if self._loop is not None and self._news is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    async def run(self) -> None:
        """Tell, wait, tell again."""
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        swept_s = 0.0
        while True:
            self._news.clear()
            fault = await self._tell()
            if fault and not self.fault:
                log.warning(
                    "ended_sessions_not_told",
                    why=fault,
                    fix="Make the cache answer; until then sockets stay open as long as their token",
                )
            self.fault = fault
            if time.monotonic() - swept_s > SWEEP_S:
                swept_s = time.monotonic()
                await asyncio.to_thread(sweep, self._control, int(time.time() * 1000))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._news.wait()

    async def _tell(self) -> str | None:
        try:
            ended = await asyncio.to_thread(self._ended)
            if ended:
                await self._revoked.tell(ended, max(KEPT_MS, self._life_ms))
        except StoreUnavailable as error:
            return f"the database does not answer: {error}"
        except CacheUnavailable as error:
            return f"the cache does not answer: {error}"
        return None

    def _ended(self) -> list[str]:
        since_ms = int(time.time() * 1000) - self._life_ms
        with self._control.store.transaction() as db:
            rows = db(db.revocation.at_ms > since_ms).select(
                db.revocation.session_id, orderby=~db.revocation.at_ms, limitby=(0, 20_000)
            )
        return [row.session_id for row in rows]
