"""A name in, at most one holder out: a Redis lease with a fencing epoch that grows at every change of holder."""

from __future__ import annotations

import secrets
from typing import Any

# KEYS: lease, fence.  ARGV: holder, ttl_ms.  Returns the epoch while held by ARGV[1], else 0.
ACQUIRE = """
local held = redis.call('HMGET', KEYS[1], 'holder', 'epoch')
if held[1] == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return tonumber(held[2])
end
if held[1] then return 0 end
local epoch = redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'epoch', epoch)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return epoch
"""

RELEASE = """
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisLease:
    """One named lease. Call `hold()` at least three times a TTL; it both acquires and renews.

    `redis` is a redis.asyncio client. Redis 7 (and fakeredis with Lua) is enough; no wall clock is compared.
    """

    def __init__(self, redis: Any, name: str, ttl_ms: int, holder: str | None = None) -> None:
        self.holder = holder or secrets.token_hex(8)
        self.epoch = 0
        self._keys = [f"lease:{name}", f"fence:{name}"]
        self._ttl_ms = ttl_ms
        self._acquire = redis.register_script(ACQUIRE)
        self._release = redis.register_script(RELEASE)

    async def hold(self) -> bool:
        """Acquire or renew; return whether we hold the lease now. `epoch` is the fencing number while we do."""
        self.epoch = int(await self._acquire(keys=self._keys, args=[self.holder, self._ttl_ms]))
        return self.epoch > 0

    async def release(self) -> None:
        """Give the lease up so that a standby takes over at once."""
        self.epoch = 0
        await self._release(keys=self._keys[:1], args=[self.holder])
