"""Ranks the quotes of a partition, its share of each board, and merges all shares into the boards of the market.

Invariant: the merged board is the true top of the market. A partition tells only as many rows as of the market's best can be
its own (`share_rows`); should it have more of them, the board ends where it is not known what comes next.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence, Set

import msgspec

from mdc.writer import Flush
from mdp.analyzer import Analyzer
from mdp.analyzers.halts import HaltsAnalyzer
from mdp.analyzers.news import NewsAnalyzer
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.analyzers.ranks import BUILT_IN, CALM_MS, IDLE_MS, QUICK_MS, Board, Facts, row_of
from mdp.analyzers.stats import StatsAnalyzer

Share = list[tuple[float, str, msgspec.Raw]]  # (rank, symbol, row) best first
_share = msgspec.json.Decoder(Share)


def share_rows(rows_max: int, partitions: int) -> int:
    """Return how many rows a partition tells of a board.

    Symbols fall into partitions by a hash, so that of the market's best each has about as many: in less than one case of 10^12
    a partition has eight standard deviations (and eight rows, where that is little) more than the mean.
    """
    mean = rows_max / max(1, partitions)
    return min(rows_max, math.ceil(mean + 8 * math.sqrt(mean) + 8))


class BoardsAnalyzer(Analyzer):
    """Ranks a partition's symbols, each board at its own pace, when something of them changed. `rows_max` = length of a share.

    What nobody watches is ranked seldom: of thirteen boards a desk shows a few.
    """

    name = "boards"

    def __init__(
        self, quotes: QuoteAnalyzer, stats: StatsAnalyzer, halts: HaltsAnalyzer, rows_max: int,
        boards: Sequence[Board] = BUILT_IN, news: NewsAnalyzer | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._quotes, self._stats, self._halts, self._news = quotes, stats, halts, news or NewsAnalyzer()
        self._rows_max = rows_max
        self._boards = boards
        self.watched: Set[str] | None = None  # None = nobody has said
        self._paces = self._by_pace()
        self._next_ms = dict.fromkeys(self._paces, 0)  # pace → when it ranks next
        self._now_ms = 0
        self._rounds = 0  # of the quotes that are ranked already
        self._ranked: dict[str, dict[str, tuple[float, str]]] = {board.name: {} for board in boards}  # what each is sorted by
        self._touched: set[str] = set()  # boards whose share may have changed since it was written
        self._pending: dict[int, set[str]] = {pace: set() for pace in self._next_ms}  # changed since that pace ranked
        self._facts: dict[str, Facts] = {}
        self._rows: dict[str, msgspec.Raw] = {}  # as they are published; those that no share has shown yet are not made
        self._written: dict[str, bytes] = {}
        self._encode = msgspec.json.Encoder().encode

    def on_time(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def on_watched(self, boards: Set[str]) -> None:
        if boards == self.watched:
            return
        for pace in self._paces:  # whoever changes its pace has seen all that its company had still to see
            self._rank(pace)
        self.watched = boards
        self._paces = self._by_pace()
        self._next_ms = dict.fromkeys(self._paces, 0)

    def collect(self, flush: Flush) -> None:
        if flush.only is not None:
            return
        due = [pace for pace, boards in self._paces.items() if boards and self._due(pace)]
        if not due:
            return
        if self._quotes.rounds != self._rounds or self._stats.unranked or self._halts.unranked or self._news.unranked:
            self._rounds = self._quotes.rounds
            self._note_changed()
        for pace in due:
            self._next_ms[pace] = self._now_ms + pace
            self._rank(pace)
            self._write(flush, pace)

    def rewrite(self) -> None:
        self._written.clear()
        self._touched.update(self._ranked)
        self._next_ms = dict.fromkeys(self._next_ms, 0)

    def _due(self, pace: int) -> bool:
        """Whether that pace ranks now; also after the wall clock was put back."""
        due_ms = self._next_ms[pace]
        return self._now_ms >= due_ms or self._now_ms < due_ms - pace

    def _by_pace(self) -> dict[int, list[Board]]:
        paces: dict[int, list[Board]] = {QUICK_MS: [], CALM_MS: [], IDLE_MS: []}
        for board in self._boards:
            shown = self.watched is None or board.name in self.watched
            paces[board.every_ms if shown else IDLE_MS].append(board)
        return paces

    def _write(self, flush: Flush, pace: int) -> None:
        for board in self._paces[pace]:
            if board.name in self._touched or board.name not in self._written:
                self._touched.discard(board.name)
                share = self._share(board.name)
                if share != self._written.get(board.name):
                    self._written[board.name] = share
                    flush.add_board(board.name, share)

    def _note_changed(self) -> None:
        """Take the symbols of which something changed, and keep their rows: most stand still between two rankings."""
        changed = self._quotes.unranked | self._stats.unranked | self._halts.unranked | self._news.unranked
        for unranked in (self._quotes.unranked, self._stats.unranked, self._halts.unranked, self._news.unranked):
            unranked.clear()
        for pending in self._pending.values():
            pending |= changed
        quotes, news_ms = self._quotes.quotes, self._news.newest_ms.get
        for symbol in changed:
            quote = quotes.get(symbol)
            self._rows.pop(symbol, None)
            if quote is None or quote.last is None:
                self._facts.pop(symbol, None)
                continue
            row = row_of(symbol, quote, news_ms(symbol))
            self._facts[symbol] = Facts(quote, row, self._stats.active.get(symbol), self._halts.halted_ms(symbol))

    def _rank(self, pace: int) -> None:
        """Rank what changed since the boards of this pace were ranked last."""
        pending, self._pending[pace] = self._pending[pace], set()
        facts = [(symbol, self._facts.get(symbol)) for symbol in pending]
        for board in self._paces[pace]:
            ranked, value_of, touched = self._ranked[board.name], board.value if board.filters else board.rank, False
            for symbol, known in facts:
                value = None if known is None else value_of(known)
                if value is not None:
                    ranked[symbol] = (-value, symbol)
                    touched = True
                elif ranked.pop(symbol, None) is not None:
                    touched = True
            if touched:
                self._touched.add(board.name)

    def _share(self, board: str) -> bytes:
        best = sorted(self._ranked[board].values())[: self._rows_max]
        return self._encode([(-value, symbol, self._row(symbol)) for value, symbol in best])

    def _row(self, symbol: str) -> msgspec.Raw:
        row = self._rows.get(symbol)
        if row is None:
            row = self._rows[symbol] = msgspec.Raw(self._encode(self._facts[symbol].row))
        return row


def _order(item: tuple[float, str, object]) -> tuple[float, str]:
    return (-item[0], item[1])  # equal ranks by symbol, so that a board does not flicker


def read_share(body: bytes) -> Share:
    """Return a share as it was written, best first.  Raises: msgspec.DecodeError."""
    return _share.decode(body)


def merge_shares(shares: Sequence[Share], rows_max: int, partitions: int = 1) -> bytes:
    """Return the data of a board, `{"order":[…],"rows":{…}}`, from the shares of the partitions of so many."""
    told = share_rows(rows_max, partitions)
    best = sorted((item for share in shares for item in share), key=_order)[:rows_max]
    if told < rows_max:
        for share in shares:
            if len(share) >= told:  # what comes after its last row nobody knows
                end = _order(share[-1])
                best = best[: bisect_right(best, end, key=_order)]
    return msgspec.json.encode({"order": [symbol for _, symbol, _ in best], "rows": {symbol: row for _, symbol, row in best}})
