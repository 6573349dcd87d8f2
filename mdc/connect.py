"""A cache URL in, a Redis client out: a real server, or fakeredis inside this process for `memory://name`."""

from __future__ import annotations

from typing import Any

import fakeredis
import hiredis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from service.errors import OperatorError
from service.settings import hide_password

AWAY = (RedisError, OSError, TimeoutError)  # what a client raises while the cache cannot be reached
_in_process: dict[str, fakeredis.FakeServer] = {}


class PackingConnection(aioredis.Connection):
    """Writes commands with hiredis: redis-py's own packing took a quarter of a processor's time (2.0 of 5.8 µs an event)."""

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *rest = args
        return [hiredis.pack_command((*name.split(), *rest))]


class CacheUnavailable(ConnectionError):
    """The cache cannot be reached now; what was not written stays with the writer, what was not read can be asked again."""


def open_cache(url: str, client_name: str = "tapeline", timeout_s: float = 5.0) -> Any:
    """Return a redis.asyncio client (bytes in, bytes out) for `url`; it connects on first use and never retries by itself."""
    if url.startswith("memory://"):
        server = _in_process.setdefault(url, fakeredis.FakeServer())
        return fakeredis.FakeAsyncRedis(server=server)
    pool = aioredis.ConnectionPool.from_url(
        url,
        connection_class=PackingConnection,  # of plain TCP; TLS and Unix sockets keep their own
        client_name=client_name,
        socket_timeout=timeout_s,
        socket_connect_timeout=2.0,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    return aioredis.Redis.from_pool(pool)


def forget_in_process(url: str) -> None:
    """Empty the in-process cache of `url` (a test's clean start)."""
    _in_process.pop(url, None)


async def check_cache(redis: Any, url: str) -> None:
    """Ping.  Raises: OperatorError when credentials are refused; one of AWAY while nobody answers."""
    try:
        await redis.ping()
    except (AuthenticationError, NoPermissionError) as error:
        what = f"the cache at {hide_password(url)} refused the credentials ({error})"
        raise OperatorError(what, "Set MDC_URL=redis://user:password@host:port/db to valid ones", 3) from None
