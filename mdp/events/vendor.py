"""Decodes vendor JSON into typed events; what does not fit the vendor's shapes or is impossible (a negative size) is a bad event.

Source of the shapes: the vendor's WebSocket reference. Times are ms since the Unix epoch; prices in the feed's currency;
sizes in shares, contracts or coins. Stocks trade in fractions: the vendor gives them beside the whole numbers, as decimal
strings (`ds`, `dv`, `dav`), and they count where they are present. (A future's `dv` is another thing: a number, its turnover.)
Every event has a `symbol` and a `ts`, by which it is judged; trades, quotes and aggregates say whether they are `listed`: of a
stock or an option for certain. Fields that no analyzer uses are not decoded. `gc=False`: events hold no references that could
form a cycle, and tracking half a million of them a second cost as much as decoding them.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Union

import msgspec
from msgspec import Meta, Struct, field

Price = Annotated[float, Meta(gt=0, lt=1e12)]
PriceOrNone = Annotated[float, Meta(ge=0, lt=1e12)]  # 0 = that side is empty
WholeSize = Annotated[int, Meta(ge=0, lt=10**15)]
PartSize = Annotated[float, Meta(ge=0, lt=1e15)]
Size = WholeSize | PartSize
Ms = Annotated[int, Meta(ge=0, lt=10**14)]
Symbol = Annotated[str, Meta(min_length=1, max_length=48)]  # and SYMBOL, looked at once a symbol: it is half of decoding
Codes = Annotated[list[int], Meta(max_length=64)]
TradeId = Annotated[str, Meta(max_length=128)]
Fraction = Annotated[str, Meta(pattern=r"^[0-9]{1,15}(\.[0-9]{1,12})?\Z")]  # a size as a decimal
SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/^+-]*")
BAR_MS_MAX = 86_400_000
LEVELS_MAX = 20  # of a side of a book
LevelSize = Annotated[int, Meta(gt=0, lt=10**15)] | Annotated[float, Meta(gt=0, lt=1e15)]  # a level of nothing is no level
Level = tuple[Price, LevelSize]
Levels = Annotated[list[Level], Meta(max_length=LEVELS_MAX)]
ArticleId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")]
Title = Annotated[str, Meta(min_length=1, max_length=400)]
ShortText = Annotated[str, Meta(max_length=600)]
Url = Annotated[str, Meta(pattern=r"^(https?://[^\s]{1,2000})?\Z")]  # what a page may link to
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)  # what matters for taking a JSON array apart


class BadEvent(ValueError):
    """An event that decodes but cannot be used; it is counted by `why`, sampled and kept, and its batch goes on."""

    def __init__(self, reason: str, why: str = "bad") -> None:
        super().__init__(reason)
        self.why = why


class Trade(Struct, tag_field="ev", tag="T", gc=False):
    """A stock, option or future trade."""

    symbol: Symbol = field(name="sym")
    price: Price = field(name="p")
    size: Size = field(name="s")
    ts: Ms = field(name="t")
    conditions: Codes | None = field(name="c", default=None)
    exchange: int = field(name="x", default=0)
    id: TradeId = field(name="i", default="")
    fractional: Fraction | None = field(name="ds", default=None)
    tape: int = field(name="z", default=0)
    continuous = False

    @property
    def listed(self) -> bool:
        return self.tape > 0  # futures, and what our exchange trades, are on no tape

    def __post_init__(self) -> None:
        if self.fractional is not None:
            self.size = _size(self.fractional)


class CryptoTrade(Struct, tag_field="ev", tag="XT", gc=False):
    """A crypto trade; condition 1 = seller was the aggressor, 2 = buyer."""

    symbol: Symbol = field(name="pair")
    price: Price = field(name="p")
    size: Size = field(name="s")
    ts: Ms = field(name="t")
    conditions: Codes | None = field(name="c", default=None)
    exchange: int = field(name="x", default=0)
    id: TradeId = field(name="i", default="")
    continuous = True
    listed = False


class Quote(Struct, tag_field="ev", tag="Q", gc=False):
    """Best bid and offer of a stock, option or future."""

    symbol: Symbol = field(name="sym")
    ts: Ms = field(name="t")
    bid: PriceOrNone = field(name="bp", default=0.0)
    ask: PriceOrNone = field(name="ap", default=0.0)
    bid_size: Size = field(name="bs", default=0)
    ask_size: Size = field(name="as", default=0)
    tape: int = field(name="z", default=0)
    venue = None  # the best of all of them already
    continuous = False

    @property
    def listed(self) -> bool:
        return self.tape > 0


class CryptoQuote(Struct, tag_field="ev", tag="XQ", gc=False):
    """Best bid and offer of a crypto pair on one exchange."""

    symbol: Symbol = field(name="pair")
    ts: Ms = field(name="t")
    bid: PriceOrNone = field(name="bp", default=0.0)
    ask: PriceOrNone = field(name="ap", default=0.0)
    bid_size: Size = field(name="bs", default=0)
    ask_size: Size = field(name="as", default=0)
    venue: int = field(name="x", default=0)
    continuous = True
    listed = False


class ForexQuote(Struct, tag_field="ev", tag="C", gc=False):
    """Best bid and offer of a currency pair; the vendor gives no sizes."""

    symbol: Symbol = field(name="p")
    ts: Ms = field(name="t")
    bid: PriceOrNone = field(name="b", default=0.0)
    ask: PriceOrNone = field(name="a", default=0.0)
    bid_size = None
    ask_size = None
    venue = None
    continuous = True
    listed = False


class _StockBar(Struct, gc=False):
    symbol: Symbol = field(name="sym")
    start: Ms = field(name="s")
    end: Ms = field(name="e")
    open: Price = field(name="o")
    high: Price = field(name="h")
    low: Price = field(name="l")
    close: Price = field(name="c")
    volume: Size = field(name="v", default=0)
    vwap: PriceOrNone | None = field(name="vw", default=None)
    day_volume: Size | None = field(name="av", default=None)
    day_vwap: PriceOrNone | None = field(name="a", default=None)
    day_open: PriceOrNone | None = field(name="op", default=None)
    fractional: Fraction | int | float | None = field(name="dv", default=None)
    day_fractional: Fraction | None = field(name="dav", default=None)
    continuous = False

    @property
    def listed(self) -> bool:
        return self.day_volume is not None or self.day_open is not None  # a future's aggregates say nothing of the day

    @property
    def ts(self) -> int:
        return self.start

    def __post_init__(self) -> None:
        _check_length(self.start, self.end)
        if isinstance(self.fractional, str):
            self.volume = _size(self.fractional)
        if self.day_fractional is not None:
            self.day_volume = _size(self.day_fractional)


class SecondBar(_StockBar, tag_field="ev", tag="A", gc=False):
    """A second's aggregate of a stock, option, future or index."""


class MinuteBar(_StockBar, tag_field="ev", tag="AM", gc=False):
    """A minute's aggregate."""


class _PairBar(Struct, gc=False):
    symbol: Symbol = field(name="pair")
    start: Ms = field(name="s")
    end: Ms = field(name="e")
    open: Price = field(name="o")
    high: Price = field(name="h")
    low: Price = field(name="l")
    close: Price = field(name="c")
    volume: Size = field(name="v", default=0)
    vwap: PriceOrNone | None = field(name="vw", default=None)
    day_volume = None
    day_vwap = None
    day_open = None
    continuous = True
    listed = False

    @property
    def ts(self) -> int:
        return self.start

    def __post_init__(self) -> None:
        _check_length(self.start, self.end)


class CryptoMinuteBar(_PairBar, tag_field="ev", tag="XA", gc=False):
    """A minute's aggregate of a crypto pair."""


class CryptoSecondBar(_PairBar, tag_field="ev", tag="XAS", gc=False):
    """A second's aggregate of a crypto pair."""


class ForexMinuteBar(_PairBar, tag_field="ev", tag="CA", gc=False):
    """A minute's aggregate of a currency pair."""


class ForexSecondBar(_PairBar, tag_field="ev", tag="CAS", gc=False):
    """A second's aggregate of a currency pair."""


class IndexValue(Struct, tag_field="ev", tag="V", gc=False):
    """The value of an index."""

    symbol: Symbol = field(name="T")
    value: Price = field(name="val")
    ts: Ms = field(name="t")
    continuous = False
    listed = True  # indices of stocks are all that there are


class LimitBands(Struct, tag_field="ev", tag="LULD", gc=False):
    """Limit up/limit down price bands; indicators 17 = halted, 18 = trading resumed (with others: band states)."""

    symbol: Symbol = field(name="T")
    ts: Ms = field(name="t")
    high: PriceOrNone = field(name="h", default=0.0)
    low: PriceOrNone = field(name="l", default=0.0)
    indicators: Codes | None = field(name="i", default=None)
    tape: int = field(name="z", default=0)


class Book(Struct, tag_field="ev", tag="L2", gc=False):
    """The best levels of both sides of a book, best first; each event replaces the whole. Not the vendor's, our own.

    A side without orders is empty. Bids may be at or above asks: venues that are matched elsewhere are, for moments.
    """

    symbol: Symbol = field(name="sym")
    bids: Levels = field(name="b")
    asks: Levels = field(name="a")
    ts: Ms = field(name="t")

    def __post_init__(self) -> None:
        if any(better <= worse for (better, _), (worse, _) in pairwise(self.bids)):
            raise ValueError("bids must fall from level to level")
        if any(better >= worse for (better, _), (worse, _) in pairwise(self.asks)):
            raise ValueError("asks must rise from level to level")


class Article(Struct, tag_field="ev", tag="news", gc=False):
    """One copy of a news article, for one symbol, or (without one) for the list of all. Not the vendor's, our own (`mdl/news`).

    `tickers` are the symbols it names, `more` how many others it names beside them; `url` is http(s) or empty.
    """

    id: ArticleId
    title: Title
    ts: Ms = field(name="t")
    url: Url = ""
    source: ShortText = ""
    summary: ShortText = ""
    tickers: Annotated[list[Symbol], Meta(max_length=100)] = []
    more: Annotated[int, Meta(ge=0)] = 0
    symbol: Annotated[str, Meta(max_length=48)] = field(name="sym", default="")


AnyTrade = Trade | CryptoTrade
AnyQuote = Quote | CryptoQuote | ForexQuote
AnyBar = SecondBar | MinuteBar | CryptoMinuteBar | CryptoSecondBar | ForexMinuteBar | ForexSecondBar
Event = Union[  # noqa: UP007  # msgspec reads the alias at run time
    Trade, CryptoTrade, Quote, CryptoQuote, ForexQuote, SecondBar, MinuteBar, CryptoMinuteBar, CryptoSecondBar,
    ForexMinuteBar, ForexSecondBar, IndexValue, LimitBands, Book,
]  # fmt: skip
TRADES = (Trade, CryptoTrade)
QUOTES = (Quote, CryptoQuote, ForexQuote)
SECOND_BARS = (SecondBar, CryptoSecondBar, ForexSecondBar)
MINUTE_BARS = (MinuteBar, CryptoMinuteBar, ForexMinuteBar)


def _size(decimal: str) -> int | float:
    value = float(decimal)
    return int(value) if value.is_integer() else value


def _check_length(start: int, end: int) -> None:
    if not 0 <= end - start <= BAR_MS_MAX:
        raise ValueError(f"an aggregate from {start} to {end}")


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # the last for JSON nested a thousand deep


class _Head(Struct):
    ev: str = "(none)"


class Decoder:
    """Batch bodies in, events out. A batch is decoded in one call; only one with a bad event is taken apart."""

    def __init__(self, kind: Any = Event) -> None:
        self._many = msgspec.json.Decoder(list[kind])
        self._one = msgspec.json.Decoder(kind)
        self._raw = msgspec.json.Decoder(list[msgspec.Raw])
        self._head = msgspec.json.Decoder(_Head)

    def decode(self, body: bytes, skip: int = 0) -> tuple[list[Any], list[tuple[bytes, str]]]:
        """Return (events in order without the first `skip`, [(bad event's bytes, reason)]).

        Cost: 0.5 µs an event when all are good.
        """
        try:
            events = self._many.decode(body)
            return (events[skip:] if skip else events), []
        except UNREADABLE:
            return self._one_by_one(body, skip)

    def pieces(self, body: bytes) -> list[bytes]:
        """Return the raw events of a batch, [] when it is not a JSON array."""
        try:
            return [bytes(piece) for piece in self._raw.decode(body)]
        except UNREADABLE:
            return split_array(body)

    def type_name(self, piece: bytes) -> str:
        """Return the `ev` of a raw event, at most 20 characters."""
        try:
            return self._head.decode(piece).ev[:20]
        except UNREADABLE:
            return "(none)"

    def _one_by_one(self, body: bytes, skip: int) -> tuple[list[Any], list[tuple[bytes, str]]]:
        pieces = self.pieces(body)
        if not pieces:
            return [], [(body, "the batch is not a JSON array of events")]
        good: list[Any] = []
        bad: list[tuple[bytes, str]] = []
        for piece in pieces[skip:]:
            try:
                good.append(self._one.decode(piece))
            except UNREADABLE as error:
                bad.append((piece, str(error)))
        return good, bad


def split_array(body: bytes) -> list[bytes]:
    """Return the elements of a JSON array by its brackets and commas alone: one element that is no JSON spoils no other.

    [] when `body` is not an array to its end.
    """
    text = body.strip()
    if text[:1] != b"[" or text[-1:] != b"]":
        return []
    pieces: list[bytes] = []
    depth, start = 0, 1
    for token in TOKEN.finditer(text):
        mark = token.group()
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        if (depth == 1 and mark == b",") or depth == 0:
            pieces.append(text[start : token.start()].strip())
            start = token.end()
        if depth == 0:
            break
    return pieces if depth == 0 and start == len(text) and pieces != [b""] else []
