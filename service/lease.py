"""Gives a name to at most one holder at a time: a Redis lease with an epoch that grows at every change of holder."""

from __future__ import annotations

import secrets
from typing import Any

from service.keyspace import space_of

# KEYS: lease, fence.  ARGV: holder, ttl_ms, about, epoch to renew (0 = none).  Returns the epoch while held by ARGV[1], else 0.
# The epoch is one more than the last, and at least Redis's clock in ms: it grows over an emptied or rolled back Redis, too.
# A holder that does not know its epoch (an answer was lost, or it came too late) gets a new one: what it said under the old
# one, and how far it had counted, belongs to a tenure that is over.
ACQUIRE = """
local held = redis.call('HMGET', KEYS[1], 'holder', 'epoch')
if held[1] == ARGV[1] and held[2] == ARGV[4] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return tonumber(held[2])
end
if held[1] and held[1] ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local epoch = math.max(tonumber(redis.call('GET', KEYS[2]) or 0) + 1, now)
local written = string.format('%.0f', epoch)
redis.call('SET', KEYS[2], written)
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'epoch', written, 'about', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return epoch
"""

RELEASE = """
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisLease:
    """One named lease. Call `hold()` at least three times a TTL; it both acquires and renews.

    `redis` is a redis.asyncio client. Redis 7 (and fakeredis with Lua) is enough; no two machines' clocks are compared.
    `about` says in a few words what the holder does; whoever waits can read it in `holder_about()`.
    """

    def __init__(self, redis: Any, name: str, ttl_ms: int, holder: str | None = None, about: str = "") -> None:
        self.holder = holder or secrets.token_hex(8)
        self.epoch = 0
        shared = space_of(redis).shared
        self._keys = [f"{shared}lease:{name}", f"{shared}fence:{name}"]
        self._ttl_ms = ttl_ms
        self._about = about
        self._redis = redis
        self._acquire = redis.register_script(ACQUIRE)
        self._release = redis.register_script(RELEASE)

    async def hold(self) -> bool:
        """Acquire or renew; return whether we hold the lease now. `epoch` is the fencing number while we do."""
        self.epoch = int(await self._acquire(keys=self._keys, args=[self.holder, self._ttl_ms, self._about, self.epoch]))
        return self.epoch > 0

    def forget(self) -> None:
        """Our tenure is over, whatever Redis thinks: the next `hold` begins another, with an epoch of its own."""
        self.epoch = 0

    async def holder_about(self) -> str:
        """Return what the present holder says of itself, empty when nobody holds it."""
        about = await self._redis.hget(self._keys[0], "about")
        return about.decode(errors="replace") if about else ""

    async def release(self) -> None:
        """Give the lease up so that a standby takes over at once."""
        self.epoch = 0
        await self._release(keys=self._keys[:1], args=[self.holder])
