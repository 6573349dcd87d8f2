"""Keeps the answers to commands that were asked with an idempotency key, so that a retry changes nothing and is answered alike.

An answer is kept for three days, whatever comes; there is room for 64 MB of them. Who asks with a new key when that is full is
refused: forgetting a key early would let a retry do again what is done.
"""

from __future__ import annotations

import msgspec

DAY_NS = 86_400 * 10**9
KEPT_NS = 3 * DAY_NS
KEYS_BYTES_MAX = 64 << 20
KEY_BYTES = 300  # what a kept answer needs besides its texts
FORGOTTEN_MAX = 4  # with one new key: who grows by one forgets some


class Kept(msgspec.Struct, array_like=True):
    """One answer: what was asked (hash, hex), when and as which command, the status and the body."""

    key: str
    digest: str
    time_ns: int
    index: int
    status: int
    body: str


class Keys:
    """The answers, oldest first."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether no more are taken until the oldest are three days old."""
        return self.bytes >= KEYS_BYTES_MAX

    def add(self, one: Kept) -> None:
        """Keep an answer, and forget some that are too old. Cost: O(1)."""
        assert one.key not in self.kept, f"key {one.key} is used twice"
        self.kept[one.key] = one
        self.bytes += _bytes_of(one)
        self._forget(one.time_ns)

    def _forget(self, now_ns: int) -> None:
        for _ in range(FORGOTTEN_MAX):
            oldest = next(iter(self.kept.values()))
            if oldest.time_ns > now_ns - KEPT_NS:
                return
            self.bytes -= _bytes_of(self.kept.pop(oldest.key))


def _bytes_of(one: Kept) -> int:
    return KEY_BYTES + len(one.key) + len(one.body)
