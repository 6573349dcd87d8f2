"""Checks news against a naive model that remembers every article there was."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import pytest

from mdc.channels import NEWS_FIELDS
from mdp.analyzers.news import KEEP, RECENT, NewsData
from mdp.analyzers.ranks import Row
from tests.mdp.feed import START_MS, Desk, article, batch, copies, trade

SYMBOLS = ("A", "B", "BRK.B", "X:BTC-USD")


class Naive:
    """One list: takes an article unless it is among the newest KEEP, or older than all of these."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, str]] = []

    def take(self, name: str, t: int) -> bool:
        newest = sorted(self.taken)[-KEEP:]
        if name in [known for _, known in newest] or (len(newest) == KEEP and (t, name) < newest[0]):
            return False
        self.taken.append((t, name))
        return True


def headlines(desk: Desk) -> list[tuple[int, str]]:
    return [(data["ts"], data["id"]) for channel, _, data in desk.cache.shared if channel == "news:latest"]


def of_symbol(desk: Desk, symbol: str) -> list[tuple[int, str]]:
    return [(data["ts"], data["id"]) for data in desk.cache.events(f"news:{symbol}")]


@pytest.mark.parametrize("seed", range(4))
def test_every_article_is_on_each_of_its_lists_once(seed: int) -> None:
    """However often it is published, by old listeners and new ones, over hand-overs and crashes between them."""
    dice, desk = random.Random(seed), Desk()
    lists: defaultdict[str, Naive] = defaultdict(Naive)
    past: list[tuple[str, list[str], int]] = []
    repeated = 0
    for n in range(300):
        if past and dice.random() < 0.3:
            name, tickers, t = dice.choice(past)
        else:
            name, tickers = f"id{n}", dice.sample(SYMBOLS, dice.choice((0, 1, 1, 2, 4)))
            t = START_MS + n * 1_000 - dice.choice((0, 0, 0, 5_000, 250_000))
            past.append((name, tickers, t))
        made = copies(name, tickers, t)
        dice.shuffle(made)
        desk.feed(*made, feed_ms=START_MS + n * 1_000, source=dice.choice(("news", "wire")))
        repeated += sum(not lists[event.get("sym", "")].take(name, t) for event in made)
        if dice.random() < 0.2:
            desk.flush()
        if dice.random() < 0.05:
            desk.hand_over()
    desk.flush()
    assert headlines(desk) == lists[""].taken, f"seed {seed}"
    assert {symbol: of_symbol(desk, symbol) for symbol in SYMBOLS} == {symbol: lists[symbol].taken for symbol in SYMBOLS}
    assert desk.partition.counts.discarded == {"repeated": repeated}
    assert not desk.cache.letters


def test_fields_are_those_of_the_catalogue() -> None:
    """The published article has the catalogue's fields in its order, and all that the event said."""
    assert NewsData.__struct_fields__ == NEWS_FIELDS
    desk = Desk()
    desk.feed(
        article("n1", "A", tickers=["A", "B"], title="<b>A & B</b>", url="https://x.example/1", source="W", summary="S", more=3)
    )
    assert desk.flush().data("news:A") == {
        "id": "n1", "title": "<b>A & B</b>", "url": "https://x.example/1", "source": "W", "summary": "S", "tickers": ["A", "B"],
        "more": 3, "ts": START_MS,
    }  # fmt: skip


def test_boards_say_when_a_symbol_was_last_written_of() -> None:
    """Null before; the time of the newest article, whenever it came, and also after a hand-over."""
    desk = Desk()

    def news_ts() -> Any:
        ((_, _, row),) = json.loads(desk.cache.shares["board:volume"])
        return row["news_ts"]

    desk.feed(trade("A"))
    desk.flush(2_000)
    assert news_ts() is None
    desk.feed(article("n1", "A", t=START_MS - 5_000), article("n2", "A", t=START_MS - 9_000), source="news", feed_ms=START_MS)
    desk.flush(2_000)
    assert news_ts() == START_MS - 5_000
    desk.hand_over()
    desk.feed(trade("A", 11))
    desk.flush(2_000)
    assert news_ts() == START_MS - 5_000
    assert "news_ts" in Row.__struct_fields__


def test_news_say_of_nobody_whose_symbol_it_is() -> None:
    """A quote stays that of its market, an article is its news feed's; a symbol that nobody trades is listed by its news."""
    desk = Desk()
    desk.feed(trade("A"), source="stocks")
    desk.feed(article("n1", "A"), article("n1", "NEW"), source="news")
    desk.flush()
    assert [desk.cache.documents[channel]["src"] for channel in ("trades:A", "news:A", "news:NEW")] == ["stocks", "news", "news"]
    assert desk.partition.listing.sources == {"A": "stocks", "NEW": "news"}
    desk.feed(trade("NEW", t=START_MS + 5), source="stocks")
    desk.flush()
    assert desk.partition.listing.sources["NEW"] == "stocks"


def test_news_move_no_day() -> None:
    """An article of tomorrow's date (a feed's clock that is wrong) ends no trading day."""
    desk = Desk()
    desk.feed(trade("A", 10), source="s")
    before = desk.flush().data("quote:A")
    desk.feed(article("n1", "A", t=START_MS + 86_400_000), source="s", feed_ms=START_MS + 86_400_000)
    desk.feed(trade("A", 11, t=START_MS + 5), source="s")
    assert desk.flush().data("quote:A")["volume"] == before["volume"] + 100


@pytest.mark.parametrize(
    ("event", "why", "said"),
    [
        (article("n1", "A", t=START_MS + 70_000), "time_ahead", "ahead of the feed's clock"),
        (article("n1", t=START_MS - 9 * 86_400_000), "time_behind", "days behind"),
        (article("n1", "A B"), "bad", "no symbol has the name"),
        (article("n1", "A", url="javascript:alert(1)"), "bad", "$.url"),
        (article("n1", "A", title=""), "bad", "$.title"),
        (article("not an id"), "bad", "$.id"),
        ({"ev": "news", "sym": "A"}, "bad", "id"),
    ],
)
def test_what_is_no_article_is_a_counted_dead_letter(event: dict[str, Any], why: str, said: str) -> None:
    """And those beside it are published."""
    desk = Desk()
    desk.feed(article("n0", "A"), event, article("n2", "A"), feed_ms=START_MS)
    desk.flush()
    assert desk.partition.counts.discarded == {why: 1}
    assert said in desk.cache.letters[0]["reason"]
    assert [name for _, name in of_symbol(desk, "A")] == ["n0", "n2"]


def test_a_copy_of_another_partition_is_refused() -> None:
    """A listener with another number of partitions puts no article on the list of all twice."""
    desk = Desk()
    desk.partition.listing._partitions, desk.partition.listing._number = 8, 3
    for n in range(20):
        desk.feed(article(f"n{n}"))
    desk.flush()
    taken = len(headlines(desk))
    assert 0 < taken < 20
    assert desk.partition.counts.discarded == {"misplaced": 20 - taken}


def test_an_emptied_cache_gets_the_newest_articles_again() -> None:
    """Those in memory, numbered on, and what is known of older ones stays known."""
    desk = Desk()
    for n in range(KEEP + 30):
        desk.feed(*copies(f"n{n}", ["A"], START_MS + n))
    desk.flush()
    desk.partition.rewrite(1, "e2")
    desk.cache.log.clear()
    desk.cache.shared.clear()
    desk.flush()
    assert [name for _, name in of_symbol(desk, "A")] == [f"n{n}" for n in range(KEEP + 30 - RECENT, KEEP + 30)]
    assert [name for _, name in headlines(desk)] == [f"n{n}" for n in range(30, KEEP + 30)]
    desk.hand_over()
    desk.feed(*copies("n60", ["A"], START_MS + 60), source="again")
    assert len(headlines(desk)) == KEEP
    assert len([cell for cell in desk.cache.cells if cell.startswith(b"headlines:")]) == KEEP


def test_a_tape_that_begins_anew_has_its_news_again() -> None:
    """They are taken out of the cache with everything else of its past, and known no more."""
    desk = Desk()
    desk.feed(*copies("n1", ["A"]), source="tape")
    desk.flush()
    desk.deliver(batch(copies("n1", ["A"]), "news", 2, source="tape", run=1))
    desk.flush()
    assert [name for _, name in headlines(desk)] == ["n1", "n1"]
    assert "ch:news:A" in desk.cache.removed
    assert of_symbol(desk, "A") == [(START_MS, "n1")]


def test_watched_symbols_have_their_news_at_once() -> None:
    """Without a whole flush; the list of all comes with the next whole one."""
    desk = Desk()
    desk.feed(*copies("n1", ["A", "B"]))
    desk.watch("A")
    assert desk.partition.hurries
    desk.cache.apply(desk.partition.collect_watched(START_MS), desk.partition.flush_number)
    assert (of_symbol(desk, "A"), of_symbol(desk, "B"), headlines(desk)) == ([(START_MS, "n1")], [], [])
    desk.flush()
    assert (of_symbol(desk, "A"), of_symbol(desk, "B"), headlines(desk)) == ([(START_MS, "n1")],) * 3
