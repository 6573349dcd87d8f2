"""Writes into the cache, once a second, what a component is and how it fares; the control plane's inventory is made of it.

Invariant: nothing of a component waits for this. A cache that is away, slow or refuses costs a log line, never more. Each beat is
sealed with the admin token, so that an address in it can be believed: who may write to the cache cannot have the token sent away.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service import VERSION, logs
from service.cluster import open_redis
from service.keyspace import space_of
from service.settings import ComponentSettings, admin_token
from service.tasks import Tasks

KEY = "components"  # hash: id of a component → its last beat, with the cache's time
KEPT_MS = 600_000  # who is silent for so long is forgotten
BEAT_S = 1.0
CACHE_S_MAX = 2.0
SWEEP_EVERY = 60  # beats between looks at who is silent for too long
REASONS_MAX = 20
WILDCARDS = ("", "0.0.0.0", "::", "*")  # noqa: S104  # told apart, not bound
# KEYS: the hash.  ARGV: id, seal, beat, how long to keep (ms), whether to sweep.  The time is the cache's own.
WRITE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local value = string.format('{"at_ms":%.0f,"seal":"', now) .. ARGV[2] .. '","beat":' .. ARGV[3] .. '}'
redis.call('HSET', KEYS[1], ARGV[1], value)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if ARGV[5] == '1' then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 2, #all, 2 do
    local at = tonumber(string.match(all[i], '^{"at_ms":(%d+),') or 0)
    if at < now - tonumber(ARGV[4]) then redis.call('HDEL', KEYS[1], all[i - 1]) end
  end
end
"""

log = structlog.get_logger()


class Beat(msgspec.Struct, kw_only=True):
    """What a component says of itself. Rates are a second's; `more` is what only this kind has. Times in ms since the epoch."""

    id: str
    kind: str
    name: str
    version: str
    host: str
    pid: int
    instance: str
    started_ms: int
    admin: str
    log_level: str
    ready: bool
    reasons: list[str]
    rates: dict[str, float]
    lag_ms: float | None = None
    partitions: list[int] | None = None
    more: dict[str, Any] = {}


class Kept(msgspec.Struct):
    """A beat as it is in the cache: when the cache took it, the seal, the beat's own bytes."""

    at_ms: int
    seal: str
    beat: msgspec.Raw


@dataclass(slots=True)
class Vitals:
    """What a component knows of its work: counters (rates are made of them), lag in ms, partitions, and what only it has."""

    totals: Mapping[str, float] = field(default_factory=dict)
    lag_ms: float | None = None
    partitions: list[int] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


class Heartbeat:
    """Beats from `start` to `stop`. Without a cache that others can read (`memory://`) it does nothing."""

    def __init__(
        self,
        kind: str,
        settings: ComponentSettings,
        admin_port: int,
        ready: Callable[[], list[str]],
        vitals: Callable[[], Vitals] = Vitals,
        name: str = "",
    ) -> None:
        """`name` is the component's own one, the kind's by default; `ready` and `vitals` are asked once a second."""
        host = socket.gethostname()
        self.id = f"{kind}-{re.sub(r'[^A-Za-z0-9-]', '-', host)[:64]}-{admin_port}"
        self._settings = settings
        self._port = admin_port
        self._ready = ready
        self._vitals = vitals
        self._said: dict[str, Any] = {
            "id": self.id, "kind": kind, "name": name or kind, "version": VERSION, "host": host, "pid": os.getpid(),
            "instance": secrets.token_hex(6), "started_ms": time.time_ns() // 1_000_000,
        }  # fmt: skip
        self._seal = admin_token(settings).encode()
        self._admin = ""
        self._before: tuple[float, Mapping[str, float]] = (0.0, {})
        self._beats = 0
        self._fault = ""
        self._tasks = Tasks(f"{kind} heartbeat", lambda _: None)  # its end is logged, and ends nothing else
        self._redis: Any = None
        self._key = KEY

    async def start(self) -> None:
        """Begin to beat."""
        if self._settings.mdc_url.startswith("memory:"):
            return
        self._redis = open_redis(self._settings.mdc_url, _client)
        self._key = space_of(self._redis).shared + KEY
        self._tasks.start("beat", self._run())

    async def stop(self) -> None:
        """Stop, and take the entry away: who ends in order is not missing."""
        await self._tasks.close()
        if self._redis is None:
            return
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(CACHE_S_MAX / 2):
                await self._redis.hdel(self._key, self.id)
                await self._redis.aclose()

    def beat(self) -> Beat:
        """Return what would be written now."""
        vitals, now_s = self._vitals(), time.monotonic()
        before_s, before = self._before
        seconds = now_s - before_s
        more = {name: n - before[name] for name, n in vitals.totals.items() if name in before}
        rates = {f"{name}_s": round(max(0.0, n) / seconds, 1) for name, n in more.items()}
        self._before = now_s, dict(vitals.totals)
        reasons = self._ready()
        lag_ms = None if vitals.lag_ms is None else round(vitals.lag_ms, 1)
        return Beat(
            **self._said, admin=self._admin, log_level=logs.level(), ready=not reasons, reasons=reasons[:REASONS_MAX],
            rates=rates, lag_ms=lag_ms, partitions=vitals.partitions, more=dict(vitals.more),
        )  # fmt: skip

    async def _run(self) -> None:
        self._admin = await asyncio.to_thread(
            reachable_at, self._settings.admin_advertised or self._settings.admin_host, self._port
        )
        while True:
            try:
                await self._write()
                self._tell("")
            except (RedisError, OSError, TimeoutError) as error:
                self._tell(str(error) or type(error).__name__)
            except Exception as error:  # what a component says of itself is broken: that must not take it down
                self._tell(f"{type(error).__name__}: {error}")
            await asyncio.sleep(BEAT_S)

    async def _write(self) -> None:
        assert self._redis is not None
        body = msgspec.json.encode(self.beat())
        sweep = self._beats % SWEEP_EVERY == 0
        try:
            async with asyncio.timeout(CACHE_S_MAX):
                await self._redis.eval(WRITE, 1, self._key, self.id, seal(self._seal, body), body, KEPT_MS, int(sweep))
        except BaseException:
            self._beats = 0
            await getattr(self._redis, "connection_pool", self._redis).disconnect()  # half a command may have been written
            raise
        self._beats += 1

    def _tell(self, fault: str) -> None:
        if fault and not self._fault:
            log.warning("heartbeat_not_written", why=fault, fix="Make the cache of MDC_URL answer; nothing else depends on it")
        self._fault = fault


def _client(url: str) -> Redis:
    return Redis.from_url(
        url, client_name="tapeline-heartbeat", socket_timeout=None, socket_connect_timeout=CACHE_S_MAX,
        retry=Retry(NoBackoff(), 0), max_connections=2,
    )  # fmt: skip


def seal(token: bytes, beat: bytes) -> str:
    """Return the proof that a beat was written by somebody who has the admin token: HMAC-SHA256, hexadecimal."""
    return hmac.digest(token, b"tapeline heartbeat\n" + beat, "sha256").hex()


def reachable_at(host: str, port: int) -> str:
    """Return the admin port's address for other machines: with an IP address, so that no name has to be believed.

    A port that listens everywhere is at the address of this host's own name.
    """
    try:
        found = socket.getaddrinfo(socket.gethostname() if host in WILDCARDS else host, port, type=socket.SOCK_STREAM)
        address = str(found[0][4][0])
    except OSError:
        address = "127.0.0.1"
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
