"""mdp/plugins/ranking.py: a partition's share of a plug-in's board."""

from __future__ import annotations

import json
from typing import Any

from mdc import keys
from mdc.writer import Flush
from mdp.analyzers.quote import QuoteAnalyzer, QuoteData
from mdp.plugins.ranking import RANKED_MAX, Ranking
from tests.mdp.plugins.desk import Sum, Sums


class Quotes(QuoteAnalyzer):
    """Quotes that are simply there."""

    def snapshot(self, symbol: str) -> QuoteData | None:
        return QuoteData(last=None if symbol == "S7" else 10.0)


def shares(flush: Flush) -> dict[str, list[Any]]:
    return {name: json.loads(body) for name, body in flush.shares() if name != keys.BOARD_VERSIONS}


def test_the_best_rows_whatever_the_order_in_which_they_came() -> None:
    """At most so many rows; what never traded has none; a symbol that is gone leaves; what did not change is not written."""
    ranking, plugin = Ranking(("sums",), 3, Quotes({})), Sums()
    for n in range(10):
        ranking.touch(f"S{n}")
    for symbol in ranking.take(RANKED_MAX):
        ranking.rank(symbol, plugin, Sum(1, float(symbol[1:])))
    flush = Flush(0, "e")
    ranking.write(flush)
    [(name, rows)] = shares(flush).items()
    assert (name, [symbol for _, symbol, _ in rows]) == ("part:board:sums", ["S9", "S8", "S6"])
    ranking.rank("S9", plugin, None)
    ranking.rank("S2", plugin, Sum(1, 2.0))
    flush = Flush(0, "e")
    ranking.write(flush)
    assert [symbol for _, symbol, _ in shares(flush)["part:board:sums"]] == ["S8", "S6", "S5"]
    ranking.rank("S2", plugin, Sum(1, 2.5))
    flush = Flush(0, "e")
    ranking.write(flush)
    assert shares(flush) == {}
    ranking.rewrite()
    ranking.write(flush)
    assert len(shares(flush)) == 1


def test_many_are_ranked_some_at_a_time_and_once_a_second() -> None:
    """Nobody waits while 100,000 symbols are ranked; also after the wall clock was put back."""
    ranking = Ranking(("sums",), 3, Quotes({}))
    for n in range(2 * RANKED_MAX + 1):
        ranking.touch(f"S{n}")
    assert [len(ranking.take(RANKED_MAX)) for _ in range(4)] == [RANKED_MAX, RANKED_MAX, 1, 0]
    assert [ranking.due(now_ms) for now_ms in (5_000, 5_999, 6_000, 6_500, 1_000, 1_500)] == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]
    assert not Ranking((), 3, Quotes({})).due(1)
