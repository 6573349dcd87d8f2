"""Checks enrichment from the vendor's stand-in to the quotes, with the real client, a real worker and a process that asks."""

from __future__ import annotations

from mdl.simulation.universe import universe
from tests.mdp.enrich.vendor import Desk, vendor
from tests.waiting import until

LISTED = universe(300, 7)


async def test_quotes_get_what_the_vendor_knows_while_prices_flow() -> None:
    """The day before, the usual volume and the float, of symbols that traded before the facts came and of those after."""
    async with vendor(300) as server, Desk(f"http://127.0.0.1:{server.port}") as desk:
        first, later = LISTED.symbols[0], LISTED.symbols[1]

        async def enriched(symbol: str) -> bool:
            desk.trade(symbol, 50.0)
            return (await desk.quote(symbol)).get("float") is not None

        await until(lambda: enriched(first), 30, "facts of a symbol that trades")
        await until(lambda: enriched(later), 10, "facts of one that trades later")
        quote = await desk.quote(first)
    print(quote)
    assert quote["prev_close"] == LISTED.closes_cents[0] / 100
    assert quote["prev_low"] <= quote["prev_close"] <= quote["prev_high"]
    assert quote["avg_volume"] > 0
    assert quote["rel_volume"] == round(quote["volume"] / quote["avg_volume"], 4)
