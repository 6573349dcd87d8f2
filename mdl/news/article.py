"""Reads an article as the vendor and other sources write it, and makes the events that are published of it. Pure.

Sources write what the vendor's REST service does (`GET /v2/reference/news`); what is not listed here is passed over:

```json
{"id":"8ec6", "title":"Apple unveils …", "published_utc":"2026-01-05T14:30:00Z", "article_url":"https://…",
 "publisher":{"name":"Newswire"}, "description":"The company …", "tickers":["AAPL"]}
```

`id`, `title` and `published_utc` must be there. An event goes to the partition of each symbol, and one without a symbol to that
of the article's id (`T`): it is the article's place in the list of all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

TICKERS_MAX = 20  # an article that names more is a list: the first of them get it, the others are counted
TITLE_MAX, SUMMARY_MAX, SOURCE_MAX, URL_MAX = 300, 400, 60, 2_000
PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
TICKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/^+-]{0,47}")
URL = re.compile(r"https?://[^\s]+")
BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]+")  # also what turns a line of text around
UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


class BadArticle(ValueError):
    """What cannot be an article; the text says why."""


class _Publisher(msgspec.Struct):
    name: str | None = None


class _Incoming(msgspec.Struct):
    id: str | int
    title: str
    published_utc: datetime
    article_url: str | None = None
    publisher: _Publisher | str | None = None
    description: str | None = None
    tickers: list[Any] | None = None


class Article(msgspec.Struct):
    """One article. `tickers` as the source names them, each once; `t` in ms since the epoch; `url` is http(s) or empty."""

    id: str
    title: str
    url: str
    source: str
    summary: str
    tickers: list[str]
    t: int


class _Body(msgspec.Struct):
    id: str
    title: str
    url: str
    source: str
    summary: str
    tickers: Sequence[str]
    more: int
    t: int


_incoming = msgspec.json.Decoder(_Incoming).decode
_encode = msgspec.json.Encoder().encode


def read(data: bytes | msgspec.Raw) -> Article:
    """Return the article that `data`, a JSON object, holds.  Raises: BadArticle."""
    try:
        found = _incoming(data)
    except UNREADABLE as error:
        raise BadArticle(str(error)) from None
    name, title = str(found.id).strip(), _line(found.title, TITLE_MAX)
    if not name or not title:
        raise BadArticle(f"an empty {'title' if name else 'id'}")
    publisher = found.publisher.name if isinstance(found.publisher, _Publisher) else found.publisher
    tickers = [str(ticker).strip() for ticker in found.tickers or () if isinstance(ticker, str)]
    return Article(
        name if PLAIN_ID.fullmatch(name) else sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:40],
        title,
        _url(found.article_url or ""),
        _line(publisher or "", SOURCE_MAX),
        _line(found.description or "", SUMMARY_MAX),
        list(dict.fromkeys(ticker for ticker in tickers if TICKER.fullmatch(ticker))),
        _ms(found.published_utc),
    )


def events(article: Article) -> list[bytes]:
    """Return what is published of an article: one event for the list of all, one for each of its first TICKERS_MAX tickers."""
    tickers = article.tickers[:TICKERS_MAX]
    more = len(article.tickers) - len(tickers)
    body = _Body(article.id, article.title, article.url, article.source, article.summary, tickers, more, article.t)
    rest = _encode(body)[1:]
    places = (b'"T":%b' % _encode(article.id), *(b'"sym":%b' % _encode(ticker) for ticker in tickers))
    return [b'{"ev":"news",%b,%b' % (place, rest) for place in places]


def _line(text: str, most: int) -> str:
    """Return text as one line of at most `most` letters, what no reader can show left out."""
    plain = BLANKS.sub(" ", text.encode("utf-8", "ignore").decode()).strip()
    return plain if len(plain) <= most else f"{plain[: most - 1].rstrip()}…"


def _url(text: str) -> str:
    """Return a link that a page may show: http or https, nothing else."""
    plain = text.strip()
    return plain if len(plain) <= URL_MAX and URL.fullmatch(plain) and plain.isprintable() else ""


def _ms(at: datetime) -> int:
    return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)
