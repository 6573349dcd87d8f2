"""Checks that boards merged from several partitions equal one sort of the whole market."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mdc.channels import BOARD_FIELDS, BOARDS
from mdp import roster
from mdp.analyzers.boards import Row, merge_shares
from mdp.reference import Known
from tests.mdp.feed import START_MS, Desk, Dice, trade

RANKS = {
    "volume": lambda q: q["volume"] or None,
    "gainers": lambda q: q["change_pct"] if (q["change_pct"] or 0) > 0 else None,
    "losers": lambda q: -q["change_pct"] if (q["change_pct"] or 0) < 0 else None,
    "gappers": lambda q: abs(gap(q) or 0) or None,
}


def gap(q: dict[str, Any]) -> float | None:
    if q["open"] is None or not q["prev_close"]:
        return None
    return round(100 * (q["open"] - q["prev_close"]) / q["prev_close"], 4)


def sorted_board(quotes: dict[str, dict[str, Any]], board: str, rows_max: int) -> dict[str, Any]:
    """Return the board of all quotes at once."""
    ranked = sorted((-RANKS[board](q), sym) for sym, q in quotes.items() if q["last"] is not None and RANKS[board](q))
    order = [sym for _, sym in ranked[:rows_max]]
    rows = {}
    for sym in order:
        q = quotes[sym]
        rows[sym] = {"sym": sym, **{name: q[name] for name in ("last", "change", "change_pct", "volume")}, "gap_pct": gap(q)}
    return {"order": order, "rows": rows}


@pytest.mark.parametrize(("seed", "symbols", "rows_max"), [(1, 40, 10), (2, 40, 500), (3, 900, 500), (4, 3, 1)])
def test_merged_shares_are_the_top_of_everything(seed: int, symbols: int, rows_max: int) -> None:
    """Each partition ranks its own; merged they are what sorting the whole market gives, equal ranks by symbol."""
    dice = Dice(seed, [f"S{n}" for n in range(symbols)])
    known = {sym: Known(dice.random.choice((None, 9.5, 10.0, 10.5)), None) for sym in dice.symbols}
    desks = [Desk(roster.build(("quote", "boards"), known, rows_max)) for _ in range(3)]
    for n, sym in enumerate(dice.symbols):
        for _ in range(dice.random.randint(0, 3)):
            price, size = dice.random.choice((9.0, 9.5, 10.0, 10.01, 11.0)), dice.random.choice((1, 100, 0.5))
            desks[n % 3].feed(trade(sym, price, size))
    quotes: dict[str, dict[str, Any]] = {}
    for desk in desks:
        quotes |= desk.flush().channels("quote")
    for board in BOARDS:
        shares = [desk.cache.shares[f"board:{board}"] for desk in desks]
        assert json.loads(merge_shares(shares, rows_max)) == sorted_board(quotes, board, rows_max), f"seed {seed} {board}"


def test_fields_are_those_of_the_catalogue() -> None:
    """A row has the catalogue's fields in its order."""
    assert Row.__struct_fields__ == BOARD_FIELDS


def test_shares_are_written_when_they_change_and_not_more_than_four_times_a_second() -> None:
    """Ranking costs time; between two rankings and without a change nothing is written."""
    desk, written_ms = Desk(), []
    for n in range(20):
        desk.feed(trade(p=10, s=1, t=START_MS + n))
        desk.cache.shares.clear()
        if "board:volume" in desk.flush(50).shares:
            written_ms.append(n * 50)
    assert written_ms == [0, 250, 500, 750]
    desk.flush(1_000)
    for _ in range(3):
        desk.cache.shares.clear()
        assert "board:volume" not in desk.flush(1_000).shares


def test_an_emptied_cache_gets_the_shares_again() -> None:
    """The next flush into a new cache holds all boards, changed or not."""
    desk = Desk()
    desk.feed(trade(p=10))
    desk.flush(1_000)
    before = dict(desk.cache.shares)
    desk.cache.shares.clear()
    desk.partition.rewrite(1, "e2")
    assert desk.flush(1).shares.keys() == before.keys() >= {f"board:{board}" for board in BOARDS}


def test_no_shares_no_rows() -> None:
    """Empty shares merge into an empty board."""
    assert json.loads(merge_shares([b"[]", b"[]"], 5)) == {"order": [], "rows": {}}
