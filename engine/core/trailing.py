"""Calculates where trailing stops stand: behind the last trade by their distance, never farther away than before.

A stop that sells stays below the market and only rises, one that buys stays above and only falls. It moves once a command, when
no other stop is due any more, to where the last trade puts it; it never meets that trade itself, so that moving triggers nothing.
The distance is whole ticks, or parts per million of the last price, rounded away from the market.
"""

from __future__ import annotations

from engine.core.commands import BUY, Instrument, Trail
from engine.core.events import RejectReason
from engine.core.units import PPM

TRAILS_MAX = 1_000  # open orders with a trail, by contract: each moves with one new extreme, and all of them in one command


def stop_behind(trail: Trail, side: int, last_ticks: int, price_ticks_max: int) -> int:
    """Return where the stop stands after a trade at `last_ticks`, within the prices of the contract."""
    if side == BUY:
        stop = last_ticks + trail.ticks if trail.ticks else -(-last_ticks * (PPM + trail.ppm) // PPM)
    else:
        stop = last_ticks - trail.ticks if trail.ticks else last_ticks * (PPM - trail.ppm) // PPM
    return max(1, min(stop, price_ticks_max))


def moves_at(trail: Trail, side: int, stop_ticks: int) -> int:
    """Return the last price, the nearest to the market, that moves a stop standing at `stop_ticks`.

    The inverse of `stop_behind`: for a sale the lowest price whose stop is above, for a purchase the highest whose is below.
    """
    if side == BUY:
        return stop_ticks - trail.ticks - 1 if trail.ticks else (stop_ticks - 1) * PPM // (PPM + trail.ppm)
    return stop_ticks + trail.ticks + 1 if trail.ticks else -(-(stop_ticks + 1) * PPM // (PPM - trail.ppm))


def refuse_trail(trail: Trail, instrument: Instrument, open_trails: int) -> RejectReason | None:
    """Return why an order cannot trail like this."""
    if (trail.ticks == 0) == (trail.ppm == 0):
        return RejectReason.INVALID_COMBINATION
    if not 0 <= trail.ticks <= instrument.price_ticks_max or not 0 <= trail.ppm < PPM:
        return RejectReason.INVALID_PRICE
    return RejectReason.TOO_MANY_ORDERS if open_trails >= TRAILS_MAX else None
