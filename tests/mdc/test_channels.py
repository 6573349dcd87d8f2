"""Checks how channel names resolve to kinds and groups, and that the catalogue is consistent."""

from __future__ import annotations

import pytest

from mdc.channels import KINDS, KINDS_REMEMBERED, UnknownChannel, _own_kind, group_of, kind_named, kind_of, split
from service.partition import partition_of


@pytest.mark.parametrize(
    ("channel", "kind", "name"),
    [
        ("quote:AAPL", "quote", "AAPL"),
        ("bars:1m:AAPL", "bars:1m", "AAPL"),
        ("bars:1s:X:BTC-USD", "bars:1s", "X:BTC-USD"),
        ("trades:O:SPY251219C00650000", "trades", "O:SPY251219C00650000"),
        ("quote:C:EUR/USD", "quote", "C:EUR/USD"),
        ("board:gainers", "board", "gainers"),
        ("book:BTC-PERP", "book", "BTC-PERP"),
        ("alerts:range", "alerts", "range"),
        ("status:pipeline", "status", "pipeline"),
        ("news:AAPL", "news", "AAPL"),
        ("news:latest", "news", "latest"),
    ],
)
def test_a_channel_is_a_kind_and_a_name(channel: str, kind: str, name: str) -> None:
    """Kinds of one or two words are told from names that hold colons themselves."""
    found, rest = split(channel)
    assert (found.name, rest) == (kind, name)
    assert kind_of(channel) is KINDS[kind]


def test_a_plugin_s_channel_says_by_its_name_how_it_behaves() -> None:
    """Nobody who reads it needs the plug-in, or a list of those there are; made-up names cost no memory that stays."""
    kind, symbol = split("own:spread:X:BTC-USD")
    assert (kind.name, kind.mode, kind.plugin, symbol) == ("own:spread", "merge", "spread", "X:BTC-USD")
    log = kind_of("ownlog:spread:A")
    assert (log.mode, log.keep > 0, log.plugin) == ("event", True, "spread")
    assert group_of("own:spread:AAPL", 8) == f"up:own:{partition_of('AAPL', 8)}"
    for n in range(2 * KINDS_REMEMBERED):
        assert kind_named(f"own:p{n}") is not None
    assert _own_kind.cache_info().currsize == KINDS_REMEMBERED


@pytest.mark.parametrize(
    "channel",
    ["own:A", "own:", "own::A", "own:spread", "own:spread:", "own:Spread:A", "own:1st:A", "own:a b:A", "own:" + "x" * 33 + ":A",
     "ownlog:A", "owned:spread:A", "", ":", "quote", "quote:", "Quote:A", "nonsense:A", "bars:A", "bars:2m:A", "board:", "board:Best", "quote:a b",
     "quote:A\n", "quote:\x00", "quote:-A", "quote:" + "A" * 65, "quote:ü", "alerts:other", "ch:quote:A"],
)  # fmt: skip
def test_other_names_are_unknown(channel: str) -> None:
    """What is not in the catalogue is refused, in a message of bounded length."""
    with pytest.raises(UnknownChannel) as caught:
        kind_of(channel)
    assert len(str(caught.value)) <= 80


def test_symbols_are_spread_over_groups_and_shared_channels_are_not() -> None:
    """A symbol's updates come on its partition's group, those of the market on one."""
    assert group_of("quote:AAPL", 8) == f"up:quote:{partition_of('AAPL', 8)}"
    assert group_of("bars:1m:AAPL", 8) == group_of("bars:1s:AAPL", 8) == f"up:bars:{partition_of('AAPL', 8)}"
    assert group_of("board:gainers", 8) == group_of("alerts:range", 8) == group_of("status:pipeline", 1) == "up:shared:0"
    assert (group_of("news:AAPL", 8), group_of("news:latest", 8)) == (f"up:news:{partition_of('AAPL', 8)}", "up:shared:0")


def test_the_catalogue_is_consistent() -> None:
    """Event kinds keep events, fixed names are not per symbol, a kind that several partitions write is in group shared."""
    for kind in KINDS.values():
        assert (kind.mode != "event") or kind.keep > 0
        assert kind.per_symbol is not bool(kind.names)
        assert (kind.group == "shared") is not kind.per_symbol
        assert kind.fields
        assert kind.about
