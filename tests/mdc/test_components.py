"""Checks heartbeats from the writer in service/ to the reader in mdc/, on every kind of cache, and what a cache that is away costs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec

from mdc import components, keys
from mdc.connect import open_cache
from service.heartbeat import KEPT_MS, WRITE, Beat, Heartbeat, Vitals, reachable_at, seal
from service.settings import ComponentSettings
from tests.servers import Redis, free_port
from tests.waiting import until

TOKEN = "the admin token of this test"


def heart(url: str, run_dir: Path, **more: Any) -> Heartbeat:
    """Return the heart of a component called reel."""
    settings = ComponentSettings(mdc_url=url, run_dir=run_dir, admin_token=TOKEN)
    turns = iter(range(0, 10**9, 500))
    vitals = more.pop("vitals", lambda: Vitals({"turns": next(turns)}, 12.34, [1, 2], {"colour": "red"}))
    return Heartbeat("reel", settings, 9999, more.pop("ready", list), vitals, **more)


async def test_what_beats_is_read_again(cache: Any, cache_url: str, tmp_path: Path) -> None:
    """Sealed with the admin token, timed by the cache, with rates made of totals; gone after a stop in order."""
    own = heart(cache_url, tmp_path, ready=lambda: ["no film"], name="first")
    await own.start()
    if cache_url.startswith("memory:"):  # inside one process: others could not read it
        await own.stop()
        assert (await components.read(cache))[1] == {}
        return

    async def beat() -> Beat | None:
        now_ms, kept = await components.read(cache)
        found = kept.get(own.id)
        if found is None:
            return None
        assert found.seal == seal(TOKEN.encode(), bytes(found.beat))
        assert 0 <= now_ms - found.at_ms < 60_000
        return msgspec.json.decode(found.beat, type=Beat)

    async def second() -> Beat | None:
        found = await beat()
        return found if found is not None and found.rates else None

    found = await until(second, 15)
    assert (found.kind, found.name, found.ready, found.reasons) == ("reel", "first", False, ["no film"])
    assert (found.lag_ms, found.partitions, found.more) == (12.3, [1, 2], {"colour": "red"})
    assert 0 < found.rates["turns_s"] <= 500
    assert found.admin == "http://127.0.0.1:9999"
    assert 0 < await cache.pttl(keys.COMPONENTS) <= KEPT_MS
    await own.stop()
    assert await beat() is None


async def test_who_is_silent_for_long_is_forgotten(cache: Any) -> None:
    """By the next writer that looks; others stay."""
    old = json.dumps({"at_ms": 5, "seal": "", "beat": {}}, separators=(",", ":"))
    await cache.hset(keys.COMPONENTS, mapping={"gone": old, "broken": "{"})
    await cache.eval(WRITE, 1, keys.COMPONENTS, "here", "x", "{}", KEPT_MS, 0)
    assert set(await cache.hkeys(keys.COMPONENTS)) == {b"gone", b"broken", b"here"}
    await cache.eval(WRITE, 1, keys.COMPONENTS, "here", "x", "{}", KEPT_MS, 1)
    assert set(await cache.hkeys(keys.COMPONENTS)) == {b"here"}
    assert list((await components.read(cache))[1]) == ["here"]


async def test_a_cache_that_is_away_or_hangs_disturbs_nobody(redis_server: Redis, tmp_path: Path) -> None:
    """Starting, beating and stopping go on without it; when it is back, so is the beat, also on an emptied one."""
    away = heart(f"redis://127.0.0.1:{free_port()}/0", tmp_path)
    await away.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await away.stop()
    own = heart(redis_server.url, tmp_path)
    client = open_cache(redis_server.url)

    async def there() -> bool:
        return own.id in (await components.read(client))[1]

    await own.start()
    await until(there, 10)
    redis_server.freeze()
    try:
        async with asyncio.timeout(5):
            await asyncio.sleep(0.2)  # the loop turns
    finally:
        redis_server.thaw()
    await client.flushdb()
    await until(there, 15)
    redis_server.freeze()
    try:
        async with asyncio.timeout(5):
            await own.stop()
    finally:
        redis_server.thaw()
    await client.aclose()


async def test_what_breaks_in_a_component_breaks_no_more_than_its_heartbeat(redis_url: str, tmp_path: Path) -> None:
    """Vitals that raise are a log line; the next beat is tried again."""
    tries: list[int] = []

    def vitals() -> Vitals:
        tries.append(1)
        raise ZeroDivisionError("of a test")

    own = heart(redis_url, tmp_path, vitals=vitals)
    await own.start()
    await until(lambda: len(tries) > 1, 10)
    await own.stop()


def test_addresses_are_numbers() -> None:
    """A port that listens everywhere is told by an address of this host: nobody has to believe a name."""
    assert reachable_at("127.0.0.1", 1) == "http://127.0.0.1:1"
    assert reachable_at("::1", 1) == "http://[::1]:1"
    assert reachable_at("0.0.0.0", 7).endswith(":7")
    assert "0.0.0.0" not in reachable_at("0.0.0.0", 7)
    assert reachable_at("no such host.", 7) == "http://127.0.0.1:7"
