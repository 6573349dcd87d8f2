"""Tests what of a checkpoint goes where, and what is the same in all partitions of a new layout."""

from __future__ import annotations

import msgspec
import pytest

from mdp.layout.deal import Own, UnreadableCell, common_cells, deal_shares, is_behind, newest_days, newest_runs, symbol_of
from mdp.partitions import ahead
from mdp.partitions.counts import Counts
from mdp.plugins.host import Tally
from mdq.gaps import Position
from service.partition import partition_of

encode = msgspec.json.encode
DAY_MS = 86_400_000


def own(**cells: bytes) -> Own:
    return Own.read({name.replace("__", "/").replace("_at_", ":"): value for name, value in cells.items()})


@pytest.mark.parametrize(
    ("cell", "symbol"),
    [
        ("quote:AAPL", "AAPL"), ("bars:1m:X:BTC-USD", "X:BTC-USD"), ("bars:1s:ES|closed", "ES"), ("heard:O:SPY", "O:SPY"),
        ("quote:@s|stocks", "@s"), ("position:s/trades", ""), ("counts", ""),
        ("own:spread:X:BTC-USD", "X:BTC-USD"), ("ownlog:spread:AAPL", "AAPL"), ("plugin:spread", ""), ("flush", ""),
    ],
)  # fmt: skip
def test_a_cell_says_whose_it_is(cell: str, symbol: str) -> None:
    """The names of options and pairs have colons, too."""
    assert symbol_of(cell) == symbol


def test_the_newest_publisher_is_the_one_read_last_everywhere() -> None:
    """Its epoch fences off what is older; what only one partition reads stays there."""
    first = own(position_at_s__trades=encode(Position("e2", 5)), position_at_s__status=encode(Position("e2", 9)))
    second = own(position_at_s__trades=encode(Position("e1", 70)))
    others, zero = common_cells([first, second])
    assert msgspec.json.decode(others["position:s/trades"])["epoch"] == "e2"
    assert "position:s/status" in zero
    assert "position:s/status" not in others


def test_counts_add_up_and_what_nobody_gets_again_is_lost() -> None:
    """Two partitions' counts are one's; symbols that were ahead had what the others never will."""
    place = [("s", "trades", Position("e1", 12))]
    first = own(
        counts=encode(Counts(events={"s/trades": 10}, bad=1)), position_at_s__trades=encode(Position("e1", 10)),
        ahead=ahead.cell(["A"], place),
    )  # fmt: skip
    second = own(counts=encode(Counts(events={"s/trades": 5, "s/quotes": 1})))
    others, zero = common_cells([first, second])
    found = msgspec.json.decode(zero["counts"], type=Counts)
    assert (found.events, found.bad, found.expired) == ({"s/trades": 15, "s/quotes": 1}, 1, {"s/trades": 2})
    assert msgspec.json.decode(others["counts"], type=Counts) == Counts()
    assert msgspec.json.decode(zero["position:s/trades"])["seq"] == 12


def test_what_plugins_have_missed_is_kept_and_nothing_is_called_missed_by_the_move() -> None:
    """The first partition, which has the counts of events, has the plug-in's too; a plug-in that one partition lacks stops nothing."""
    first = own(counts=encode(Counts(events={"s/trades": 10})), plugin_at_spread=encode(Tally(3, 1, 2, 10)))
    second = own(counts=encode(Counts(events={"s/trades": 5})), plugin_at_spread=encode(Tally(1, 1, 0, 5)))
    others, zero = common_cells([first, second, own()])
    assert msgspec.json.decode(zero["plugin:spread"], type=Tally) == Tally(4, 2, 2, 15)
    assert msgspec.json.decode(others["plugin:spread"], type=Tally) == Tally()
    with pytest.raises(UnreadableCell, match="plugin:spread"):
        own(plugin_at_spread=b"tea")


def test_who_has_not_heard_of_a_new_day_or_run_is_behind() -> None:
    """A day of an earlier run does not count."""
    runs = {"s": ("e1", 1)}
    on_time = own(**{"runs": encode(runs), "quote_at_@s|always": b"%d" % (3 * DAY_MS + 5)})
    yesterday = own(**{"runs": encode(runs), "quote_at_@s|always": b"%d" % (2 * DAY_MS)})
    same_day = own(**{"runs": encode(runs), "quote_at_@s|always": b"%d" % (3 * DAY_MS)})
    other_run = own(**{"runs": encode({"s": ("e1", 0)}), "quote_at_@s|always": b"%d" % (9 * DAY_MS)})
    owns = [on_time, yesterday, same_day, other_run]
    assert newest_runs(owns) == runs
    days = newest_days(owns, runs)
    assert days == {"quote:@s|always": 3 * DAY_MS + 5}
    assert [is_behind(one, runs, days) for one in owns] == [False, True, False, True]


def test_shares_of_a_board_are_dealt_with_their_symbols() -> None:
    """Every row goes where its symbol goes, the best first."""
    rows = [(float(n), f"S{n}", msgspec.Raw(b"[%d]" % n)) for n in range(40)]
    dealt = deal_shares([encode(rows[:25]), encode(rows[25:])], 3)
    found = {number: [(row[1], row[0]) for row in msgspec.json.decode(body)] for number, body in dealt.items()}
    assert {symbol: number for number, some in found.items() for symbol, _ in some} == {
        symbol: partition_of(symbol, 3) for _, symbol, _ in rows
    }
    assert all([rank for _, rank in some] == sorted((rank for _, rank in some), reverse=True) for some in found.values())


@pytest.mark.parametrize("cells", [{"counts": b"{"}, {"flush": b"x"}, {"novelty": b"1"}, {"quote:@s|always": b"noon"}])
def test_what_cannot_be_read_is_not_dropped(cells: dict[str, bytes]) -> None:
    """An own cell that is unreadable, or of a name that only a newer version knows, stops the move."""
    with pytest.raises(UnreadableCell, match=next(iter(cells)).replace("|", r"\|")):
        Own.read(cells)
