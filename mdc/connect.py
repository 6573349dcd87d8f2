"""Opens Redis clients: of a real server, of a Redis Cluster, or of fakeredis inside this process for `memory://name`."""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as ConnectionLost

from service.cluster import open_redis
from service.cluster_url import EXAMPLE, is_cluster
from service.errors import OperatorError
from service.settings import hide_password

AWAY = (RedisError, OSError, TimeoutError)  # what a client raises while the cache cannot be reached
# A restarted server, one that has just lost its role, a slot of a cluster that is on its way: the next try meets another.
PASSING = (NoScriptError, ReadOnlyError, ClusterDownError, AskError, TryAgainError)
CLUSTER_TIMEOUT_S = 1.5  # a node that hangs keeps what is for the others waiting once, for so long
REMEDIES = (
    (("OOM", "out of memory", "maxmemory"), "Give it more memory (maxmemory), or fewer symbols"),
    (("WRONGTYPE", "wrong kind of value"), "Delete the key that another program has written, or give us a database of our own"),
    (("NOPERM", "permission"), "The user needs +@all on our keys, see mdc/README.md"),
    (("MISCONF", "READONLY"), "Mend its persistence (disk full?), or point MDC_URL at the primary"),
)
_in_process: dict[str, Any] = {}  # memory:// URL → fakeredis server


class Sending:
    """How commands leave a connection of redis-py: packed by hiredis, and without the `asyncio.wait_for` of redis-py.

    redis-py's own packing took a quarter of a processor's time (2.0 of 5.8 µs an event). Its `wait_for` swallows a cancellation
    that meets the end of the write: 162 of 300 tasks that were cancelled in mid-traffic went on as if nothing had happened.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *rest = args
        return [hiredis.pack_command((*name.split(), *rest))]

    async def send_packed_command(self: Any, command: Any, check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command([command] if isinstance(command, bytes) else command)
        except BaseException as error:
            await self.disconnect(nowait=True)  # half a command may have been written: nothing can follow it
            if isinstance(error, OSError):  # TimeoutError is one
                raise ConnectionLost(f"cannot write to the cache: {str(error) or type(error).__name__}") from None
            raise


class PlainConnection(Sending, aioredis.Connection):
    """Over TCP."""


class SecureConnection(Sending, aioredis.SSLConnection):
    """Over TLS."""


class LocalConnection(Sending, aioredis.UnixDomainSocketConnection):
    """Over a Unix socket."""


CONNECTIONS = {"redis": PlainConnection, "rediss": SecureConnection, "unix": LocalConnection}


class CacheUnavailable(ConnectionError):
    """The cache cannot be reached now; what was not written stays with the writer, what was not read can be asked again."""


class CacheRefused(CacheUnavailable):
    """The cache answers and refuses: a wrong type, a missing permission, no memory. Waiting alone does not mend it."""


def unavailable(error: BaseException) -> CacheUnavailable:
    """Return what to raise for one of AWAY: whether nobody answers, or the server answers and refuses."""
    if isinstance(error, ResponseError) and not isinstance(error, PASSING):
        return CacheRefused(f"Redis refuses: {error}. {_remedy(str(error))}")
    return CacheUnavailable(str(error) or type(error).__name__)


def _remedy(error: str) -> str:
    word = error.split(" ")[0].upper()
    for marks, remedy in REMEDIES:
        if word in marks or any(mark in error.lower() for mark in marks):
            return remedy
    return "See the server's log"


def open_cache(url: str, client_name: str = "tapeline", timeout_s: float = 5.0) -> Any:
    """Return a redis.asyncio client (bytes in, bytes out) for `url`; it connects on first use and never retries by itself."""
    if url.startswith("memory://"):
        import fakeredis  # a quarter of what starting a component takes, for those who need it

        server = _in_process.setdefault(url, fakeredis.FakeServer())
        return fakeredis.FakeAsyncRedis(server=server)
    if is_cluster(url):
        timeout_s = min(timeout_s, CLUSTER_TIMEOUT_S)
    return open_redis(url, lambda one: _open_server(one, client_name, timeout_s))


def _open_server(url: str, client_name: str, timeout_s: float) -> Any:
    pool = aioredis.ConnectionPool.from_url(
        url,
        client_name=client_name,
        socket_timeout=timeout_s,
        socket_connect_timeout=min(2.0, timeout_s),
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    pool.connection_class = CONNECTIONS[url.partition(":")[0].lower()]  # an argument would lose against the URL's own
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
        fix = EXAMPLE.replace("://:", "://user:") if is_cluster(url) else "redis://user:password@host:port/db"
        raise OperatorError(what, f"Set MDC_URL={fix} to valid ones", 3) from None
