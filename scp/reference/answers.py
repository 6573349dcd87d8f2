"""Reads the vendor's answers about one stock: what is not as it must be is null or no answer, and never another company's. Pure.

Shapes: `/v3/reference/tickers/{ticker}`, `/vX/reference/tickers/{ticker}/events`, `/stocks/v1/short-interest`,
`/stocks/v1/short-volume`, `/v3/reference/splits`, `/stocks/filings/vX/index`, `/v2/aggs/ticker/…/range/…`.
"""

from __future__ import annotations

from datetime import date
from operator import attrgetter
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Raw, Struct, field
from msgspec.structs import fields

from service.errors import UNREADABLE

ROWS_MAX = 10  # of splits, events and filings that are passed on
TEXT_MAX, URL_MAX = 4_000, 500
Count = Annotated[float, Meta(ge=0, lt=1e15)]
Part = Annotated[float, Meta(gt=0, lt=1e9)]
Price = Annotated[float, Meta(gt=0, lt=1e12)]
Word = Annotated[str, Meta(min_length=1, max_length=200)]
NULL = Raw(b"null")  # what is not there: a union with None would not be raw
T = TypeVar("T", bound=Struct)


class BadAnswer(ValueError):
    """An answer that cannot be used: another shape, a half, another ticker's."""


class Overview(Struct):
    """What a company is; null = not known. `market_cap` in `currency`, `shares` outstanding."""

    name: str | None = None
    about: str | None = None
    industry: str | None = None
    exchange: str | None = None
    kind: str | None = None
    currency: str | None = None
    place: str | None = None
    homepage: str | None = None
    listed_on: date | None = None
    employees: int | None = None
    shares: float | None = None
    market_cap: float | None = None
    active: bool | None = None


class ShortInterest(Struct):
    """Shares sold short on a settlement date."""

    settled_on: date
    shares: Count
    usual_volume: Count | None = None
    days_to_cover: Annotated[float, Meta(ge=0, lt=1e6)] | None = None


class ShortVolume(Struct):
    """Of a day's volume that was reported, how many shares were sold short."""

    on: date
    shares: Count
    of: Count
    pct: float | None = None


class Split(Struct):
    """On the morning of `on`, `before` shares became `after`."""

    on: date
    before: Part
    after: Part


class Renaming(Struct):
    """From `on` the stock was called `ticker`."""

    on: date
    ticker: Word


class Filing(Struct):
    """A report to the SEC; `url` null when it is no address that may be opened."""

    on: date
    form: Annotated[str, Meta(min_length=1, max_length=32)]
    url: str | None = None


class Branded(Struct):
    """An overview, and where its pictures are, the small one first."""

    overview: Overview
    pictures: list[str]


class _Page(Struct):
    results: Raw = NULL
    count: int | None = None
    results_count: int | None = field(name="resultsCount", default=None)
    next_url: str | None = None
    status: str = ""
    adjusted: bool | None = None
    ticker: str | None = None


class BarRow(Struct):
    """A bar as the vendor writes it."""

    t: Annotated[int, Meta(gt=0, lt=2**53)]
    open: Price = field(name="o")
    high: Price = field(name="h")
    low: Price = field(name="l")
    close: Price = field(name="c")
    volume: Count = field(name="v")
    vwap: Annotated[float, Meta(ge=0, lt=1e12)] | None = field(name="vw", default=None)
    trades: Annotated[int, Meta(ge=0, lt=2**53)] | None = field(name="n", default=None)

    def __post_init__(self) -> None:
        if not self.low <= min(self.open, self.close) <= max(self.open, self.close) <= self.high:
            raise ValueError("open or close is outside of low and high")


class BarPage(Struct):
    """A page of bars; `next_url` of the page after, empty when there is none. `delayed` = the newest are of a while ago."""

    rows: list[BarRow]
    next_url: str
    delayed: bool


_page = msgspec.json.Decoder(_Page)
_bars = msgspec.json.Decoder(list[BarRow])


def read_overview(body: bytes, symbol: str) -> Branded:
    """Return what a company is.  Raises: BadAnswer."""
    found = _fields(_results(body))
    if _as(found, "ticker", str) != symbol:
        raise BadAnswer("the answer is of another ticker")
    address, branding = _fields(found.get("address", Raw(b"{}"))), _fields(found.get("branding", Raw(b"{}")))
    city, state = (_as(address, name, Word) for name in ("city", "state"))
    shares = _as(found, "share_class_shares_outstanding", Count) or _as(found, "weighted_shares_outstanding", Count)
    employees = _as(found, "total_employees", Count)
    about = _as(found, "description", str)
    made = Overview(
        _as(found, "name", Word), about[:TEXT_MAX] if about else None, _as(found, "sic_description", Word),
        _as(found, "primary_exchange", Word), _as(found, "type", Word), _as(found, "currency_name", Word),
        ", ".join(part for part in (city and city.title(), state) if part) or None, web(_as(found, "homepage_url", str)),
        _as(found, "list_date", date), None if employees is None else round(employees), shares, _as(found, "market_cap", Count),
        _as(found, "active", bool),
    )  # fmt: skip
    pictures = [url for name in ("icon_url", "logo_url") if (url := web(_as(branding, name, str)))]
    return Branded(made, pictures)


def read_interest(body: bytes, symbol: str) -> ShortInterest | None:
    """Return the newest short interest, None when none is known.  Raises: BadAnswer."""
    names = ("settlement_date", "short_interest", "avg_daily_volume", "days_to_cover")
    return _newest(_rows(body, symbol, ShortInterest, names))


def read_volume(body: bytes, symbol: str) -> ShortVolume | None:
    """Return the newest day's short volume, None when none is known.  Raises: BadAnswer."""
    found = _newest(_rows(body, symbol, ShortVolume, ("date", "short_volume", "total_volume")))
    if found is not None and found.of >= found.shares and found.of:
        found.pct = round(100 * found.shares / found.of, 2)
    return found


def read_splits(body: bytes, symbol: str) -> list[Split]:
    """Return the splits, the newest first.  Raises: BadAnswer."""
    return _rows(body, symbol, Split, ("execution_date", "split_from", "split_to"))


def read_filings(body: bytes, symbol: str) -> list[Filing]:
    """Return the newest filings, the newest first.  Raises: BadAnswer."""
    found = _rows(body, symbol, Filing, ("filing_date", "form_type", "filing_url"))
    for one in found:
        one.url = web(one.url)
    return found


def read_events(body: bytes, symbol: str) -> list[Renaming]:
    """Return since when the stock has had which ticker, the newest first.  Raises: BadAnswer."""
    found = []
    for raw in _as(_fields(_results(body)), "events", list[Raw]) or []:
        event = _fields(raw)
        ticker, on = _as(_fields(event.get("ticker_change", Raw(b"{}"))), "ticker", Word), _as(event, "date", date)
        if _as(event, "type", str) == "ticker_change" and ticker and on:
            found.append(Renaming(on, ticker))
    return sorted(found, key=lambda one: one.on, reverse=True)[:ROWS_MAX]


def read_bars(body: bytes, symbol: str) -> BarPage:
    """Return a page of bars, all of it or none.  Raises: BadAnswer."""
    page = _decode(body)
    if page.ticker not in (None, symbol) or page.adjusted is False:
        raise BadAnswer("bars of another ticker, or of another kind than was asked for")
    if page.results == NULL:
        if page.results_count == 0:
            return BarPage([], "", False)
        raise BadAnswer("an answer of another shape: it has no results")
    try:
        rows = _bars.decode(page.results)
    except UNREADABLE as error:
        raise BadAnswer(f"a bar that is none: {error}") from None
    if page.results_count not in (None, len(rows)):
        raise BadAnswer(f"half an answer: {len(rows)} of {page.results_count} bars")
    return BarPage(rows, page.next_url or "", page.status == "DELAYED")


def web(url: str | None) -> str | None:
    """Return an address that may be opened, None for any other."""
    if url is None or len(url) > URL_MAX:
        return None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.username
    except ValueError:
        return None
    return url if usable and url.isprintable() and " " not in url else None


def _decode(body: bytes) -> _Page:
    try:
        return _page.decode(body)
    except UNREADABLE as error:
        raise BadAnswer(f"an answer of another shape: {error}") from None


def _results(body: bytes) -> Raw:
    found = _decode(body).results
    if found == NULL:
        raise BadAnswer("an answer of another shape: it has no results")
    return found


def _fields(raw: Raw) -> dict[str, Raw]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Raw])
    except UNREADABLE:
        return {}


def _as(found: dict[str, Raw], name: str, kind: Any) -> Any:
    """Return a field when it is what it must be, else None."""
    try:
        return msgspec.json.decode(found[name], type=kind) if name in found else None
    except UNREADABLE:
        return None


def _rows(body: bytes, symbol: str, kind: type[T], names: tuple[str, ...]) -> list[T]:
    """Return the rows that are right, the newest first by the date that is their first field; those of other tickers are none."""
    ours, made = [one.name for one in fields(kind)], []
    rows: list[Raw] | None = _as({"rows": _results(body)}, "rows", list[Raw])
    if rows is None:
        raise BadAnswer("an answer of another shape: its results are no list")
    for raw in rows:
        row = _fields(raw)
        if _as(row, "ticker", str) not in (None, symbol):
            continue
        given = {own: _plain(row[theirs]) for own, theirs in zip(ours, names, strict=False) if theirs in row}
        try:
            made.append(msgspec.convert(given, type=kind))
        except msgspec.ValidationError:
            continue
    return sorted(made, key=attrgetter(ours[0]), reverse=True)[:ROWS_MAX]


def _plain(raw: Raw) -> Any:
    found = msgspec.json.decode(raw)
    return found if not isinstance(found, (dict, list)) else None


def _newest(rows: list[T]) -> T | None:
    return rows[0] if rows else None
