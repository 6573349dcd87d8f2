"""Checks that the desk publishes each article once and counts what is none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from mdl.news.desk import FRAME_ARTICLES, NewsDesk
from mdl.news.tickers import Companies


def article(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "title": f"Title of {name}", "published_utc": "2026-01-05T14:30:00Z", **more}


@pytest.fixture
def desk() -> NewsDesk:
    return NewsDesk(Companies(), lambda why, sample: told.append((why, sample)))


told: list[tuple[str, str]] = []


def ids(frames: Iterable[bytes]) -> list[str]:
    return [event["id"] for frame in frames for event in json.loads(frame) if "sym" not in event]


def test_a_message_is_an_article_or_a_list(desk: NewsDesk) -> None:
    """Text or bytes; each article once, whatever comes again."""
    assert ids(desk.deliver(json.dumps(article("a")))) == ["a"]
    assert ids(desk.deliver(b" \n" + json.dumps([article("b"), article("a"), article("c")]).encode())) == ["b", "c"]
    assert ids(desk.deliver(json.dumps([article("b")]))) == ids(desk.deliver("[]")) == []
    assert (desk.articles, desk.malformed, desk.newest_ms) == (3, 0, 1_767_623_400_000)


@pytest.mark.parametrize("data", [b"", "", b"hello", b"\xff\xfe", b"[1,", b"[" * 5_000, b'"x"', b"[7,null]", b"{}"])
def test_what_is_none_is_counted_and_said(desk: NewsDesk, data: bytes | str) -> None:
    """In a sample of bounded length; nothing is raised, and what comes next is taken."""
    told.clear()
    assert ids(desk.deliver(data)) == []
    assert desk.malformed == len(told) > 0
    assert all(why and len(sample) <= 200 for why, sample in told)
    assert ids(desk.deliver(json.dumps(article("a")))) == ["a"]


def test_a_bad_article_spoils_none_and_is_counted_once(desk: NewsDesk) -> None:
    """The same page is read again and again: what was bad in it is no news."""
    page = json.dumps([article("a"), {"id": "b"}, article("c")]).encode()
    assert ids(desk.deliver(page)) == ["a", "c"]
    assert ids(desk.deliver(page)) == []
    assert desk.malformed == 1


def test_symbols_are_looked_for_only_where_none_are_named(desk: NewsDesk) -> None:
    """The source knows better than its text."""
    (frame,) = desk.deliver(json.dumps([article("a", title="$AAPL", tickers=["MSFT"]), article("b", description="(NYSE: IBM)")]))
    assert [event.get("sym") for event in json.loads(frame)] == [None, "MSFT", None, "IBM"]


def test_a_large_page_is_published_in_pieces(desk: NewsDesk) -> None:
    """A frame holds the loop for less than a millisecond."""
    frames = desk.deliver(json.dumps([article(f"a{n}") for n in range(2 * FRAME_ARTICLES + 1)]))
    assert [len(json.loads(frame)) for frame in frames] == [FRAME_ARTICLES, FRAME_ARTICLES, 1]
