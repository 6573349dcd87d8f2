"""One source: it speaks only while its lease is ours, and a name given twice is told from a standby."""

from __future__ import annotations

import asyncio
from typing import Any

from mdl.listener import Listener
from mdl.source import Source
from mdq.connect import open_broker
from tests.mdl.rig import Processor, Start, only
from tests.waiting import until

TTL_MS = 900


async def test_a_standby_says_nothing_at_all(start: Start, mdc_url: str, name: str) -> None:
    """No batch, no mark and no status event of it is in the queues; the holder's arrive without a gap."""
    broker = open_broker(f"memory://{name}", "processor")
    await broker.connect()
    processor = Processor(broker)
    await processor.start()
    common: dict[str, Any] = {"rate": 500, "mdc_url": mdc_url, "lease_ttl_ms": TTL_MS}
    first = await start(f"memory://{name}", **common)
    await until(lambda: only(first).session.state == "live")
    second = await start(f"memory://{name}", **common)
    await until(lambda: only(second).session.state == "standby")
    assert second.unready() == []
    assert only(second).publisher is None
    seen = processor.data()
    await until(lambda: processor.data() > seen + 1_000)
    assert len(processor.epochs()) == 1
    assert processor.lost == 0
    await processor.die()
    await broker.close()


async def test_the_standby_goes_on_in_an_epoch_of_its_own(start: Start, mdc_url: str, name: str) -> None:
    """When the holder stops it takes over within the lease's time; its epoch sorts behind the one before."""
    common: dict[str, Any] = {"rate": 500, "mdc_url": mdc_url, "lease_ttl_ms": TTL_MS}
    first = await start(f"memory://{name}", **common)
    await until(lambda: only(first).publisher)
    second = await start(f"memory://{name}", **common)
    await until(lambda: only(second).session.state == "standby")
    before = _epoch(first)
    await first.stop_feeds()
    await until(lambda: only(second).session.state == "live")
    assert _epoch(second) > before
    assert only(first).publisher is None


async def test_a_name_given_to_two_feeds_is_told_in_one_line(start: Start, mdc_url: str, name: str) -> None:
    """The second is no standby: it would never take over what the first one does. It is unready and says what to set."""
    first = await start(f"memory://{name}", source="main", mdc_url=mdc_url, lease_ttl_ms=TTL_MS)
    await until(lambda: only(first).session.state == "live")
    second = await start(
        f"memory://{name}", source="main", feed="massive", market="crypto", api_key="k", mdc_url=mdc_url, lease_ttl_ms=TTL_MS
    )
    await until(lambda: second.unready() and "another MDL_SOURCE" in second.unready()[0])
    assert "simulator; here it is massive crypto" in second.unready()[0]


async def test_a_source_that_was_frozen_takes_and_publishes_nothing_of_what_it_no_longer_owns(
    start: Start, mdc_url: str, name: str
) -> None:
    """Its clock jumped over the lease's end: the frame it holds in its hand is put down."""
    broker = open_broker(f"memory://{name}", "processor")
    await broker.connect()
    listener = await start(f"memory://{name}", rate=500, mdc_url=mdc_url, lease_ttl_ms=60_000)
    source = only(listener)
    await until(lambda: source.intake.received_frames > 10)
    assert source.session.lease is not None
    source.session.lease._tenure.denied()
    frames, batches = source.intake.received_frames, source._broker.batches  # type: ignore[attr-defined]
    assert source.publisher is not None
    source.publisher.add("trades", 0, [b"{}"] * 600, 1)
    await asyncio.sleep(0.05)
    assert source._broker.batches == batches  # type: ignore[attr-defined]
    assert source.intake.received_frames <= frames + 1
    await broker.close()


def _epoch(listener: Listener) -> str:
    source: Source = only(listener)
    assert source.publisher is not None
    return source.publisher.epoch
