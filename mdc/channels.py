"""Lists the kinds of channels: each says its mode, lifetime, fields and which pub/sub group carries it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from service.partition import partition_of

Mode = Literal["merge", "rows", "event"]
DAY_MS = 86_400_000
# The last session stays until the next one has opened: four closed days between two sessions (Thursday night to Tuesday
# morning) are 4.5 days. And a symbol stays for 8 silent days before the processors delete it (listing.py there), who have what
# is still traded live on every day: this lifetime must be longer, and then only clears what no processor is left to delete.
KEPT_MS = 10 * DAY_MS
SHARED = "up:shared:0"  # the pub/sub channel of what several partitions write
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/^+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of channel. `ttl_ms` 0 = kept for ever; `keep` = events (or closed bars) kept for the snapshot."""

    name: str
    mode: Mode
    group: str
    ttl_ms: int
    about: str
    fields: tuple[str, ...] = ()
    keep: int = 0
    per_symbol: bool = True
    names: tuple[str, ...] = ()  # the only names of a kind that is not per symbol
    operators_only: bool = False
    more: re.Pattern[str] | None = None  # what other names may look like
    common: tuple[str, ...] = ()  # names of a kind that is per symbol, of lists that all partitions write together
    plugin: str = ""  # whose kind it is: its fields are not in the catalogue

    def is_shared(self, name: str) -> bool:
        """Return whether several partitions write the channel of that name."""
        return not self.per_symbol or name in self.common


QUOTE_FIELDS = (
    "last", "bid", "ask", "bid_size", "ask_size", "open", "high", "low", "volume", "vwap", "trades", "prev_close",
    "change", "change_pct", "rel_volume", "session", "ts", "prev_open", "prev_high", "prev_low", "prev_volume", "prev_vwap",
    "avg_volume", "float", "open_change", "spread", "last_size", "news_ts",
)  # fmt: skip
BAR_FIELDS = ("t", "open", "high", "low", "close", "volume", "vwap", "trades", "i", "prev", "rev")
PRINT_FIELDS = ("price", "size", "ts", "exchange", "conditions", "id")
STATS_FIELDS = (
    *(
        f"{what}_{window}"
        for window in ("1m", "5m", "60m")
        for what in ("trades", "volume", "notional", "average", "largest", "bought", "sold")
    ),
    "ts",
)
BOARD_FIELDS = (
    "sym", "last", "change", "change_pct", "volume", "gap_pct", "open_change_pct", "dollar_volume", "rel_volume", "float",
    "trades", "news_ts",
)  # fmt: skip
ALERT_FIELDS = ("sym", "kind", "price", "prev", "value", "session", "note", "high_band", "low_band", "quote", "ts")
ALERTS = ("range", "halts", "volume", "gap", "news")
HALT_FIELDS = ("state", "high_band", "low_band", "indicators", "ts")
BOOK_FIELDS = ("bids", "asks", "bid", "ask", "spread", "ts")
NEWS_FIELDS = ("id", "title", "url", "source", "summary", "tickers", "more", "ts")
STATUS_FIELDS = ("sources", "processors", "ts")
BOARDS = (
    "volume", "gainers", "losers", "gappers", "rel_volume", "dollar_volume", "range", "open_gainers", "trades_1m", "trades_5m",
    "trades_60m", "unusual", "halted",
)  # fmt: skip
OWN_BOARD = re.compile(r"[a-z][a-z0-9_]{0,31}")  # what operators call theirs

KINDS = {
    kind.name: kind
    for kind in (
        Kind("quote", "merge", "quote", KEPT_MS, "last trade, best bid and offer, session totals of a symbol", QUOTE_FIELDS),
        Kind("bars:1s", "merge", "bars", KEPT_MS, "the one-second bar in the making; history of closed bars", BAR_FIELDS, 120),
        Kind("bars:1m", "merge", "bars", KEPT_MS, "the one-minute bar in the making; history of closed bars", BAR_FIELDS, 390),
        Kind("bars:5s", "merge", "wide", KEPT_MS, "bars of five seconds, of those of one second", BAR_FIELDS, 120),
        Kind("bars:5m", "merge", "wide", KEPT_MS, "bars of five minutes, of those of one minute", BAR_FIELDS, 234),
        Kind("bars:1h", "merge", "wide", KEPT_MS, "bars of an hour, of those of five minutes", BAR_FIELDS, 120),
        Kind("bars:1d", "merge", "wide", KEPT_MS, "bars of a trading day, of those of an hour", BAR_FIELDS, 30),
        Kind("trades", "event", "trades", KEPT_MS, "recent prints of a symbol", PRINT_FIELDS, 200),
        Kind(
            "board", "rows", "shared", KEPT_MS, "ranked symbols; operators add their own (`MDP_BOARDS`)", BOARD_FIELDS, 0, False,
            BOARDS, more=OWN_BOARD,
        ),
        Kind(
            "alerts", "event", "shared", KEPT_MS, "new highs and lows, halts, unusual volume, gaps, news, each with its quote",
            ALERT_FIELDS, 1_000, False, ALERTS,
        ),
        Kind("stats", "merge", "stats", KEPT_MS, "what was traded in the last 1, 5 and 60 minutes", STATS_FIELDS),
        Kind("halts", "merge", "halts", KEPT_MS, "limit-up/limit-down bands and trading state of a symbol", HALT_FIELDS),
        Kind("book", "merge", "book", KEPT_MS, "the best ≤ 20 levels of both sides, `[[price,size],…]` best first", BOOK_FIELDS),
        Kind(
            "news", "event", "news", KEPT_MS, "articles that name a symbol; `news:latest`: all, also those that name none",
            NEWS_FIELDS, 100, common=("latest",),
        ),
        Kind("status", "merge", "shared", 0, "rates, lag and losses of the pipeline", STATUS_FIELDS, 0, False, ("pipeline",)),
    )
}  # fmt: skip

# Kinds of plug-ins: `own:NAME:SYMBOL`. A name alone says how its channels behave, so that whoever reads them needs neither
# the plug-in nor a list of those there are; their fields are what the plug-in writes.
FAMILIES = {
    kind.name: kind
    for kind in (
        Kind("own", "merge", "own", KEPT_MS, "what a plug-in of the processors keeps of a symbol"),
        Kind("ownlog", "event", "own", KEPT_MS, "what a plug-in of the processors reports of a symbol, newest last", (), 200),
    )
}
OWN_KIND = OWN_BOARD  # what a plug-in may be called
KINDS_REMEMBERED = 1_000  # of plug-ins: clients may make names up


class UnknownChannel(ValueError):
    """A channel name that the catalogue does not know."""


def kind_of(channel: str) -> Kind:
    """Return the kind of `channel` (`quote:AAPL`, `bars:1m:AAPL`, `board:gainers`).  Raises: UnknownChannel."""
    return _parse(channel)[0]


def split(channel: str) -> tuple[Kind, str]:
    """Return (kind, name).  Raises: UnknownChannel.  A name is a symbol, or one of the kind's own names."""
    return _parse(channel)


def kind_named(name: str) -> Kind | None:
    """Return the kind of that name (`quote`, `bars:1m`, `own:spread`), None when there is none."""
    return KINDS.get(name) or _own_kind(name)


@lru_cache(KINDS_REMEMBERED)
def _own_kind(name: str) -> Kind | None:
    first, _, plugin = name.partition(":")
    family = FAMILIES.get(first)
    return replace(family, name=name, plugin=plugin) if family is not None and OWN_KIND.fullmatch(plugin) else None


def _parse(channel: str) -> tuple[Kind, str]:
    first, _, rest = channel.partition(":")
    kind = KINDS.get(first)
    if kind is None and rest:
        second, _, rest = rest.partition(":")
        kind = kind_named(f"{first}:{second}")
    if kind is None or not NAME.fullmatch(rest) or not _known(kind, rest):
        raise UnknownChannel(channel[:80])
    return kind, rest


def _known(kind: Kind, name: str) -> bool:
    return not kind.names or name in kind.names or (kind.more is not None and kind.more.fullmatch(name) is not None)


def group_of(channel: str, partitions: int) -> str:
    """Return the pub/sub channel that carries the updates of `channel`: `up:{group}:{partition}`."""
    kind, name = _parse(channel)
    return SHARED if kind.is_shared(name) else f"up:{kind.group}:{partition_of(name, partitions)}"
