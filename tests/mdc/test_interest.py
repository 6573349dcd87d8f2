"""Shows that the processors learn what is watched, and that it ends by itself."""

from __future__ import annotations

from typing import Any

from mdc import keys
from mdc.interest import KEPT_MS, WATCHED_MAX, Interest
from service.partition import partition_of
from tests.mdc.test_reader import reading
from tests.waiting import until

A, B = ("quote", "A"), ("quote", "B")


async def test_what_is_told_is_read_by_partition(cache: Any) -> None:
    """Several data services' channels are one set; a partition that nobody watches is empty."""
    interest = Interest(cache)
    await interest.tell({0: [("quote", "A"), ("quote", "B")], 3: [("bars:1m", "X:C-USD")]})
    await interest.tell({0: [("quote", "B"), ("trades", "B")]})
    assert await interest.read([0, 1, 3]) == {
        0: {("quote", "A"), ("quote", "B"), ("trades", "B")}, 1: frozenset(), 3: {("bars:1m", "X:C-USD")},
    }  # fmt: skip
    assert await interest.read([]) == {}
    assert 0 < await cache.pttl(keys.watched(0)) <= KEPT_MS


async def test_news_are_what_somebody_begins_to_watch(cache: Any) -> None:
    """Renewals are none: who looks for news reads the names only when there are new ones."""
    interest = Interest(cache)
    before = await interest.news()
    await interest.tell({0: [A], 1: [B]})
    after = await interest.news()
    assert after > before
    await interest.tell({0: [A], 1: [B]})
    assert await interest.news() == after


async def test_an_entry_ends_by_itself(cache: Any) -> None:
    """Whoever stopped saying it is not believed for longer than the last time holds."""
    interest = Interest(cache)
    await interest.tell({0: [A, B]})
    await cache.zadd(keys.watched(0), {"quote A": 1})
    assert await interest.read([0]) == {0: {B}}
    assert await cache.zcard(keys.watched(0)) == 1
    await interest.tell({0: [A]})
    assert await interest.read([0]) == {0: {A, B}}


async def test_the_newest_are_kept_of_too_many(cache: Any) -> None:
    """A client that asks for everything slows nobody's first symbols below a bound."""
    interest = Interest(cache)
    await interest.tell({0: [("quote", f"S{n}") for n in range(WATCHED_MAX + 2_500)]})
    assert len((await interest.read([0]))[0]) == WATCHED_MAX


async def test_a_reader_says_what_it_watches(cache: Any, cache_url: str) -> None:
    """Every kind of a symbol's channels counts, and the market's boards; again and again as long as it is watched."""
    interest, partition = Interest(cache), partition_of("A", 8)
    async with reading(cache_url) as (made, _):
        for channel in ("quote:A", "bars:1m:A", "board:volume", "alerts:range"):
            await made.watch(channel)

        async def told() -> bool:
            watched = {("quote", "A"), ("bars:1m", "A")}
            everywhere = {n: watched if n == partition else frozenset() for n in range(8)}
            return await interest.read([*range(8), keys.ALL]) == {**everywhere, keys.ALL: {("board", "volume")}}

        await until(told, what="the symbol is told")
        await cache.delete(keys.watched(partition))
        await until(told, 8, what="it is told again")
        await made.unwatch("quote:A")
        await made.unwatch("bars:1m:A")
        await cache.delete(keys.watched(partition))
        renewed = made.renewals
        await until(lambda: made.renewals > renewed, 8)
        assert await interest.read([partition]) == {partition: frozenset()}
