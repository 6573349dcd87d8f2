"""The original service's browser app over real sockets: what it sends, what it is answered, what it is pushed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from tests.wds.compat.app import App
from tests.wds.publisher import Publisher
from wds.access.keys import local_key
from wds.access.tokens import COMPAT_AUDIENCE, mint
from wds.server import Server

NOW_MS = 1_785_250_800_250  # 2026-07-28 11:00 in New York, and a quarter of a second
QUOTE = {
    "last": 110.0, "bid": 109.9, "ask": 110.1, "bid_size": 200, "ask_size": 300, "open": 100.0, "high": 112.0, "low": 99.0,
    "volume": 5000, "vwap": 105.5, "trades": 50, "prev_close": 88.0, "change": 22.0, "change_pct": 25.0, "rel_volume": 2.5,
    "session": "regular", "ts": NOW_MS,
}  # fmt: skip
QUOTE_PUSH = {
    "symbol": "ABC", "volume": None, "accumulated_volume": 5000, "relative_volume": 2.5, "official_open_price": 100.0,
    "vwap": 105.5, "open": 100.0, "close": 110.0, "aggregate_vwap": 105.5, "average_size": 100, "avg_volume": 2000,
    "prev_day_open": None, "prev_day_high": None, "prev_day_low": None, "prev_day_volume": None, "prev_day_vwap": None,
    "high": 112.0, "low": 99.0, "free_float": None, "prev_day_close": 88.0, "change": 22.0, "pct_change": 25.0,
    "change_since_open": 10.0, "pct_change_since_open": 10.0, "start_timestamp": NOW_MS - 250, "end_timestamp": NOW_MS + 750,
}  # fmt: skip


@pytest.fixture
async def wds(serve: Callable[..., Any], publisher: Publisher) -> Server:
    """One worker that serves the original's path."""
    server: Server = await serve(compat=True)
    await until(lambda: server.hub.verdict.state == "live")
    return server


@pytest.fixture
def key(tmp_path: Path) -> Callable[..., str]:
    """Mint a key as the control plane gives it to the app."""

    def make(*globs: str, sid: str = "s1", sub: str = "eve", ttl_s: int = 3600) -> str:
        import time

        made: str = mint(local_key(tmp_path), sub, globs or ("*",), ttl_s, time.time(), "j1", audience=COMPAT_AUDIENCE, sid=sid)
        return made

    return make


async def following(wds: Server, channel: str) -> None:
    """Wait until the relay has joined a channel: a change before that is nobody's."""
    await until(lambda: wds.relay is not None and channel in wds.relay.channels)


async def test_smoke(wds: Server, publisher: Publisher, key: Callable[..., str]) -> None:
    """Smoke."""
    await publisher.publish("quote:ABC", QUOTE)
    app = await App.to(wds.port, key(), feed="quote:ABC", cache="quote:ABC")
    assert await app.document("quote:ABC") == QUOTE_PUSH
    assert [one.get("status", one.get("cache")) for one in app.heard] == ["authorized", "quote:ABC"]
    await app.status("subscribed", feed="quote:ABC")
    await following(wds, "quote:ABC")
    await publisher.publish("quote:ABC", {**QUOTE, "last": 111.0})
    assert await app.push() == {**QUOTE_PUSH, "close": 111.0, "change_since_open": 11.0, "pct_change_since_open": 11.0}
    await app.close()
