"""What nobody has ever flushed is counted as lost."""

from __future__ import annotations

import pytest

from mdp import roster
from mdp.partitions.partition import Partition
from mdq.batch import new_epoch
from tests.mdp.feed import START_MS, batch, trade


@pytest.mark.parametrize(("cells", "expired"), [({}, 3), ({b"position:s/trades": b"garbage"}, 0)])
def test_what_a_dead_owner_read_and_never_flushed_is_missed(cells: dict[bytes, bytes], expired: int) -> None:
    """Without a position a tenure younger than the cache is counted from its start; not if a position was there and cannot be read."""
    life, tenure = new_epoch(START_MS * 1_000_000, 0), new_epoch((START_MS + 1_000) * 1_000_000, 0)
    partition = Partition(3, 2, life, roster.build(roster.ANALYZERS, {}, 500))
    partition.restore(dict(cells), START_MS)
    one = batch([trade("A")], "trades", 3, epoch=tenure)
    partition.on_batch(one, False, (START_MS + 9_000) * 1_000_000)
    assert sum(partition.counts.expired.values()) == expired
