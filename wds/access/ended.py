"""Keeps which sessions of the control plane have ended, as the cache says; while the cache is away, as it said last."""

from __future__ import annotations

from mdc.connect import CacheUnavailable, open_cache
from mdc.revoked import Revoked


class Ended:
    """The sessions that have ended, as long as a token of them may be good."""

    def __init__(self, mdc_url: str) -> None:
        self._redis = open_cache(mdc_url, "tapeline-wds-ended", timeout_s=2.0)
        self._revoked = Revoked(self._redis)
        self._sessions: frozenset[str] = frozenset()

    def has(self, session: str) -> bool:
        """Whether this session has ended."""
        return session in self._sessions

    async def refresh(self) -> bool:
        """Ask the cache; return whether there is news."""
        try:
            found = await self._revoked.read()
        except CacheUnavailable:
            return False
        news = found - self._sessions
        self._sessions = found
        return bool(news)

    async def close(self) -> None:
        await self._redis.aclose()
