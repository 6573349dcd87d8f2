"""Checks how sheets of facts are kept: whole or not at all, named by the owner of partition 0 alone, bounded."""

from __future__ import annotations

from typing import Any

from mdc import keys
from mdp.enrich.store import REPLACED_MS, SHEETS_MAX, FactStore, Head, entry


def head(name: str, at_ms: int = 1) -> Head:
    return Head(name, 2, 3, True, at_ms)


async def test_a_sheet_is_read_as_it_was_written(cache: Any) -> None:
    """Its parts by partition, in order; a sheet in the making is not seen, and is gone by itself."""
    store, of = FactStore(cache), entry(5, "past")
    await cache.set("fence:partition:0", 7)
    await store.put("one", 0, 0, b"{}")
    await store.put("one", 0, 1, b'{"A":[1]}')
    assert await store.heads() == {}
    assert 0 < await cache.pttl(keys.facts("one", 0)) <= 600_000
    assert await store.publish(7, of, head("one"))
    assert await store.heads() == {of: head("one")}
    assert [await store.part("one", 0, n) for n in await store.parts("one", 0)] == [b"{}", b'{"A":[1]}']
    assert await store.parts("one", 1) == []
    assert await store.part("two", 0, 0) is None


async def test_who_does_not_lead_any_more_names_nothing(cache: Any) -> None:
    """A leader that was replaced meanwhile finds its fence taken."""
    store = FactStore(cache)
    await cache.set("fence:partition:0", 8)
    assert not await store.publish(7, entry(5, "past"), head("late"))
    assert await store.heads() == {}


async def test_what_is_replaced_goes_soon_and_the_oldest_make_room(cache: Any) -> None:
    """Who is reading may finish; at most eight sheets are named. What cannot be read is as if it were not there."""
    store, of = FactStore(cache), entry(0, "past")
    await cache.set("fence:partition:0", 7)
    for name in ("old", "new"):
        await store.put(name, 0, 0, b"{}")
        await store.publish(7, of, head(name))
    assert await cache.pttl(keys.facts("old", 0)) <= REPLACED_MS
    assert await cache.pttl(keys.facts("new", 0)) > REPLACED_MS
    for day in range(1, SHEETS_MAX + 3):
        await store.publish(7, entry(day, "past"), head(f"of-{day}", at_ms=day + 1))
    kept = await store.heads()
    assert len(kept) == SHEETS_MAX
    assert of not in kept
    await cache.hset(keys.FACTS, "9:past", b"{")
    assert "9:past" not in await store.heads()
