"""Checks that a symbol's partition never changes, because queues and caches are named after it."""

from __future__ import annotations

import pytest

from service import partition
from service.partition import Partitioner, partition_of


@pytest.mark.parametrize(("symbol", "expected"), [("AAPL", 4), ("MSFT", 3), ("BTC-USD", 0), ("", 0), ("O:SPY251219C00650000", 2)])
def test_a_symbol_keeps_its_partition_between_releases(symbol: str, expected: int) -> None:
    """The numbers are fixed: a change would split a symbol's history over two queues."""
    assert partition_of(symbol, 8) == expected


def test_a_remembered_partition_is_the_computed_one() -> None:
    """The dictionary is only faster."""
    remembered = Partitioner(16)
    for symbol in ("AAPL", "X:BTC-USD", "AAPL", "Ω"):
        assert remembered.of(symbol) == partition_of(symbol, 16)


def test_the_memory_of_symbols_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of invented symbols does not grow the process."""
    monkeypatch.setattr(partition, "SYMBOLS_REMEMBERED_MAX", 10)
    remembered = Partitioner(4)
    for number in range(100):
        assert remembered.of(f"S{number}") == partition_of(f"S{number}", 4)
    assert len(remembered._known) <= 10
