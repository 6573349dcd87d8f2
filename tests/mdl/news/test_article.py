"""Checks what counts as an article, and the events made of one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.news.article import TICKERS_MAX, BadArticle, events, read
from mdl.router import Router
from mdp.events.vendor import Article as Published
from mdp.events.vendor import Decoder
from service.partition import partition_of

GOOD: dict[str, Any] = {"id": "a1", "title": "Apple unveils", "published_utc": "2026-01-05T14:30:00Z"}


def made(**more: Any) -> bytes:
    return json.dumps(GOOD | more).encode()


def test_an_article_of_the_vendor_is_read_whole() -> None:
    """Each ticker once, in its order; what is none is left out; the time in ms."""
    article = read(
        made(
            article_url=" https://x.example/1 ", publisher={"name": "Wire", "logo_url": "…"}, description="It\n\nis",
            tickers=["AAPL", "MSFT", "AAPL", "no ticker", 7, None], keywords=["k"], insights=[{"odd": 1}],
        )
    )  # fmt: skip
    assert (article.id, article.title, article.url, article.source) == ("a1", "Apple unveils", "https://x.example/1", "Wire")
    assert (article.summary, article.tickers, article.t) == ("It is", ["AAPL", "MSFT"], 1_767_623_400_000)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"id": None}, "id"), ({"id": " "}, "an empty id"), ({"title": ""}, "an empty title"), ({"title": "\u202e\n"}, "title"),
        ({"title": ["x"]}, "title"), ({"published_utc": "yesterday"}, "published_utc"), ({"published_utc": 5}, "published_utc"),
        ({"tickers": "AAPL"}, "tickers"), ({"publisher": [1]}, "publisher"),
    ],
)  # fmt: skip
def test_another_shape_is_refused_in_words(more: dict[str, Any], said: str) -> None:
    """What is missing or of another kind is named."""
    with pytest.raises(BadArticle, match=said):
        read(made(**more))


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b'"x"', b'{"id":', b"\xff", b"[" * 3_000, b"{}"])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    """Whatever the bytes."""
    with pytest.raises(BadArticle):
        read(data)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "ftp://x", "//x.example", "https://a b", "x" * 3_000])
def test_only_links_that_a_page_may_show_are_kept(url: str) -> None:
    """The article comes without."""
    assert read(made(article_url=url)).url == ""


def test_an_article_goes_to_each_of_its_symbols_and_once_to_the_list_of_all() -> None:
    """The router puts every copy into the partition of its symbol, and that of the list where the article's id belongs."""
    copies = events(read(made(tickers=["AAPL", "MSFT", "X:BTC-USD"])))
    router = Router(8)
    assert router.route(b"[%b]" % b",".join(copies)) == 4
    found = {json.loads(bytes(event)).get("sym", ""): (stream, at) for stream, at, some in router.take() for event in some}
    places = {"": partition_of("a1", 8)} | {symbol: partition_of(symbol, 8) for symbol in ("AAPL", "MSFT", "X:BTC-USD")}
    assert found == {symbol: ("news", at) for symbol, at in places.items()}


def test_an_article_with_a_thousand_tickers_is_a_list() -> None:
    """The first twenty get it, the others are counted."""
    copies = [json.loads(copy) for copy in events(read(made(tickers=[f"T{n}" for n in range(1_000)])))]
    assert [copy.get("sym") for copy in copies] == [None, *(f"T{n}" for n in range(TICKERS_MAX))]
    assert {copy["more"] for copy in copies} == {1_000 - TICKERS_MAX}


@given(
    st.text(min_size=1), st.text(min_size=1), st.text(), st.text(), st.text(),
    st.lists(st.text(max_size=60) | st.integers(), max_size=30),
)  # fmt: skip
def test_processors_take_whatever_is_published(
    name: str, title: str, url: str, source: str, summary: str, tickers: list[Any]
) -> None:
    """Any text of a source becomes events within the processors' bounds, or is refused here."""
    try:
        article = read(
            made(id=name, title=title, article_url=f"https://{url}", publisher=source, description=summary, tickers=tickers)
        )
    except BadArticle:
        return
    copies = events(article)
    good, bad = Decoder(Published).decode(b"[%b]" % b",".join(copies))
    assert (len(good), bad) == (len(copies), [])
