"""Computes a symbol's partition: crc32 mod N, the same number in every component and language."""

from __future__ import annotations

from zlib import crc32

LAYOUT = "mdc:partitions"  # the cache's key: how many partitions what it holds is sorted by
SYMBOLS_REMEMBERED_MAX = 200_000  # more distinct symbols than any vendor lists; past it the table starts again


class Partitioner:
    """Remember the partition of each symbol: a dict hit costs a third of encoding and hashing it again."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self._known: dict[str, int] = {}

    def of(self, symbol: str) -> int:
        """Return crc32(symbol as UTF-8) mod N."""
        found = self._known.get(symbol)
        if found is None:
            if len(self._known) >= SYMBOLS_REMEMBERED_MAX:
                self._known.clear()
            found = self._known[symbol] = partition_of(symbol, self.partitions)
        return found


def partition_of(symbol: str, partitions: int) -> int:
    """Return crc32(symbol as UTF-8) mod `partitions`."""
    return crc32(symbol.encode()) % partitions
