"""The contracts that the bots list, and the walk of a fair price that they trade around."""

from __future__ import annotations

from random import Random

from engine.core.commands import Instrument

# A tick of 0.5 and a lot of 0.001 (0.05 and 0.01): one lot moves by 0.0005 a tick, which is 500 units of money.
BTC = Instrument(
    "BTC-PERP",
    500,
    100,
    500,
    band_ppm=100_000,
    size_lots_max=500_000,
    price_ticks_max=4_000_000,
    tick_size="0.5",
    lot_size="0.001",
)
ETH = Instrument(
    "ETH-PERP",
    500,
    100,
    500,
    band_ppm=100_000,
    size_lots_max=500_000,
    price_ticks_max=4_000_000,
    tick_size="0.05",
    lot_size="0.01",
)
FAIR_TICKS = {BTC.symbol: 180_000, ETH.symbol: 80_000}  # where the walks begin: 90,000 and 4,000
LISTED = (BTC, ETH)


class Walk:
    """A fair price in ticks: small steps, drawn back to where it began so that no price limit is ever met."""

    def __init__(self, dice: Random, start_ticks: int, step_ticks: float) -> None:
        self._dice = dice
        self._start = start_ticks
        self._step = step_ticks
        self._price = float(start_ticks)

    @property
    def ticks(self) -> int:
        return round(self._price)

    def step(self) -> int:
        """Walk one step; return the new price."""
        home = self._start - self._price
        self._price += self._dice.gauss(0.0, self._step) + home * 1e-5
        nearest, farthest = self._start * 0.5, self._start * 1.5
        self._price = min(max(self._price, nearest), farthest)
        return self.ticks
