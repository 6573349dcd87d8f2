"""Keeps a partition's share of the boards that a plug-in ranks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import msgspec

from mdc.writer import Flush
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.analyzers.ranks import CALM_MS, row_of
from mdp.plugin import Plugin
from mdp.plugins.reports import Unusable

RANKED_MAX = 2_000  # symbols at a time: after a restart all are ranked again, and nobody shall wait for that
ROW_BYTES_MAX = 4_096


class Ranking:
    """Ranks symbols of which something changed, once a second. `rows_max` = length of a board."""

    def __init__(self, boards: Sequence[str], rows_max: int, quotes: QuoteAnalyzer) -> None:
        self._boards = boards
        self._rows_max = rows_max
        self._quotes = quotes
        self._touched: dict[str, None] = {}
        self._ranked: dict[str, dict[str, tuple[float, str]]] = {board: {} for board in boards}
        self._rows: dict[str, dict[str, msgspec.Raw]] = {board: {} for board in boards}
        self._written: dict[str, bytes] = {}
        self._changed: set[str] = set(boards)
        self._next_ms = 0

    def touch(self, symbol: str) -> None:
        """Have a symbol ranked again."""
        if self._boards:
            self._touched[symbol] = None

    def due(self, now_ms: int) -> bool:
        """Whether it is time to rank; also after the wall clock was put back."""
        if not self._boards or self._next_ms - CALM_MS <= now_ms < self._next_ms:
            return False
        self._next_ms = now_ms + CALM_MS
        return True

    def take(self, most: int) -> list[str]:
        """Return symbols that wait to be ranked; whoever takes them ranks them."""
        taken = list(self._touched)[:most]
        for symbol in taken:
            del self._touched[symbol]
        return taken

    def rank(self, symbol: str, plugin: Plugin, state: Any) -> None:
        """Ask the plug-in where a symbol belongs; without a state it is gone.  Raises: Unusable, what the plug-in raises."""
        quote = None if state is None else self._quotes.snapshot(symbol)
        for board in self._boards:
            rank = None if quote is None or quote.last is None else plugin.rank(board, symbol, state)
            if rank is None:
                if self._ranked[board].pop(symbol, None) is not None:
                    del self._rows[board][symbol]
                    self._changed.add(board)
                continue
            if not isinstance(rank, int | float) or not isfinite(rank):
                raise Unusable(f"rank of {symbol} on {board} is {rank!r}, not a finite number")
            assert quote is not None
            row = msgspec.to_builtins(row_of(symbol, quote))
            body = msgspec.json.encode({**plugin.columns(board, symbol, state), **row})
            if len(body) > ROW_BYTES_MAX:
                raise Unusable(f"a row of {len(body)} bytes on {board}; at most {ROW_BYTES_MAX}")
            msgspec.json.decode(body, type=msgspec.Raw)  # a plug-in may have put something raw into it
            self._ranked[board][symbol] = (-float(rank), symbol)
            self._rows[board][symbol] = msgspec.Raw(body)
            self._changed.add(board)

    def clear(self) -> None:
        """Nobody ranks any more: empty the share."""
        self._touched.clear()
        for board in self._boards:
            if self._ranked[board]:
                self._ranked[board].clear()
                self._rows[board].clear()
                self._changed.add(board)

    def rewrite(self) -> None:
        """The cache is new: write all shares again."""
        self._written.clear()
        self._changed.update(self._boards)
        self._next_ms = 0

    def write(self, flush: Flush) -> None:
        """Write the shares that changed."""
        for board in sorted(self._changed):
            rows, best = self._rows[board], sorted(self._ranked[board].values())[: self._rows_max]
            share = msgspec.json.encode([(-value, symbol, rows[symbol]) for value, symbol in best])
            if share != self._written.get(board):
                self._written[board] = share
                flush.add_board(board, share)
        self._changed.clear()
