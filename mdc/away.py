"""Says which parts of the cache cannot be read now: in a cluster each node has some of the partitions, one has what all share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mdc.channels import Kind
from service.partition import partition_of

SHARED = -1  # the part that belongs to no partition: boards, alerts, `news:latest`, `status:pipeline`


@dataclass(frozen=True, slots=True)
class Away:
    """The parts that are away, and why; a part is a partition's number or SHARED. On a single server there is none."""

    partitions: int = 1
    parts: Mapping[int, str] = field(default_factory=dict)

    def part_of(self, kind: Kind, name: str) -> int:
        """Return the part that holds the channel `kind:name`."""
        return SHARED if kind.is_shared(name) else partition_of(name, self.partitions)

    def why(self, kind: Kind, name: str) -> str:
        """Return why a channel cannot be read now, empty when it can."""
        return self.parts.get(self.part_of(kind, name), "") if self.parts else ""


NOTHING = Away()
