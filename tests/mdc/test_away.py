"""Which parts of the cache are away, and what is in them."""

from __future__ import annotations

from mdc.away import NOTHING, SHARED, Away
from mdc.channels import KINDS
from service.partition import partition_of

QUOTE, NEWS = KINDS["quote"], KINDS["news"]


def test_a_channel_is_in_the_part_of_its_symbol_or_in_the_shared_one() -> None:
    """What several partitions write belongs to none; why a part is away is said of its channels only."""
    assert Away(8).part_of(QUOTE, "AAPL") == partition_of("AAPL", 8)
    assert (Away(8).part_of(NEWS, "latest"), Away(8).part_of(NEWS, "AAPL")) == (SHARED, partition_of("AAPL", 8))
    away = Away(8, {SHARED: "frozen"})
    assert (away.why(NEWS, "latest"), away.why(QUOTE, "AAPL")) == ("frozen", "")
    assert NOTHING.why(NEWS, "latest") == ""
