"""Tests that the freshest book is shown, whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mdc.channels import BOOK_FIELDS
from mdp.analyzers.book import BookData
from tests.mdp.feed import START_MS, Desk, Dice, book


def plain(event: dict[str, Any]) -> dict[str, Any]:
    """Return the document that an event makes."""
    bids, asks = event["b"], event["a"]
    bid, ask = (side[0][0] if side else None for side in (bids, asks))
    spread = round(ask - bid, 10) if bids and asks else None
    return {"bids": bids, "asks": asks, "bid": bid, "ask": ask, "spread": spread, "ts": event["t"]}


@pytest.mark.parametrize("seed", range(5))
def test_the_freshest_book_wins(seed: int) -> None:
    """Each symbol shows the levels of its newest time, whole, whatever came late or changed hands meanwhile."""
    dice, desk = Dice(seed, ("A", "BTC-PERP", "X:ETH-USD")), Desk()
    newest: dict[str, dict[str, Any]] = {}
    for _ in range(200):
        event = dice.book(pause_ms=100)
        desk.feed(event)
        if event["t"] >= newest.get(event["sym"], {"ts": 0})["ts"]:
            newest[event["sym"]] = plain(event)
        if dice.random.random() < 0.2:
            desk.hand_over()
        elif dice.random.random() < 0.5:
            desk.flush()
    cache = desk.flush()
    assert cache.channels("book") == newest, f"seed {seed}"
    assert {f"idx:book/{sym}" for sym in newest} <= cache.index
    assert desk.partition.counts.bad == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_hand_over_changes_nothing(seed: int) -> None:
    """An owner that knows only the checkpoint writes the documents and numbers of one that stayed."""
    dice, stayed, moved = Dice(seed, "AB"), Desk(), Desk()
    for _ in range(80):
        event, turn = dice.book(), dice.random.random()
        for desk in (stayed, moved):
            desk.feed(event)
            if turn < 0.3:
                desk.flush()
        if turn < 0.15:
            moved.hand_over()
    assert moved.flush().log == stayed.flush().log, f"seed {seed}"


def test_fields_are_those_of_the_catalogue() -> None:
    """The published state has the catalogue's fields in its order."""
    assert BookData.__struct_fields__ == BOOK_FIELDS


def test_a_flush_holds_one_document_a_symbol() -> None:
    """Books that come within one flush are conflated; a silent symbol writes nothing."""
    desk = Desk()
    desk.feed(*[book(t=START_MS + n, b=[(9, n + 1)]) for n in range(5)], book("B"))
    assert [doc["seq"] for doc in desk.flush().log] == [1, 1]
    desk.feed(book(t=START_MS + 5))
    assert [(doc["ch"], doc["seq"]) for doc in desk.flush().log[2:]] == [("book:A", 2)]


@pytest.mark.parametrize(
    ("b", "a", "says"),
    [
        ([(9, 1), (9.5, 1)], [(10, 1)], "bids must fall"),
        ([(9, 1)], [(10, 1), (10, 1)], "asks must rise"),
        ([(9, -1)], [(10, 1)], "`int` >= 1"),
        ([(9, 1)], [(10, 0.0)], "`float` > 0"),
        ([(9, 1)], [(10 + n, 1) for n in range(21)], "length <= 20"),
    ],
)
def test_a_malformed_book_is_refused_and_the_last_good_one_stays(b: Any, a: Any, says: str) -> None:
    """It is counted and kept with its reason; the events around it count."""
    desk = Desk()
    desk.feed(book(t=START_MS), book(b=b, a=a, t=START_MS + 2), book(t=START_MS + 1))
    cache = desk.flush()
    assert cache.data("book:A") == plain(book(t=START_MS + 1))
    assert (desk.partition.counts.bad, desk.partition.counts.events) == (1, {"s/books": 3})
    [letter] = cache.letters
    assert letter["stream"] == "books"
    assert says in letter["reason"]
    assert json.loads(letter["event"])["b"] == [list(level) for level in b]


def test_a_crossed_book_has_a_negative_spread_and_half_a_book_none() -> None:
    """What the feed says is shown; what cannot be computed is unknown."""
    desk = Desk()
    desk.feed(book("A", [(10.3, 1)], [(10.1, 1)]), book("B", [], [(10.1, 1)]), book("C", [], []))
    books = desk.flush().channels("book")
    assert [(books[sym]["bid"], books[sym]["ask"], books[sym]["spread"]) for sym in "ABC"] == [
        (10.3, 10.1, -0.2), (None, 10.1, None), (None, None, None),
    ]  # fmt: skip


def test_an_emptied_cache_gets_every_book_again() -> None:
    """Silent symbols are written again with the others, and announced for patterns."""
    desk = Desk()
    desk.feed(book("A"), book("B", [(5, 1)]))
    before = desk.flush().channels("book")
    desk.cache.log.clear()
    desk.cache.index.clear()
    desk.partition.rewrite(1, "e2")
    cache = desk.flush()
    assert {doc["ch"]: doc["data"] for doc in cache.log} == {f"book:{sym}": data for sym, data in before.items()}
    assert cache.index == {"idx:book/A", "idx:book/B"}
