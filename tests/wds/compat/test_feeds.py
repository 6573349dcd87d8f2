"""Names of feeds and their wildcards, against the channels that the catalogue knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdc.channels import kind_of
from wds.compat.feeds import FAMILIES, NAME_CHARS_MAX, find, hz_of, match

CHANNELS = {
    "scanners:top_gainers": ("board:open_gainers",),
    "scanners:top_gappers": ("board:gainers",),
    "scanners:top_volume": ("board:volume",),
    "quote:AAPL": ("quote:AAPL",),
    "quote:X:BTCUSD": ("quote:X:BTCUSD",),
    "daily_range:BRK.B": ("quote:BRK.B", "bars:5m:BRK.B"),
    "daily_range_hod_alert": ("alerts:range",),
    "daily_range_lod_alert": ("alerts:range",),
    "news:feed:latest": ("news:latest",),
    "news:ticker:GM": ("news:GM",),
    "stocks:luld:A": ("halts:A",),
    "stocks:agg:A": ("bars:1s:A", "quote:A"),
    "stocks:trades:A": ("trades:A",),
    "stocks:quotes:A": ("quote:A",),
    "tta:A:widget": ("stats:A", "quote:A"),
}


@pytest.mark.parametrize(("name", "channels"), CHANNELS.items())
def test_every_feed_is_made_of_channels(name: str, channels: tuple[str, ...]) -> None:
    """Gainers rank the change since the open, gappers the one against the previous close: as the original means them."""
    found = find(name)
    assert found is not None
    assert (found.name, found.channels) == (name, channels)


@pytest.mark.parametrize(
    "name",
    [
        "", "quote", "quote:", "quote: A", "quote:A\n", "scanners:top_losers", "news:ticker:", "news:ticker:latest", "tta:A", "tta::widget",
        "tta:widget", "stocks:agg:", "daily_range:", "board:gainers", "status:pipeline", "quote:" + "A" * 80, "cache:top_stocks", "é",
    ],
)  # fmt: skip
def test_what_is_no_feed(name: str) -> None:
    """Unknown names, other channels of ours, symbols that cannot be: nothing is found, nothing breaks."""
    assert find(name) is None


SYMBOLS = {"quote": ["A", "AB", "X:B"], "news": ["A", "latest"], "stats": ["A", "AB"]}


def expand(pattern: str) -> list[str]:
    """Return all feeds that a wildcard matches when these symbols are known."""
    single, wild = match(pattern)
    found = list(single)
    for one in wild:
        kind = one.family.kind.name
        found += one.feeds([f"{kind}:{symbol}" for symbol in SYMBOLS.get(kind, [])])
    return found


@pytest.mark.parametrize(
    ("pattern", "feeds"),
    [
        ("quote:*", ["quote:A", "quote:AB", "quote:X:B"]),
        ("quote:A*", ["quote:A", "quote:AB"]),
        ("quote:*B", ["quote:AB", "quote:X:B"]),
        ("tta:*:widget", ["tta:A:widget", "tta:AB:widget"]),
        ("tta:*B:widget", ["tta:AB:widget"]),
        ("tta:A*", ["tta:A:widget", "tta:AB:widget"]),
        ("news:*", ["news:feed:latest", "news:ticker:A"]),
        ("news:ticker:*", ["news:ticker:A"]),
        ("scanners:*", ["scanners:top_gainers", "scanners:top_gappers", "scanners:top_volume"]),
        ("scanners:top_ga*", ["scanners:top_gainers", "scanners:top_gappers"]),
        ("daily_range_*_alert", ["daily_range_hod_alert", "daily_range_lod_alert"]),
        ("stocks:luld:*", []),
    ],
)
def test_wildcards(pattern: str, feeds: list[str]) -> None:
    """In a symbol, at the end of a beginning, over feeds of no symbol."""
    assert expand(pattern) == feeds


def test_a_star_is_everything() -> None:
    """Every family, and nothing twice."""
    found = expand("*")
    assert len(found) == len(set(found)) == 6 + 3 * 3 + 1 + 2
    assert [one.family.head for one in match("*")[1]] == [family.head for family in FAMILIES if not family.single]


@pytest.mark.parametrize("pattern", ["a*", "quote*:A", "*:A", "****", "stocks:l*d:A", "*" + "A" * 100, "bars:*"])
def test_wildcards_that_match_nothing_ever(pattern: str) -> None:
    """They are refused, so that nobody waits for them."""
    assert expand(pattern) == []


@given(st.text(alphabet="*:AquotescanrstickwdgXé ", max_size=110))
def test_every_name_is_bounded(name: str) -> None:
    """Whatever is asked for: a feed of known channels, or nothing."""
    found = find(name)
    assert found is None or (
        len(name) <= NAME_CHARS_MAX and all(kind_of(channel) and hz_of(channel) for channel in found.channels)
    )
    for feed in expand(name):
        again = find(feed)
        assert again is not None
        assert again.name == feed
