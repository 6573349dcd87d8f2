"""Slows down whoever guesses: counts tries a window in the database, so that restarts and further control planes count on.

The rules are those of the package `limits`; only where it counts is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from limits import RateLimitItem, parse
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from scp.store.database import Store, StoreUnavailable

# A stranger who types wrong passwords for a name locks himself out long before he locks its owner out.
SIGN_IN_PAIR = parse("5 per 15 minutes")  # one name from one address
SIGN_IN_NAME = parse("30 per 15 minutes")  # one name from anywhere
SIGN_IN_ADDRESS = parse("60 per 15 minutes")  # any name from one address
CODES = parse("8 per 15 minutes")  # second factors of one person
LINKS = parse("20 per 15 minutes")  # one-time links tried from one address
RESETS_NAME = parse("3 per hour")
RESETS_ADDRESS = parse("20 per hour")
PROVIDER = parse("240 per 15 minutes")  # ways to the provider and back from one address: a whole office may have one
ORDERS = parse("120 per minute")  # paper orders, amends and cancels of one person
REQUESTS = parse("600 per minute")  # changes by one session or token


class TooMany(Exception):
    """Too many tries; `after_s` until the next one counts."""

    def __init__(self, after_s: int) -> None:
        super().__init__(f"too many tries, again in {after_s} s")
        self.after_s = after_s


class Throttle:
    """Counts tries by rule and by whom."""

    def __init__(self, store: Store, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._counter = SqlCounter(store, now_s)
        self._limiter = FixedWindowRateLimiter(self._counter)

    def count(self, *tries: tuple[RateLimitItem, tuple[str, ...]]) -> None:
        """Count a try for each (rule, whom).  Raises: TooMany when one of them is used up; StoreUnavailable."""
        refused = [try_ for try_ in tries if not self._limiter.hit(try_[0], *try_[1])]
        if refused:
            ends_s = max(self._limiter.get_window_stats(rule, *whom).reset_time for rule, whom in refused)
            raise TooMany(max(1, round(ends_s - self._now_s())))

    def forgive(self, rule: RateLimitItem, *whom: str) -> None:
        """Forget the tries: the last one was right."""
        self._limiter.clear(rule, *whom)

    def sweep(self) -> None:
        """Forget windows that are over."""
        self._counter.sweep()


class SqlCounter(Storage):
    """Where `limits` counts: one row a window; a try is one statement, so that no two are counted as one."""

    STORAGE_SCHEME = None

    def __init__(self, store: Store, now_s: Callable[[], float]) -> None:
        super().__init__()
        self._store = store
        self._now_s = now_s

    @property
    def base_exceptions(self) -> type[Exception]:
        return StoreUnavailable

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count `amount` more in the window of `key`, which ends `expiry` seconds after its first try."""
        now_s, mark = self._now_s(), self._store.mark
        text = (
            f"INSERT INTO throttle (name, hits, ends_s) VALUES ({mark}, {mark}, {mark}) ON CONFLICT (name) DO UPDATE SET "  # noqa: S608
            f"hits = CASE WHEN throttle.ends_s <= {mark} THEN excluded.hits ELSE throttle.hits + excluded.hits END, "
            f"ends_s = CASE WHEN throttle.ends_s <= {mark} THEN excluded.ends_s ELSE throttle.ends_s END RETURNING hits"
        )
        with self._store.transaction() as db:
            return int(db.executesql(text, (key[:200], amount, now_s + expiry, now_s, now_s))[0][0])

    def get(self, key: str) -> int:
        row = self._row(key)
        return int(row[0]) if row else 0

    def get_expiry(self, key: str) -> float:
        row = self._row(key)
        return float(row[1]) if row else self._now_s()

    def check(self) -> bool:
        return self._store.fault() is None

    def reset(self) -> int | None:
        with self._store.transaction() as db:
            db.executesql("DELETE FROM throttle")
        return None

    def clear(self, key: str) -> None:
        with self._store.transaction() as db:
            db.executesql(f"DELETE FROM throttle WHERE name = {self._store.mark}", (key[:200],))  # noqa: S608  # a placeholder

    def sweep(self) -> None:
        """Delete windows that are over."""
        with self._store.transaction() as db:
            db.executesql(f"DELETE FROM throttle WHERE ends_s <= {self._store.mark}", (self._now_s(),))  # noqa: S608  # a placeholder

    def _row(self, key: str) -> Any:
        text = f"SELECT hits, ends_s FROM throttle WHERE name = {self._store.mark} AND ends_s > {self._store.mark}"  # noqa: S608
        with self._store.transaction() as db:
            rows = db.executesql(text, (key[:200], self._now_s()))
        return rows[0] if rows else None
