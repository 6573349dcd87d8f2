"""Checks the vendor's REST answers on the admin port of a listener that plays a simulated market."""

from __future__ import annotations

import time

from tests.mdl.rig import Start, call

SYMBOL, DAY_MS = "NVDA", 86_400_000


async def test_a_listener_answers_of_the_market_that_it_plays(start: Start, name: str) -> None:
    """At /simulated of its admin port, when that is asked for; pages lead there again. Stopped, it says that this passes."""
    listener = await start(f"memory://{name}", rate=2_000, symbols=50, simulated_rest=True)
    overview = (await call(listener, "GET", f"/simulated/v3/reference/tickers/{SYMBOL}")).json()["results"]
    assert overview["branding"]["icon_url"].endswith(f"/simulated/v1/reference/company-branding/{SYMBOL}/logo.png")
    now_ms = time.time_ns() // 1_000_000
    bars = (await call(listener, "GET", f"/simulated/v2/aggs/ticker/{SYMBOL}/range/1/hour/{now_ms - 9 * DAY_MS}/{now_ms}")).json()
    assert bars["resultsCount"] >= 20
    assert (await call(listener, "GET", "/simulated/v3/reference/tickers/NOSUCH")).status_code == 404
    assert (await call(listener, "GET", "/simulated/v1/nothing")).status_code == 404
    await call(listener, "POST", "/feed/stop")
    assert (await call(listener, "GET", f"/simulated/v3/reference/tickers/{SYMBOL}")).status_code == 503
