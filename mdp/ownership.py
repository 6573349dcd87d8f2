"""Spreads the partitions evenly over the workers: leases in the cache, renewed by heartbeats, moved when workers change.

Invariant: a partition has at most one owner at a time as far as the cache is concerned: every claim raises the partition's
fence, and a flush with an old fence writes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from mdc.connect import AWAY, unavailable
from mdc.keys import SINCE
from service.keyspace import space_of

LEASE_MS = 2_000  # a worker that died or hangs is replaced after this and one beat
# In a cluster the node that keeps the leases fails over in two to three seconds: they should live longer than that, or every
# worker would let go of everything, and still let a dead worker be replaced within five.
CLUSTER_LEASE_MS = 4_000
BEAT_S = 1 / 3
DUE = "mdp:due"
KEYS = ("mdp:workers", SINCE, "mdp:ranks", DUE)
# KEYS: lease, mdp:due, mdp:held:{worker}.  ARGV: worker, partition.
RELEASE = """
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return end
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[2], 'XX', 0, ARGV[2])
redis.call('SREM', KEYS[3], ARGV[2])
"""


@dataclass(slots=True)
class Share:
    """What a worker owns: partition → fence, and the fence `before` it; `surplus` of them should be given to others.

    `workers` are alive.
    """

    owned: dict[int, int] = field(default_factory=dict)
    surplus: int = 0
    workers: int = 0
    before: dict[int, int] = field(default_factory=dict)


def lease_ms_of(redis: Any) -> int:
    """Return how long a lease lasts in this cache."""
    return CLUSTER_LEASE_MS if space_of(redis).clustered else LEASE_MS


class Ownership:
    """The membership of one worker. Call `beat()` every BEAT_S."""

    def __init__(self, redis: Any, worker: str, partitions: int, lease_ms: int = LEASE_MS) -> None:
        self.worker = worker
        self._token = secrets.token_hex(8)  # this process: one of the same name that died is somebody else
        self._partitions = partitions
        self._lease_ms = lease_ms
        self._beat = redis.register_script(files("mdp").joinpath("scripts/ownership.lua").read_text())
        self._release = redis.register_script(RELEASE)
        self._shared = space_of(redis).shared
        self._held = f"{self._shared}mdp:held:{worker}"

    async def beat(self, claim: bool = True, remembered: Iterable[int] = ()) -> Share:
        """Renew what we own and, with `claim`, take free partitions up to our fair share.  Raises: CacheUnavailable.

        `remembered` are the partitions whose state we hold in memory: in an emptied cache they are ours first.
        """
        args = [self.worker, self._lease_ms, self._partitions, int(claim), self._token, *remembered]
        try:
            members, surplus, *claims = await self._beat(keys=[*(self._shared + key for key in KEYS), self._held], args=args)
        except AWAY as error:
            raise unavailable(error) from None
        owned = dict(zip(claims[::3], claims[1::3], strict=True))
        return Share(owned, int(surplus), int(members), dict(zip(claims[::3], claims[2::3], strict=True)))

    async def release(self, partition: int) -> None:
        """Give a partition up: the next beat of any worker takes it.  Raises: CacheUnavailable."""
        try:
            names = [f"{self._shared}lease:partition:{partition}", self._shared + DUE, self._held]
            await self._release(keys=names, args=[self.worker, partition])
        except AWAY as error:
            raise unavailable(error) from None
