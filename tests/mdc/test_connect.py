"""Checks the cache's clients: refused credentials are an operator's error, an unavailable server is waited for."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from urllib.parse import urlsplit

import pytest

from mdc.connect import AWAY, check_cache, forget_in_process, open_cache
from service.errors import OperatorError
from tests.servers import Redis, free_port
from tests.waiting import until


async def test_every_kind_of_cache_answers(cache: Any, cache_url: str) -> None:
    """Bytes go in, bytes come out, whatever is behind the URL."""
    await check_cache(cache, cache_url)
    await cache.set("a", b"\xff\x00")
    assert await cache.get("a") == b"\xff\x00"
    assert await cache.execute_command("SET", "b", 5, "PX", 1000) in (True, b"OK", "OK")
    assert await cache.get("b") == b"5"


async def test_clients_of_one_in_process_url_share_their_data() -> None:
    """Same name, same cache; forgotten, it is empty."""
    one, two, other = (open_cache(url) for url in ("memory://t1", "memory://t1", "memory://t2"))
    await one.set("a", 1)
    assert await two.get("a") == b"1"
    assert await other.get("a") is None
    forget_in_process("memory://t1")
    assert await open_cache("memory://t1").get("a") is None


async def test_refused_credentials_are_told_in_one_line_without_the_password(mdc_url: str) -> None:
    """The operator learns which URL is wrong and what to set; the password is not shown."""
    parts = urlsplit(mdc_url)
    url = f"redis://nobody:secret-word@{parts.hostname}:{parts.port}/0"
    client = open_cache(url)
    with pytest.raises(OperatorError, match="refused the credentials") as caught:
        await check_cache(client, url)
    assert "secret-word" not in str(caught.value)
    assert "MDC_URL" in str(caught.value)
    assert caught.value.exit_code == 3
    await client.aclose()


async def test_an_absent_server_is_away() -> None:
    """Nobody answers: one of the errors that are waited out."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    client = open_cache(url)
    with pytest.raises(AWAY):
        await check_cache(client, url)


async def _ask_on_and_on(client: Any) -> None:
    while True:
        await client.ping()


async def test_a_cancelled_task_ends_whatever_the_cache_answers(mdc_url: str) -> None:
    """One cancellation ends a task that talks to the cache without a pause, at whichever moment it comes."""
    dice = random.Random(3)
    for _ in range(40):
        client = open_cache(mdc_url)
        asking = asyncio.create_task(_ask_on_and_on(client))
        await asyncio.sleep(0.002 + dice.random() * 0.005)
        asking.cancel()
        await asyncio.wait({asking}, timeout=5)
        assert asking.cancelled()
        await client.aclose()


async def _answers(client: Any) -> bool:
    try:
        return bool(await client.ping())
    except AWAY:
        return False


async def test_a_command_that_cannot_be_written_says_that_the_cache_is_away(redis_server: Redis) -> None:
    """A server that reads nothing ends a large write in one of the errors that are waited out; the next command works."""
    client = open_cache(redis_server.url, timeout_s=0.2)
    await client.ping()
    redis_server.freeze()
    try:
        with pytest.raises(AWAY, match="write"):
            await client.set("large", bytes(32 << 20))
    finally:
        redis_server.thaw()
    await until(lambda: _answers(client))
    await client.aclose()
