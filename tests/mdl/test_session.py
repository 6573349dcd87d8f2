"""One running feed at a time: keys that are refused and changed, leases that are lost and taken over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from mdl.session import NEW_KEY
from mdl.vendor.stand_in import VendorServer
from tests.mdl.rig import Start, call, only
from tests.waiting import until


async def test_a_refused_key_makes_us_unready_until_it_changes(
    start: Start, vendor: VendorServer, tmp_path: Path, name: str
) -> None:
    """Not tried again and again; a new key in the file is, by itself."""
    key = tmp_path / "key"
    key.write_text("bad")
    listener = await start(f"memory://{name}", feed="massive", api_key_file=key, massive_url=f"ws://127.0.0.1:{vendor.port}")
    await until(lambda: only(listener).session.state == "refused")
    (reason,) = listener.unready()
    assert "refused the API key" in reason
    assert NEW_KEY in reason
    key.write_text("good\n")
    await until(lambda: only(listener).session.state == "live" and only(listener).intake.router.events > 10)
    assert listener.unready() == []


async def test_a_new_key_by_post_is_tried_at_once(start: Start, vendor: VendorServer, name: str) -> None:
    """The same call changes subscriptions."""
    listener = await start(f"memory://{name}", feed="massive", api_key="bad", massive_url=f"ws://127.0.0.1:{vendor.port}")
    await until(lambda: only(listener).session.state == "refused")
    assert (await call(listener, "POST", "/feed", {"api_key": "good", "subscriptions": ["T.NVDA"]})).status_code == 200
    await until(lambda: only(listener).session.state == "live" and only(listener).intake.router.events > 3)
    assert only(listener).session.settings.topics == ("T.NVDA",)


async def test_a_second_listener_stands_by_and_takes_over(start: Start, vendor: VendorServer, mdc_url: str, name: str) -> None:
    """One vendor connection ever: the standby is ready, says so, and is live within the TTL when the first one is gone."""
    common = {
        "feed": "massive",
        "api_key": "good",
        "massive_url": f"ws://127.0.0.1:{vendor.port}",
        "mdc_url": mdc_url,
        "lease_ttl_ms": 900,
    }
    first = await start(f"memory://{name}", **common)
    await until(lambda: only(first).session.state == "live")
    second = await start(f"memory://{name}", **common)
    await until(lambda: only(second).session.state == "standby" and "another listener" in only(second).session.reason)
    assert second.unready() == []
    assert len(vendor.clients) == 1
    await only(first).session.stop()
    await until(lambda: only(second).session.state == "live")
    assert len(vendor.clients) == 1


async def test_a_listener_that_loses_its_lease_hangs_up(start: Start, vendor: VendorServer, redis_server: Any, name: str) -> None:
    """When the lease cannot be renewed in time; it connects again when Redis is back."""
    listener = await start(
        f"memory://{name}", feed="massive", api_key="good", massive_url=f"ws://127.0.0.1:{vendor.port}",
        mdc_url=redis_server.url, lease_ttl_ms=900,
    )  # fmt: skip
    await until(lambda: only(listener).session.state == "live")
    await asyncio.to_thread(redis_server.stop)
    await until(lambda: only(listener).session.state == "standby" and not vendor.clients)
    assert "cannot be renewed" in only(listener).session.reason or "may hold" in only(listener).session.reason
    await asyncio.to_thread(redis_server.start)
    await until(lambda: only(listener).session.state == "live")
