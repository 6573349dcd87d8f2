"""Decides when the next question may be asked: by the vendor's rate, pauses after failures and a circuit breaker."""

from __future__ import annotations

from service.breaker import Breaker

FAILURES_MAX, OPEN_S = 3, 30.0
PAUSE_S, PAUSE_S_MAX = 1.0, 60.0
LIMITED_S = 60.0  # at least so long after "too many requests"


class Pace:
    """Times are seconds of any clock that never goes back. `rate` = questions a minute."""

    def __init__(self, rate: float) -> None:
        self._spacing_s = 60.0 / rate
        self._breaker = Breaker(FAILURES_MAX, OPEN_S)
        self._next_s = 0.0
        self._failures = 0

    def wait_s(self, now_s: float) -> float:
        """Return how long to wait before asking, 0 = now; 0 must be followed by `asked`, and then by its outcome."""
        if now_s < self._next_s:
            return self._next_s - now_s
        return 0.0 if self._breaker.allows(now_s) else 1.0

    def asked(self, now_s: float) -> None:
        self._next_s = now_s + self._spacing_s

    def succeeded(self, now_s: float) -> None:
        self._breaker.succeeded(now_s)
        self._failures = 0

    def failed(self, now_s: float, limited: bool = False) -> None:
        self._breaker.failed(now_s)
        pause_s = min(PAUSE_S_MAX, PAUSE_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self._next_s = max(self._next_s, now_s + (max(LIMITED_S, pause_s) if limited else pause_s))
