"""Tests what a plug-in hears beside the market's events: the market's time, articles, and the other symbols of its partition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from mdp.events.vendor import Article
from mdp.plugin import AnyTrade, Plugin, QuoteView
from mdp.plugins.host import RUNNING
from tests.mdp.feed import Desk, batch, copies, trade
from tests.mdp.plugins.desk import BASE_MS, PluginDesk

MINUTE_MS = 60_000


class Minutes(msgspec.Struct):
    """What was traded in the minute, and what each minute came to."""

    volume: float = 0.0
    ended: int = 0


class ByMinute(Plugin):
    """Reports the volume of each minute when it is over, also of one in which nothing was traded."""

    State = Minutes

    def on_trade(self, state: Minutes, trade: AnyTrade, effect: int) -> None:
        if not state.ended:
            self.wake(trade.ts - trade.ts % MINUTE_MS + MINUTE_MS)
        state.volume += trade.size

    def on_wake(self, state: Minutes, symbol: str, at_ms: int) -> None:
        if state.volume == 666:
            raise ValueError("I do not like 666")
        self.report(at_ms, {"volume": state.volume})
        state.volume, state.ended = 0.0, state.ended + 1
        self.wake(0 if state.ended == 4 else at_ms if state.volume == 555 else at_ms + MINUTE_MS)

    def document(self, symbol: str, state: Minutes) -> dict[str, Any]:
        return {"ended": state.ended}


class Reader(Plugin):
    """Reports the articles of a symbol with how many others there are and what they cost together."""

    class State(msgspec.Struct):
        """How many articles."""

        articles: int = 0

    kept: Iterator[tuple[str, QuoteView]] | None = None

    def on_article(self, state: Any, article: Article) -> None:
        state.articles += 1
        prices = {symbol: quote.last for symbol, quote in self.quotes()}
        self.report(
            article.ts,
            {"id": article.id, "n": state.articles, "symbols": list(prices), "sum": sum(p or 0 for p in prices.values())},
        )
        for _, quote in self.quotes():
            quote.last = -1.0  # copies: nobody else sees it
        if article.title == "wake":
            self.wake(article.ts)


def logged(desk: Desk, channel: str) -> list[Any]:
    return [doc["data"] for doc in desk.cache.log if doc["ch"] == channel]


def at(*seconds: float, size: float = 10, sym: str = "A") -> list[dict[str, Any]]:
    return [trade(sym, 10, size, BASE_MS + round(1_000 * second)) for second in seconds]


def mark(desk: Desk, second: float) -> None:
    """Have the listener say that the feed has come so far; it is believed after two seconds."""
    desk.now_ms += 2_500
    desk.deliver(
        replace(batch([], "trades", desk._seqs.get(("s", "trades"), 0)), feed_ns=(BASE_MS + round(1_000 * second)) * 1_000_000)
    )


@pytest.mark.parametrize("flushes", [False, True])
@pytest.mark.parametrize("marks", [False, True])
def test_a_wake_comes_before_the_first_event_that_is_later(flushes: bool, marks: bool) -> None:
    """However often is flushed, handed over or told the time: the minutes' sums are those of the trades' order."""
    desk = PluginDesk(ByMinute)
    for events in (at(1, 59), at(59.9), at(60, 60.5), at(185), at(186)):
        desk.feed(*events)
        if marks:
            mark(desk, events[-1]["t"] / 1_000 - BASE_MS / 1_000)
        if flushes:
            desk.flush()
            desk.next_owner()
    desk.flush()
    assert logged(desk, "ownlog:sums:A") == [{"volume": 30.0}, {"volume": 20.0}, {"volume": 0.0}]
    assert desk.own("own:sums:A") == {"ended": 3}


def test_time_wakes_when_nothing_is_traded_and_only_of_its_own_source() -> None:
    """Three seconds after it, so that a late trade is still before; another feed's time says nothing."""
    desk = PluginDesk(ByMinute)
    desk.feed(*at(1))
    desk.feed(trade("X", 10, 1, BASE_MS + 3_600_000), source="another")
    mark(desk, 62)
    desk.flush()
    assert logged(desk, "ownlog:sums:A") == []
    desk.feed(*at(59.5))
    mark(desk, 63.1)
    mark(desk, 64)
    desk.flush()
    assert logged(desk, "ownlog:sums:A") == [{"volume": 20.0}]
    desk.now_ms += 936_000
    mark(desk, 1_000)
    desk.flush()
    assert logged(desk, "ownlog:sums:A")[1:] == [{"volume": 0.0}] * 3, "it has asked for no more"


def test_a_wake_that_raises_ends_the_plugin_and_comes_again() -> None:
    """The state and the time that was asked for are those of the last flush; others go on."""
    desk = PluginDesk(ByMinute)
    desk.feed(*at(1, size=5))
    desk.flush()
    desk.feed(*at(2, size=661))
    desk.feed(*at(61), *at(61, sym="B"))
    assert desk.host.state != RUNNING
    assert "on_wake of A" in desk.host.failed[-1].where
    assert desk.flush().data("quote:A")["volume"] == 676, "the quote has every trade"
    desk.now_ms += 5_000
    desk.flush()
    assert desk.host.state == RUNNING
    desk.feed(*at(62))
    desk.flush()
    assert logged(desk, "ownlog:sums:A") == [{"volume": 5.0}], "the minute as it was at the last flush; what came since is missed"
    assert desk.host.tally.missed > 0


def test_who_asks_for_the_time_that_it_is_never_ends_and_is_taken_out() -> None:
    """A wake must ask for a later one; so must nobody ask for one outside of a market's event."""

    class Again(ByMinute):
        def on_wake(self, state: Minutes, symbol: str, at_ms: int) -> None:
            self.wake(at_ms)

    desk = PluginDesk(Again)
    desk.feed(*at(1, 61))
    assert "it would never end" in desk.host.fault


def test_an_article_is_heard_once_with_all_quotes_of_the_partition() -> None:
    """Copies of it, also after a hand-over, are none; what the plug-in does to the quotes that it reads stays with it."""
    desk = PluginDesk(Reader)
    desk.feed(*at(1), *at(1, sym="B"))
    first = copies("n1", ["A", "B"], BASE_MS + 2_000)
    desk.feed(*first)
    desk.flush()
    desk.next_owner()
    desk.feed(*first, *copies("n2", ["A"], BASE_MS + 3_000))
    desk.flush()
    told = [{"id": name, "n": n, "symbols": ["A", "B"], "sum": 20.0} for n, name in ((1, "n1"), (2, "n2"))]
    assert logged(desk, "ownlog:sums:A") == told
    assert logged(desk, "ownlog:sums:B") == told[:1]
    assert desk.cache.data("quote:A")["last"] == 10.0
    assert len(logged(desk, "news:A")) == 2, "the analyzer that knows which articles are new runs with it"


def test_an_article_s_time_is_not_the_market_s() -> None:
    """A plug-in that wants to be woken by it is told so."""

    class Sleeper(Reader):
        def on_wake(self, state: Any, symbol: str, at_ms: int) -> None:
            """It is never called."""

    desk = PluginDesk(Sleeper)
    desk.feed(*copies("n1", ["A"], BASE_MS, title="wake"))
    assert "a wake belongs to an event of the market" in desk.host.fault


def test_a_tape_that_begins_anew_wakes_nobody_of_before() -> None:
    """Its time does, too: what was asked for in the run before is of another life."""
    desk = PluginDesk(ByMinute)
    desk.feed(*at(30), run=1)
    desk.flush()
    desk.feed(*at(1), run=2)
    desk.feed(*at(61), run=2)
    desk.flush()
    assert logged(desk, "ownlog:sums:A")[-1] == {"volume": 10.0}


def test_a_plugin_of_before_hears_what_it_did() -> None:
    """Articles and wakes are asked of nobody who has no method for them; its checkpoint is as it was."""
    desk = PluginDesk()
    assert not any(desk.host.hears(name) for name in ("on_source", "on_feed_time", "on_article"))
    desk.trade("A", 1.0)
    desk.flush()
    assert len(msgspec.msgpack.decode(desk.cache.cells[b"own:sums:A"])) == 2
