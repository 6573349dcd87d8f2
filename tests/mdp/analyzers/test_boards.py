"""Checks that boards merged from several partitions equal one sort of the whole market."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mdc.channels import BOARD_FIELDS, BOARDS
from mdp import roster
from mdp.analyzers.boards import Share, merge_shares, read_share, share_rows
from mdp.analyzers.ranks import BUILT_IN, Row, read_boards
from mdp.reference import Known
from service.errors import OperatorError
from service.partition import partition_of
from tests.mdp.feed import START_MS, Desk, Dice, trade

MINUTE_MS = 60_000


def percent(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else round(100 * (value - base) / base, 4)


def above(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def row_of(q: dict[str, Any], sym: str, known: Known) -> dict[str, Any]:
    return {
        "sym": sym,
        **{name: q[name] for name in ("last", "change", "change_pct", "volume")},
        "gap_pct": percent(q["open"], q["prev_close"]),
        "open_change_pct": percent(q["last"], q["open"]),
        "dollar_volume": None if q["vwap"] is None else round(q["vwap"] * q["volume"], 2),
        "rel_volume": q["rel_volume"],
        "float": known.shares,
        "trades": q["trades"],
        "news_ts": None,
    }


def rank(
    board: str, q: dict[str, Any], row: dict[str, Any], stats: dict[str, Any] | None, halt: dict[str, Any] | None
) -> float | None:
    """Return what a symbol is sorted by, from the documents that readers see."""
    if board in ("volume", "trades_1m", "trades_5m", "trades_60m"):
        return row["volume"] or None if board == "volume" else (stats or {}).get(board) or None
    if board == "losers":
        return -row["change_pct"] if (row["change_pct"] or 0) < 0 else None
    if board == "range":
        return above(percent(q["high"], q["low"]))
    if board == "halted":
        return float(halt["ts"]) if halt is not None and halt["state"] == "halted" else None
    fields = {"gainers": "change_pct", "open_gainers": "open_change_pct"}
    return abs(row["gap_pct"] or 0) or None if board == "gappers" else above(row[fields.get(board, board)])


@pytest.mark.parametrize(("seed", "symbols", "rows_max"), [(1, 40, 10), (2, 40, 500), (3, 700, 500), (4, 3, 1)])
def test_merged_shares_are_the_top_of_everything(seed: int, symbols: int, rows_max: int) -> None:
    """Each partition ranks its own; merged they are what sorting the whole market gives, equal ranks by symbol."""
    dice = Dice(seed, [f"S{n}" for n in range(symbols)])
    pick = dice.random.choice
    known = {sym: Known(pick((None, 9.5, 10.0, 10.5)), pick((None, 50.0)), pick((None, 1e6))) for sym in dice.symbols}
    desks = [Desk(roster.build(roster.ANALYZERS, known, rows_max)) for _ in range(3)]
    for n, sym in enumerate(dice.symbols):
        for k in range(pick((0, 1, 2, 5))):
            price, size = pick((9.0, 9.5, 10.0, 10.01, 11.0)), pick((1, 100, 0.5))
            desks[n % 3].feed(trade(sym, price, size, START_MS + k * pick((0, 20_000, 100_000))))
        if dice.random.random() < 0.2:
            desks[n % 3].feed(bands(sym, pick((17, 18)), START_MS + n % 7))
    quotes, stats, halts = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for desk in desks:
        desk.prompt = True
        cache = desk.flush(2_000)
        quotes |= cache.channels("quote")
        stats |= cache.channels("stats")
        halts |= cache.channels("halts")
    rows = {sym: row_of(q, sym, known[sym]) for sym, q in quotes.items() if q["last"] is not None}
    for board in (board for board in BOARDS if board != "unusual"):
        ranked = sorted(
            (-value, sym) for sym in rows if (value := rank(board, quotes[sym], rows[sym], stats.get(sym), halts.get(sym)))
        )
        order = [sym for _, sym in ranked[:rows_max]]
        shares = [read_share(desk.cache.shares[f"board:{board}"]) for desk in desks]
        expected = {"order": order, "rows": {sym: rows[sym] for sym in order}}
        assert json.loads(merge_shares(shares, rows_max)) == expected, f"seed {seed} {board}"


def bands(sym: str, indicator: int, t: int) -> dict[str, Any]:
    return {"ev": "LULD", "T": sym, "h": 11, "l": 9, "i": [indicator], "t": t}


def board_of(desk: Desk, name: str) -> list[str]:
    desk.cache.shares.clear()
    desk.flush(2_000)
    share = desk.cache.shares.get(f"board:{name}")
    return [] if share is None else json.loads(merge_shares([read_share(share)], 500))["order"]


def test_unusual_is_a_minute_of_three_ordinary_ones() -> None:
    """After ten minutes of history; a symbol that always trades as much is not on the board, whatever it trades."""
    desk = Desk()
    for minute in range(12):
        for sym, size in (("CALM", 9_000), ("WILD", 100)):
            desk.feed(trade(sym, 10, size, START_MS + minute * MINUTE_MS))
    assert board_of(desk, "unusual") == []
    desk.feed(trade("WILD", 10, 500, START_MS + 12 * MINUTE_MS))
    desk.feed(trade("CALM", 10, 9_000, START_MS + 12 * MINUTE_MS))
    assert board_of(desk, "unusual") == ["WILD"]


def test_a_halted_symbol_stays_on_its_boards_until_it_trades_again() -> None:
    """Also over a hand-over; the newest halt is first."""
    desk = Desk()
    for n, sym in enumerate(("A", "B", "C")):
        desk.feed(trade(sym, 10 + n, 100))
    desk.feed(bands("A", 17, START_MS), bands("B", 17, START_MS + 5))
    assert board_of(desk, "halted") == ["B", "A"]
    desk.hand_over()
    assert board_of(desk, "halted") == ["B", "A"]
    desk.feed(bands("B", 18, START_MS + 9))
    assert board_of(desk, "halted") == ["A"]
    desk.feed(trade("D", 1, 500))
    assert board_of(desk, "volume") == ["D", "A", "B", "C"]


OWN = """
[cheap_movers]
rank = "gainers"
session = ["post"]
where.last = [1, 20]
where.float = ["", 20_000_000]

[everything]
rank = "volume"
"""


def test_an_operator_s_board_filters_before_it_is_cut(tmp_path: Path) -> None:
    """Two rows of those that fit, not those of the first two that fit; what is not known fits no bound."""
    (tmp_path / "boards.toml").write_text(OWN)
    boards = (*BUILT_IN, *read_boards(tmp_path / "boards.toml"))
    known = {sym: Known(10.0, None, 1e6) for sym in ("DEAR", "BEST", "GOOD", "LESS")} | {"HUGE": Known(10.0, None, 1e9)}
    desk = Desk(roster.build(roster.ANALYZERS, known, 2, None, boards))
    for sym, price in (("DEAR", 30), ("BEST", 19), ("GOOD", 12), ("LESS", 11), ("HUGE", 18), ("NONE", 17), ("FALL", 9)):
        desk.feed(trade(sym, price, 100))
    assert board_of(desk, "cheap_movers") == ["BEST", "GOOD"]
    desk.feed(trade("DEAR", 31, 1))
    assert board_of(desk, "everything") == ["DEAR", "BEST"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x]\nrank = 'fastest'", "rank is one of volume, gainers"),
        ("[volume]\nrank = 'gainers'", "a board's name is a-z"),
        ("[Mine]\nrank = 'gainers'", "a board's name is a-z"),
        ("[x]\nrank = 'gainers'\nwhere.lust = [1, 2]", "where has bounds of last, change"),
        ("[x]\nrank = 'gainers'\nwhere.last = [2, 1]", 'where.last is [from, to], two numbers or ""'),
        ("[x]\nrank = 'gainers'\nsession = ['noon']", "session is a list of pre, regular"),
        ("[x]\nrank = 'gainers'\nrows = 5", "rows is not known"),
        ("rank = 'gainers'", "a board begins with [rank]"),
        ("[x", "MDP_BOARDS="),
        ("".join(f"[b{n}]\nrank = 'volume'\n" for n in range(51)), "at most 50"),
        ("\0", "MDP_BOARDS="),
    ],
)
def test_a_board_that_cannot_be_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    """It names the file, the board and what is known instead."""
    path = tmp_path / "boards.toml"
    path.write_text(text)
    with pytest.raises(OperatorError) as refused:
        read_boards(path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_of_boards_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """As any other file."""
    with pytest.raises(OperatorError, match="cannot read MDP_BOARDS"):
        read_boards(tmp_path / "none.toml")
    assert read_boards(None) == ()


def test_fields_are_those_of_the_catalogue() -> None:
    """A row has the catalogue's fields in its order."""
    assert Row.__struct_encode_fields__ == BOARD_FIELDS


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


def test_what_nobody_watches_is_ranked_seldom_and_nothing_is_missed() -> None:
    """Who begins to look sees the next flush's ranking at the old pace, with all that happened while nobody did."""
    desk = Desk()
    desk.partition.watch([], {"volume"})
    written: dict[str, list[int]] = {"volume": [], "gainers": []}
    for n in range(70):
        desk.feed(trade(p=10 + n, s=1, t=START_MS + n))
        desk.cache.shares.clear()
        desk.flush(50)
        for board, at in written.items():
            if f"board:{board}" in desk.cache.shares:
                at.append(n * 50)
    assert written == {"volume": list(range(0, 3_500, 250)), "gainers": [0, 3_000]}
    desk.feed(trade("LATE", p=10, t=START_MS + 100), trade("LATE", p=30, t=START_MS + 101))
    desk.flush(1)
    desk.partition.watch([], {"gainers"})
    desk.cache.shares.clear()
    shares = desk.flush(1).shares
    assert [row[1] for row in json.loads(shares["board:gainers"])] == ["A", "LATE"]
    desk.cache.shares.clear()
    desk.feed(trade("LATE", p=300, t=START_MS + 102))
    assert "board:gainers" in desk.flush(250).shares


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
    assert json.loads(merge_shares([[], []], 5)) == {"order": [], "rows": {}}


def rows(*ranked: tuple[float, str]) -> Share:
    return [(rank, sym, msgspec.Raw(b"1")) for rank, sym in ranked]


def test_a_partition_tells_what_the_market_can_need_of_it() -> None:
    """With one partition everything; with more of them about its part, and always more than the mean."""
    assert (share_rows(500, 0), share_rows(500, 1), share_rows(500, 8), share_rows(500, 1024), share_rows(3, 8)) == (
        500,
        500,
        134,
        15,
        3,
    )


def test_a_board_ends_where_a_partition_was_cut() -> None:
    """One partition has more of the best than it tells: what may follow its last row is not guessed."""
    told = share_rows(100, 16)
    full = rows(*((1_000.0 - n, f"A{n:03}") for n in range(told)))
    other = rows((999.5, "B"), (1_000.5 - told, "C"))
    names = [f"A{n:03}" for n in range(told)]
    assert json.loads(merge_shares([full, other], 100, 16))["order"] == [names[0], "B", *names[1:]]
    assert json.loads(merge_shares([full[:-1], other], 100, 16))["order"] == [names[0], "B", *names[1:-1], "C"]


def test_shares_of_a_hashed_market_are_never_cut_too_short() -> None:
    """However many partitions and rows: the merged top is that of the whole market, by any order of the symbols."""
    dice = random.Random(5)
    for partitions, rows_max in ((2, 500), (8, 500), (64, 100), (256, 500)):
        market = [(round(dice.expovariate(1), 2), f"S{n}") for n in range(6_000)]
        best = sorted(market, key=lambda item: (-item[0], item[1]))
        parts: list[Share] = [[] for _ in range(partitions)]
        for rank, sym in best:
            part = parts[partition_of(sym, partitions)]
            if len(part) < share_rows(rows_max, partitions):
                part += rows((rank, sym))
        assert json.loads(merge_shares(parts, rows_max, partitions))["order"] == [sym for _, sym in best[:rows_max]]
