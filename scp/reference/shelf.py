"""Keeps answers for a while: each with the time until which it is fresh, the least used going first. Pure but for a lock.

Invariant: the weights of what is kept never add up to more than `weight_max`.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any, NamedTuple


class Kept(NamedTuple):
    """A value, when it was said (ms), until when it is fresh (ms)."""

    value: Any
    at_ms: int
    until_ms: int
    weight: int

    def fresh(self, now_ms: int) -> bool:
        return now_ms < self.until_ms


class Shelf:
    """Answers by name. What is not fresh any more stays as long as there is room: it may be all that is known."""

    def __init__(self, weight_max: int) -> None:
        self._weight_max = weight_max
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._weight = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: str) -> Kept | None:
        """Return what is kept under a name."""
        with self._lock:
            found = self._kept.get(name)
            if found is not None:
                self._kept.move_to_end(name)
            return found

    def put(self, name: str, value: Any, now_ms: int, until_ms: int, weight: int = 1) -> None:
        """Keep a value; one that is heavier than the whole shelf is not kept."""
        with self._lock:
            if (old := self._kept.pop(name, None)) is not None:
                self._weight -= old.weight
            if weight > self._weight_max:
                return
            self._kept[name] = Kept(value, now_ms, until_ms, weight)
            self._weight += weight
            while self._weight > self._weight_max:
                _, oldest = self._kept.popitem(last=False)
                self._weight -= oldest.weight
