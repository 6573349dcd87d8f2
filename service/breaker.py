"""Decides whether to call something remote now, by how the last calls ended: a circuit breaker that has no clock of its own.

    closed ──(failures_max failures in a row)──► open ──(open_s later)──► half-open ──(the probe succeeded)──► closed
                                                  ▲                           │
                                                  └───────(the probe failed)──┘

Only failures in a row count: a ratio needs a window, and what is guarded here either answers or is away. While it is open
nothing is called; half-open lets one call through, the probe, and everybody else waits for its result.
"""

from __future__ import annotations

from typing import Literal

BreakerState = Literal["closed", "open", "half-open"]
STATES: tuple[BreakerState, ...] = ("closed", "half-open", "open")  # as a gauge shows them: 0, 1, 2


class Breaker:
    """One circuit. Times are seconds of any clock that never goes back; every call that `allows` granted ends in one of
    `succeeded` and `failed`. Results of calls that began before it opened may still come: they change nothing.
    """

    def __init__(self, failures_max: int = 5, open_s: float = 10.0) -> None:
        if failures_max < 1 or open_s <= 0:
            raise ValueError(f"failures_max {failures_max} and open_s {open_s} must be above zero")
        self._failures_max = failures_max
        self._open_s = open_s
        self._failures = 0
        self._open_until_s: float | None = None  # None = closed
        self._probe_since_s: float | None = None
        self.opened = 0  # times it opened, for metrics

    def state(self, now_s: float) -> BreakerState:
        """Return what it is now."""
        if self._open_until_s is None:
            return "closed"
        return "open" if now_s < self._open_until_s else "half-open"

    def allows(self, now_s: float) -> bool:
        """Return whether to call now. Half-open grants one probe; a probe without a result for `open_s` is given up."""
        state = self.state(now_s)
        if state != "half-open":
            return state == "closed"
        if self._probe_since_s is not None and now_s < self._probe_since_s + self._open_s:
            return False
        self._probe_since_s = now_s
        return True

    def succeeded(self, now_s: float) -> None:
        """A call came back well."""
        if self.state(now_s) == "open":
            return
        self._failures, self._open_until_s, self._probe_since_s = 0, None, None

    def failed(self, now_s: float) -> None:
        """A call failed or was not answered in time."""
        state = self.state(now_s)
        if state == "open":
            return
        self._failures += 1
        if state == "half-open" or self._failures >= self._failures_max:
            self._open_until_s, self._probe_since_s = now_s + self._open_s, None
            self._failures = 0
            self.opened += 1
