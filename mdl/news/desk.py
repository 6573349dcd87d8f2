"""Makes frames of events of what a source of news delivers: each article once, bad ones counted. Pure.

Invariant: one article that cannot be read never loses those beside it; none is published twice by one desk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

import msgspec

from mdl.news.article import UNREADABLE, Article, BadArticle, events, read
from mdl.news.tickers import Companies

KNOWN_MAX = 20_000  # articles remembered by their id: days of a busy source
SAMPLE_MAX = 200
FRAME_ARTICLES = 50
NEVER_MS = 1 << 60
OnBad = Callable[[str, str], None]

_raw = msgspec.json.Decoder(msgspec.Raw)
_list = msgspec.json.Decoder(list[msgspec.Raw])


class NewsDesk:
    """Takes deliveries; `on_bad(why, sample)` hears of what was no article.

    `newest_ms` = when the newest was published, 0 = there was none; one dated later than believed does not count.
    """

    def __init__(self, companies: Companies, on_bad: OnBad) -> None:
        self.malformed = 0
        self.articles = 0
        self.newest_ms = 0
        self._companies = companies
        self._on_bad = on_bad
        self._known: OrderedDict[str, None] = OrderedDict()

    def deliver(self, data: bytes | str) -> Iterator[bytes]:
        """Yield the frames of a message that holds an article or a list of them; none when it brings nothing new."""
        try:
            raws = _list.decode(data) if _starts_list(data) else [_raw.decode(data)]
        except UNREADABLE as error:
            self._bad(str(error), data)
            return iter(())
        return self.take(raws)

    def take(self, raws: Sequence[bytes | msgspec.Raw], believed_ms: int = NEVER_MS) -> Iterator[bytes]:
        """Yield the frames of these articles, JSON objects, without those that are known already.  Cost: 2 ms a frame.

        `believed_ms`: an article that says to be of later than that is published, but the next question does not begin there.
        """
        for first in range(0, len(raws), FRAME_ARTICLES):
            fresh = [
                article for raw in raws[first : first + FRAME_ARTICLES] if (article := self._read(raw, believed_ms)) is not None
            ]
            if fresh:
                yield _frame(fresh)

    def _read(self, raw: bytes | msgspec.Raw, believed_ms: int) -> Article | None:
        try:
            article = read(raw)
        except BadArticle as error:
            if self._is_new(f"bad {sha256(bytes(raw)).hexdigest()}"):  # who asks again gets it again
                self._bad(str(error), bytes(raw))
            return None
        if not self._is_new(article.id):
            return None
        self.articles += 1
        if article.t <= believed_ms:
            self.newest_ms = max(self.newest_ms, article.t)
        if not article.tickers:
            article.tickers = self._companies.find(article.title, article.summary)
        return article

    def _is_new(self, name: str) -> bool:
        if name in self._known:
            self._known.move_to_end(name)
            return False
        self._known[name] = None
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return True

    def _bad(self, why: str, data: bytes | str) -> None:
        self.malformed += 1
        sample = data if isinstance(data, str) else data[: 4 * SAMPLE_MAX].decode(errors="replace")
        self._on_bad(why, sample[:SAMPLE_MAX])


def _starts_list(data: bytes | str) -> bool:
    return data.lstrip()[:1] in (b"[", "[")


def _frame(articles: list[Article]) -> bytes:
    return b"[%b]" % b",".join(event for article in articles for event in events(article))
