"""Says which Redis keys lie together: in a cluster those of a partition have a hash tag, and those that all share have one.

Invariant: keys that one call touches together have the same tag, so that the call runs on one node. On a single server the tags
are empty: the names of the keys are the same as they always were.
"""

from __future__ import annotations

from binascii import crc_hqx
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_lowercase
from typing import Any

SLOTS = 16_384
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class Space:
    """How keys are spelled: `shared` stands before those that belong to no partition, `of(n)` before those of partition n."""

    clustered: bool

    @property
    def shared(self) -> str:
        """What stands before leases, lives, orders, merged channels: one slot, so that ownership stays one call."""
        return "{mdc}" if self.clustered else ""

    def of(self, partition: int) -> str:
        """Return what stands before the keys of a partition."""
        return _tag(partition) if self.clustered else ""

    def homes(self, partitions: int) -> list[str]:
        """Return what stands before the keys of each partition, each once."""
        return [self.of(partition) for partition in range(partitions)] if self.clustered else [""]


def slot_of(key: Any) -> int:
    """Return the slot of a key: CRC-16 of what stands in its first braces, of all of it where there are none."""
    name = key if isinstance(key, bytes) else str(key).encode()
    tag = name.partition(b"{")[2].partition(b"}")
    return crc_hqx(tag[0] if tag[0] and tag[1] else name, 0) % SLOTS


@lru_cache(4096)
def _tag(partition: int) -> str:
    """Return a partition's hash tag, with the letter that puts its slot where it should be.

    Steps of the golden ratio spread any number of partitions evenly over any number of nodes: eight lie 4+4 on two and
    3+3+2 on three, where the bare numbers would lie 4+2+2 on three and the third node would take nothing off the first.
    """
    wanted = (partition + 0.5) * GOLDEN % 1 * SLOTS
    names = (f"p{partition}{letter}" for letter in ascii_lowercase)
    return "{" + min(names, key=lambda name: abs(slot_of(name) - wanted)) + "}"


SINGLE = Space(clustered=False)
CLUSTERED = Space(clustered=True)


def space_of(redis: Any) -> Space:
    """Return how the keys behind a client are spelled."""
    found = getattr(redis, "space", SINGLE)
    return found if isinstance(found, Space) else SINGLE
