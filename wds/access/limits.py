"""Enforces rates and connection limits. Over a connection limit the newcomer is refused, never a client already connected."""

from __future__ import annotations

from collections import Counter

SECOND_NS = 1_000_000_000


class TokenBucket:
    """`rate_s` tokens a second, at most `burst` saved up."""

    __slots__ = ("_at_ns", "_burst", "_rate_s", "_tokens")

    def __init__(self, rate_s: float, burst: int, now_ns: int) -> None:
        self._rate_s = rate_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at_ns = now_ns

    def take(self, now_ns: int, cost: float = 1.0) -> int:
        """Take `cost` tokens; return 0, or the milliseconds until they will be there (nothing is taken then)."""
        self._tokens = min(self._burst, self._tokens + max(0, now_ns - self._at_ns) * self._rate_s / SECOND_NS)
        self._at_ns = now_ns
        if self._tokens >= cost:
            self._tokens -= cost
            return 0
        return max(1, int((cost - self._tokens) / self._rate_s * 1000))


class Census:
    """Who is connected to this worker: in all, by address (with and without a token yet), by user."""

    def __init__(self, connections_max: int, per_address_max: int, unauthenticated_max: int, per_user_max: int) -> None:
        self._connections_max = connections_max
        self._per_address_max = per_address_max
        self._unauthenticated_max = unauthenticated_max
        self._per_user_max = per_user_max
        self.connections = 0
        self._addresses: Counter[str] = Counter()
        self._strangers: Counter[str] = Counter()
        self._users: Counter[str] = Counter()

    def full(self) -> bool:
        """Whether the worker has no room for anybody."""
        return self.connections >= self._connections_max

    def enter(self, address: str) -> bool:
        """Count a new, unauthenticated connection; return False (and do not count it) when the address has too many."""
        if self._addresses[address] >= self._per_address_max or self._strangers[address] >= self._unauthenticated_max:
            return False
        self.connections += 1
        self._addresses[address] += 1
        self._strangers[address] += 1
        return True

    def know(self, address: str, user: str) -> bool:
        """The connection proved to be `user`; return False (and keep it a stranger) when the user has too many."""
        if self._users[user] >= self._per_user_max:
            return False
        self._users[user] += 1
        _less(self._strangers, address)
        return True

    def leave(self, address: str, user: str | None) -> None:
        """Uncount a connection that `enter` counted; `user` None when it never proved who it is."""
        self.connections -= 1
        _less(self._addresses, address)
        if user is None:
            _less(self._strangers, address)
        else:
            _less(self._users, user)


class Lobby:
    """Counts sockets that have not finished their request, by address."""

    def __init__(self, per_address_max: int) -> None:
        self._per_address_max = per_address_max
        self._addresses: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count a new socket; return False (and do not count it) when the address has too many."""
        if self._addresses[address] >= self._per_address_max:
            return False
        self._addresses[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Uncount a socket that `enter` counted."""
        _less(self._addresses, address)


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]  # the map holds only who is here: its size is bounded by the connections
