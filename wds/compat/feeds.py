"""Lists the original service's feeds: what each is called there, of which of our channels it is made, what wildcards match.

Invariant: a name leaves this file only as channels that the catalogue knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mdc.channels import KINDS, Kind, UnknownChannel, kind_of
from wds.access.tokens import glob_matches
from wds.compat import payloads
from wds.compat.payloads import Shape
from wds.protocol import Hz

NAME_CHARS_MAX = 96
STARS_MAX = 3  # more would let a client make matching slow
BOARD_HZ: Hz = 1  # a board goes out whole, about 280 KB for 500 rows, and the original sends one a second, too
STATE_HZ: Hz = 4
EVENT_HZ: Hz = 10


@dataclass(frozen=True, slots=True)
class Family:
    """Feeds of one shape. `sources` are channels, `{}` the symbol; a change of the first is told, the others are looked at.

    `head` and `tail` stand around the symbol; a feed of no symbol has its whole name as `head`. `lists` = asked for, it answers
    with all its events, the newest first; other event feeds answer with the newest alone.
    """

    head: str
    sources: tuple[str, ...]
    shape: Shape
    tail: str = ""
    single: bool = False
    lists: bool = False

    @property
    def kind(self) -> Kind:
        """The kind of the channel whose changes are told."""
        return KINDS[self.sources[0].rpartition(":")[0]]

    @property
    def events(self) -> bool:
        """Whether each push is an event of its own, and not the state as it is now."""
        return self.kind.mode == "event"

    def name_of(self, symbol: str) -> str:
        """Return what the feed of a symbol is called."""
        return f"{self.head}{symbol}{self.tail}"

    def channels(self, symbol: str) -> tuple[str, ...]:
        """Return the channels of a symbol's feed."""
        return tuple(source.replace("{}", symbol) for source in self.sources)


FAMILIES = (
    Family("scanners:top_gainers", ("board:open_gainers",), payloads.board, single=True),
    Family("scanners:top_gappers", ("board:gainers",), payloads.board, single=True),
    Family("scanners:top_volume", ("board:volume",), payloads.board, single=True),
    Family("daily_range_hod_alert", ("alerts:range",), payloads.high_alert, single=True, lists=True),
    Family("daily_range_lod_alert", ("alerts:range",), payloads.low_alert, single=True, lists=True),
    Family("news:feed:latest", ("news:latest",), payloads.article, single=True, lists=True),
    Family("news:ticker:", ("news:{}",), payloads.article, lists=True),
    Family("quote:", ("quote:{}",), payloads.quote),
    Family("daily_range:", ("quote:{}", "bars:5m:{}"), payloads.daily_range),
    Family("stocks:luld:", ("halts:{}",), payloads.bands),
    Family("stocks:agg:", ("bars:1s:{}", "quote:{}"), payloads.aggregate),
    Family("stocks:trades:", ("trades:{}",), payloads.trade),
    Family("stocks:quotes:", ("quote:{}",), payloads.best_prices),
    Family("tta:", ("stats:{}", "quote:{}"), payloads.activity, tail=":widget"),
)
SINGLE = {family.head: family for family in FAMILIES if family.single}
BY_SYMBOL = tuple(family for family in FAMILIES if not family.single)


class Feed(NamedTuple):
    """One feed by its name, the symbol in it, and the channels it is made of."""

    name: str
    family: Family
    symbol: str
    channels: tuple[str, ...]


class Wild(NamedTuple):
    """What a wildcard may match in one family: the symbols that `glob` matches."""

    family: Family
    glob: str

    def feeds(self, channels: Iterable[str]) -> list[str]:
        """Return the feeds of the kind's known `channels` that match.  Cost: O(channels)."""
        family, common, start = self.family, self.family.kind.common, len(self.family.kind.name) + 1
        symbols = [channel[start:] for channel in channels]
        if self.glob == "*":
            return [family.name_of(symbol) for symbol in symbols if symbol not in common]
        return [family.name_of(symbol) for symbol in symbols if symbol not in common and glob_matches(self.glob, symbol)]


def find(name: str) -> Feed | None:
    """Return the feed of that name, None when there is none."""
    family, symbol = SINGLE.get(name), ""
    if family is None:
        for one in BY_SYMBOL:
            if name.startswith(one.head) and name.endswith(one.tail) and len(name) > len(one.head) + len(one.tail):
                family, symbol = one, name[len(one.head) : len(name) - len(one.tail)]
                break
    if family is None or len(name) > NAME_CHARS_MAX or symbol in family.kind.common:
        return None
    channels = family.channels(symbol)
    try:
        for channel in channels:
            kind_of(channel)
    except UnknownChannel:
        return None
    return Feed(name, family, symbol, channels)


def is_pattern(name: str) -> bool:
    """Whether a name has a wildcard in it."""
    return "*" in name


def match(pattern: str) -> tuple[list[str], list[Wild]]:
    """Return what a wildcard matches: feeds of no symbol, and per family those of symbols. Both empty: nothing ever.

    Stars stand in the symbol (`quote:*`, `tta:A*:widget`) or end a beginning of names (`stocks:*`, `*`).
    """
    if pattern.count("*") > STARS_MAX or len(pattern) > NAME_CHARS_MAX:
        return [], []
    single = [name for name in SINGLE if glob_matches(pattern, name)]
    wild = [Wild(family, glob) for family in BY_SYMBOL if (glob := _glob_of(family, pattern)) is not None]
    return single, wild


def _glob_of(family: Family, pattern: str) -> str | None:
    head = pattern.partition("*")[0]
    if pattern == f"{head}*" and family.head.startswith(head):
        return "*"
    within = pattern[len(family.head) : len(pattern) - len(family.tail)]
    if pattern.startswith(family.head) and pattern.endswith(family.tail) and "*" in within:
        return within
    if family.tail and head.startswith(family.head) and pattern == f"{head}*":
        return pattern[len(family.head) :]  # `tta:A*`: the star takes the tail along
    return None


def hz_of(channel: str) -> Hz:
    """Return how often at most a channel's changes are made into pushes."""
    mode = kind_of(channel).mode
    return BOARD_HZ if mode == "rows" else EVENT_HZ if mode == "event" else STATE_HZ
