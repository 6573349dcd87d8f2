"""Says what is known of a company and how it traded earlier, of many answers of the vendor's, each kept for as long as it holds.

Invariant: what is not known is null, and `parts` says why; an old answer is called old.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Generator
from datetime import date, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from scp.fleet.remote import Reply
from scp.problems import Problem
from scp.reference import answers
from scp.reference.answers import BarRow, Branded, Filing, Overview, Renaming, ShortInterest, ShortVolume, Split
from scp.reference.picture import kind_of
from scp.reference.shelf import Kept, Shelf
from scp.reference.vendor import WAIT_S, Further, Nothing, Vendor
from scp.reference.windows import (
    DAY_MS,
    HOLES_MAX,
    MINUTE_MS,
    NUMBERS,
    SPANS,
    Packed,
    Span,
    Window,
    fresh_until,
    pack,
    rows_before,
    windows,
)
from scp.settings import ScpSettings
from service.address import address_of
from service.days.markets import STOCKS

STOCK = re.compile(r"[A-Z][A-Za-z0-9.]{0,15}")
OPTION = re.compile(r"O:[A-Z0-9]{1,40}")
SHELF_NUMBERS = 4_000_000  # of bars, 8 bytes each; the rest is small beside it
BASE_BARS_MAX = 50_000  # of a page; the vendor counts the minutes that an hour is made of. More has a `next_url`
COMPANY_WEIGHT = 1_000  # as many such numbers
WINDOWS_MAX = 8  # of one answer
CACHED_DAYS = 45  # the pipeline's own bars of so many days are not worked over after a split
AGAIN_S = 5
State = Literal["known", "none", "stale", "refused", "pending", "failed"]
PartName = Literal["overview", "short_interest", "short_volume", "splits", "events", "filings"]
Rows = list[list[float | int | None]]


class Company(msgspec.Struct):
    """What is known of a company. `parts` says of each part: known, none (the vendor has nothing), stale (of earlier; the vendor
    is away), refused (not in the plan of our key), pending (ask again after `again_s`), failed. `as_of_ms` = of the oldest part.
    """

    symbol: str
    overview: Overview | None
    short_interest: ShortInterest | None
    short_volume: ShortVolume | None
    splits: list[Split]
    events: list[Renaming]
    filings: list[Filing]
    logo: bool
    parts: dict[PartName, State]
    as_of_ms: int | None
    again_s: int | None


class Candles(msgspec.Struct):
    """Bars before a time, oldest first: [t, open, high, low, close, volume, vwap, trades], in today's shares.

    `next` goes into `before` of the next request, null = nothing older is known. `split_ms`: the pipeline's own bars of before it
    are in other shares. `stale`: the vendor is away, and this was said at `as_of_ms`.
    """

    symbol: str
    span: str
    bars: Rows
    next: int | None
    split_ms: int | None
    stale: bool
    as_of_ms: int


class Picture(msgspec.Struct):
    """Bytes of a kind that browsers show."""

    kind: str
    data: bytes


class Part(msgspec.Struct):
    """One question about a company."""

    path: str
    params: dict[str, str]
    read: Callable[[bytes, str], Any]


PARTS: dict[PartName, Part] = {
    "overview": Part("/v3/reference/tickers/{}", {}, answers.read_overview),
    "short_interest": Part("/stocks/v1/short-interest", {"limit": "2", "sort": "settlement_date.desc"}, answers.read_interest),
    "short_volume": Part("/stocks/v1/short-volume", {"limit": "2", "sort": "date.desc"}, answers.read_volume),
    "splits": Part("/v3/reference/splits", {"limit": "10", "sort": "execution_date", "order": "desc"}, answers.read_splits),
    "events": Part("/vX/reference/tickers/{}/events", {}, answers.read_events),
    "filings": Part("/stocks/filings/vX/index", {"limit": "8", "sort": "filing_date.desc"}, answers.read_filings),
}


class ReferenceDesk:
    """For the threads of requests."""

    def __init__(self, settings: ScpSettings) -> None:
        self._vendor = Vendor(settings, Shelf(SHELF_NUMBERS))

    # ---- companies

    def company(self, symbol: str, person: int) -> Company:
        """Return what is known of a company.  Raises: Problem."""
        self._check(symbol, STOCK)
        kept = {name: self._vendor.kept(_name(name, symbol)) for name in PARTS}
        if all(kept.values()):
            return self._company(symbol, {name: one for name, one in kept.items() if one is not None})
        return self._company(symbol, self._run(self._parts(symbol, person)))

    def logo(self, symbol: str, person: int) -> Picture:
        """Return the company's logo.  Raises: Problem 404, 429, 503."""
        self._check(symbol, STOCK)
        kept = self._vendor.kept(_name("logo", symbol)) or self._run(self._logo(symbol, person))
        if isinstance(kept.value, Picture):
            return kept.value
        raise Problem(404, "no_logo", f"No logo of {symbol} is known that may be shown")

    async def _parts(self, symbol: str, person: int) -> dict[PartName, Kept | Problem | None]:
        """Return the parts; a Problem for one that could not be asked, None for one that is still under way."""
        asked = {name: asyncio.ensure_future(self._part(name, symbol, person)) for name in PARTS}
        await asyncio.wait(asked.values(), timeout=WAIT_S)
        found: dict[PartName, Kept | Problem | None] = {}
        for name, task in asked.items():
            if not task.done():
                task.cancel()  # the question itself goes on
                found[name] = None
            elif isinstance(error := task.exception(), Problem):
                found[name] = error
            else:
                found[name] = task.result()
        return found

    async def _part(self, name: PartName, symbol: str, person: int) -> Kept:
        part = PARTS[name]
        params = part.params if "{}" in part.path else {"ticker": symbol, **part.params}

        def read(reply: Reply) -> Any:
            return part.read(reply.body, symbol)

        path = part.path.format(quote(symbol, safe=""))
        return await self._vendor.said(
            _name(name, symbol), path, params, person, read, self._until_tomorrow, lambda _: COMPANY_WEIGHT
        )

    def _until_tomorrow(self) -> int:
        now_ms = self._vendor.now_ms
        return min(STOCKS.day_of(now_ms).end_ms, now_ms + DAY_MS)

    def _company(self, symbol: str, found: dict[PartName, Kept | Problem | None] | dict[PartName, Kept]) -> Company:
        said, states, now_ms = {}, dict[PartName, State](), self._vendor.now_ms
        for name, one in found.items():
            states[name] = state_of(one, now_ms)
            said[name] = one.value if isinstance(one, Kept) and not isinstance(one.value, Nothing) else None
        if states["overview"] == "none":
            raise Problem(404, "not_known", f"The vendor knows no stock {symbol}")
        if not any(state in ("known", "stale", "none", "refused") for state in states.values()):
            first = found["overview"]
            raise first if isinstance(first, Problem) else _slow()
        branded: Branded | None = said["overview"]
        waiting = any(state in ("pending", "failed") for state in states.values())
        ages = [one.at_ms for one in found.values() if isinstance(one, Kept)]
        return Company(
            symbol, branded.overview if branded else None, said["short_interest"], said["short_volume"], said["splits"] or [],
            said["events"] or [], said["filings"] or [], bool(branded and self._pictures(branded)), states,
            min(ages, default=None), AGAIN_S if waiting else None,
        )  # fmt: skip

    def _pictures(self, branded: Branded) -> list[str]:
        """Return where its pictures are, as far as the key may go there, those first that may be shown."""
        ours = [url for url in branded.pictures if address_of(url) == self._vendor.address]
        return sorted(ours, key=lambda url: urlsplit(url).path.lower().endswith(".svg"))

    async def _logo(self, symbol: str, person: int) -> Kept:
        overview = await self._part("overview", symbol, person)
        pictures = self._pictures(overview.value) if isinstance(overview.value, Branded) else []
        if not pictures:
            return Kept(None, self._vendor.now_ms, 0, 1)

        def read(reply: Reply) -> Picture | Nothing:
            kind = kind_of(reply.body)
            return Picture(kind, reply.body) if kind is not None else Nothing(refused=False)

        query = dict(parse_qsl(urlsplit(pictures[0]).query))
        url = pictures[0].partition("?")[0]
        return await self._vendor.said(
            _name("logo", symbol), url, query, person, read, self._until_tomorrow, lambda picture: 1 + len(picture.data) // 8
        )  # fmt: skip

    # ---- candles

    def candles(self, symbol: str, name: str, before_ms: int, limit: int, person: int) -> Candles:
        """Return the newest bars before a time.  Raises: Problem."""
        self._check(symbol, STOCK, OPTION)
        span, now_ms = SPANS[name], self._vendor.now_ms
        splits = self._vendor.kept(_name("splits", symbol)) if STOCK.fullmatch(symbol) else Kept([], now_ms, now_ms, 1)
        walking = walk(span, before_ms, limit, now_ms)
        try:
            window = next(walking)
            while splits is not None:
                kept = self._vendor.kept(_window_name(name, symbol, window))
                if kept is None:
                    break
                window = walking.send(kept)
        except StopIteration as ended:
            return self._candles(symbol, name, ended.value, splits)
        found: Candles = self._run(self._walk(symbol, name, before_ms, limit, person))
        return found

    async def _walk(self, symbol: str, name: str, before_ms: int, limit: int, person: int) -> Candles:
        span, walking = SPANS[name], walk(SPANS[name], before_ms, limit, self._vendor.now_ms)
        splits: Kept | None = None
        ends_s = asyncio.get_running_loop().time() + WAIT_S
        try:
            window = next(walking)
            if STOCK.fullmatch(symbol):
                async with asyncio.timeout_at(ends_s):
                    splits = await self._part("splits", symbol, person)
            while True:
                try:
                    async with asyncio.timeout_at(ends_s):
                        kept = await self._window(symbol, name, span, window, person)
                except (Problem, TimeoutError) as error:
                    window = walking.throw(error if isinstance(error, Problem) else _slow())
                else:
                    window = walking.send(kept)
        except StopIteration as ended:
            return self._candles(symbol, name, ended.value, splits)
        except TimeoutError:
            raise _slow() from None

    async def _window(self, symbol: str, name: str, span: Span, window: Window, person: int) -> Kept:
        start = (
            f"/v2/aggs/ticker/{quote(symbol, safe=':')}/range/{span.times}/{span.unit}/{window.since_ms}/{window.until_ms - 1}"
        )
        params = {"adjusted": "true", "sort": "asc", "limit": str(BASE_BARS_MAX)}
        rows: list[BarRow] = []

        def read(reply: Reply) -> Packed[float] | Further:
            page = answers.read_bars(reply.body, symbol)
            rows.extend(page.rows)
            if page.next_url:
                return Further(page.next_url)
            return pack(rows, span, window, self._vendor.now_ms, page.delayed)

        return await self._vendor.said(
            _window_name(name, symbol, window), start, params, person, read,
            lambda: fresh_until(name, window, self._vendor.now_ms), lambda packed: NUMBERS + len(packed),
        )  # fmt: skip

    def _candles(self, symbol: str, name: str, walked: Walked, splits: Kept | None) -> Candles:
        rows, following, ages, now_ms = *walked, self._vendor.now_ms
        stale = any(now_ms >= one.until_ms for one in ages)
        found = splits.value if splits is not None and isinstance(splits.value, list) else []
        return Candles(
            symbol, name, rows, following, split_start(found, now_ms), stale, min((one.at_ms for one in ages), default=now_ms)
        )

    # ----

    def _check(self, symbol: str, *forms: re.Pattern[str]) -> None:
        self._vendor.check()
        if not any(form.fullmatch(symbol) for form in forms):
            raise Problem(
                404, "not_a_stock", f"{symbol[:64]} is no stock: the vendor is asked for stocks (and candles of options)"
            )

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._vendor.errands.run(work, WAIT_S + 1.0, "The vendor's service")


Walked = tuple[Rows, int | None, list[Kept]]


def walk(span: Span, before_ms: int, limit: int, now_ms: int) -> Generator[Window, Kept, Walked]:
    """Yield the windows that an answer needs, the newest first; is sent what is kept of each, or thrown what went wrong.

    Returns: the rows, where to go on (None = nothing older is known), what was used. What went wrong with a later window only
    ends the answer before it.
    """
    rows: Rows = []
    used: list[Kept] = []
    holes = 0
    for at, window in enumerate(windows(span, before_ms, now_ms)):
        if at >= WINDOWS_MAX:
            return rows, window.until_ms, used
        try:
            kept = yield window
        except Problem:
            if not rows:
                raise
            return rows, window.until_ms, used
        used.append(kept)
        if isinstance(kept.value, Nothing):
            return rows, None, used  # so far back the plan of our key does not reach, or the ticker is not known
        rows = rows_before(kept.value, before_ms)[len(rows) - limit :] + rows
        if len(rows) >= limit:
            first = rows[0][0]
            return rows, int(first) if first is not None else None, used
        holes = 0 if kept.value else holes + 1
        if holes >= HOLES_MAX:
            break
    return rows, None, used


def split_start(splits: list[Split], now_ms: int) -> int | None:
    """Return when the trading day began on which the newest split of the last weeks was executed, None when there was none."""
    today = datetime.fromtimestamp(now_ms / 1000, STOCKS.zone).date()
    recent: list[date] = [one.on for one in splits if today - timedelta(days=CACHED_DAYS) <= one.on <= today]
    if not recent:
        return None
    opens = datetime.combine(max(recent), STOCKS.sessions[0][0], STOCKS.zone)
    return min(now_ms, round(opens.timestamp()) * 1000 // MINUTE_MS * MINUTE_MS)


def state_of(one: Kept | Problem | None, now_ms: int) -> State:
    """Return the word for how a part is known."""
    if one is None:
        return "pending"
    if isinstance(one, Problem):
        return "pending" if one.code in ("too_many_questions", "vendor_busy") else "failed"
    if isinstance(one.value, Nothing):
        return "refused" if one.value.refused else "none"
    if not one.fresh(now_ms):
        return "stale"
    return "none" if one.value in (None, []) else "known"


def _name(part: str, symbol: str) -> str:
    return f"{part} {symbol}"


def _window_name(name: str, symbol: str, window: Window) -> str:
    return f"{name} {symbol} {window.since_ms}"


def _slow() -> Problem:
    words = "The vendor's service is slow; its answer is waited for and kept. Ask again in a moment"
    return Problem(503, "vendor_slow", words, [("Retry-After", str(AGAIN_S))])
