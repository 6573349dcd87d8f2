"""Ranks the quotes of a partition, its share of each board, and merges all shares into the boards of the market.

Invariant: the merged board is the true top of the market: a symbol in the market's top N is in its partition's top N.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from mdc.channels import BOARDS
from mdc.writer import Flush
from mdp.analyzer import Analyzer
from mdp.analyzers.quote import QuoteAnalyzer, QuoteData

SHARE_EVERY_MS = 250


class Row(msgspec.Struct, gc=False):
    """One row; fields in the order of mdc.channels.BOARD_FIELDS."""

    sym: str
    last: float
    change: float | None
    change_pct: float | None
    volume: int | float
    gap_pct: float | None


Rank = Callable[[QuoteData], float | None]  # higher is better, None = not on this board


def _volume(quote: QuoteData) -> float | None:
    return quote.volume or None


def _gain(quote: QuoteData) -> float | None:
    return quote.change_pct if quote.change_pct is not None and quote.change_pct > 0 else None


def _loss(quote: QuoteData) -> float | None:
    return -quote.change_pct if quote.change_pct is not None and quote.change_pct < 0 else None


def _gap(quote: QuoteData) -> float | None:
    gap = gap_pct(quote)
    return abs(gap) if gap else None


def gap_pct(quote: QuoteData) -> float | None:
    """Return how far the day opened from the previous close, in percent."""
    if quote.open is None or not quote.prev_close:
        return None
    return round(100 * (quote.open - quote.prev_close) / quote.prev_close, 4)


RANKS: dict[str, Rank] = {"volume": _volume, "gainers": _gain, "losers": _loss, "gappers": _gap}
assert tuple(RANKS) == BOARDS, "every board has a rank"

Share = list[tuple[float, str, msgspec.Raw]]  # (rank, symbol, row) best first
_share = msgspec.json.Decoder(Share)


class BoardsAnalyzer(Analyzer):
    """Ranks a partition's symbols every 250 ms, when a quote changed. `rows_max` is the length of a board."""

    name = "boards"

    def __init__(self, quotes: QuoteAnalyzer, rows_max: int) -> None:
        super().__init__()
        self._quotes = quotes
        self._rows_max = rows_max
        self._next_ms = 0
        self._now_ms = 0
        self._rounds = 0  # of the quotes that are ranked already
        self._ranked: dict[str, dict[str, tuple[float, str]]] = {board: {} for board in RANKS}  # symbol → what it is sorted by
        self._rows: dict[str, msgspec.Raw] = {}
        self._written: dict[str, bytes] = {}
        self._encode = msgspec.json.Encoder().encode

    def on_time(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def collect(self, flush: Flush) -> None:
        if flush.only is not None or (self._now_ms < self._next_ms and self._now_ms >= self._next_ms - SHARE_EVERY_MS):
            return
        if self._quotes.rounds == self._rounds:
            return
        self._rounds = self._quotes.rounds
        self._next_ms = self._now_ms + SHARE_EVERY_MS
        changed = self._changed_rows()
        for board, rank in RANKS.items():
            if self._rank(board, rank, changed) or board not in self._written:
                share = self._share(board)
                if share != self._written.get(board):
                    self._written[board] = share
                    flush.add_share(f"board:{board}", share)

    def rewrite(self) -> None:
        self._written.clear()
        self._next_ms = self._rounds = 0

    def _changed_rows(self) -> list[tuple[str, QuoteData | None]]:
        """Take the symbols whose totals changed, and keep their rows: most stand still between two rankings."""
        known = self._quotes.quotes
        changed: list[tuple[str, QuoteData | None]] = []
        for symbol in self._quotes.unranked:
            quote = known.get(symbol)
            if quote is None or quote.last is None:
                self._rows.pop(symbol, None)
                changed.append((symbol, None))
                continue
            row = Row(symbol, quote.last, quote.change, quote.change_pct, quote.volume, gap_pct(quote))
            self._rows[symbol] = msgspec.Raw(self._encode(row))
            changed.append((symbol, quote))
        self._quotes.unranked.clear()
        return changed

    def _rank(self, board: str, rank: Rank, changed: Sequence[tuple[str, QuoteData | None]]) -> bool:
        """Rank the changed symbols; return whether one of them is, or was, on this board."""
        ranked, touched = self._ranked[board], False
        for symbol, quote in changed:
            value = None if quote is None else rank(quote)
            if value is not None:
                ranked[symbol] = (-value, symbol)
                touched = True
            elif ranked.pop(symbol, None) is not None:
                touched = True
        return touched

    def _share(self, board: str) -> bytes:
        rows, best = self._rows, sorted(self._ranked[board].values())[: self._rows_max]
        return self._encode([(-value, symbol, rows[symbol]) for value, symbol in best])


def _order(item: tuple[float, str, object]) -> tuple[float, str]:
    return (-item[0], item[1])  # equal ranks by symbol, so that a board does not flicker


def merge_shares(shares: Sequence[bytes], rows_max: int) -> bytes:
    """Return the data of a board, `{"order":[…],"rows":{…}}`, from the shares of all partitions."""
    best = sorted((item for share in shares for item in _share.decode(share)), key=_order)[:rows_max]
    return msgspec.json.encode({"order": [symbol for _, symbol, _ in best], "rows": {symbol: row for _, symbol, row in best}})
