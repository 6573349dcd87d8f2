"""Writes a made-up recording, from a seed, of two contracts with depth and two stocks without.

The events are those that the built-in exchange's feed sends: trades (T), best bid and offer (Q), the best 20 levels (L2).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mdl.tapes.format import write_line

CONTRACTS = {"BTC-PERP": (60_000.0, 0.5, 0.001), "ETH-PERP": (3_000.0, 0.05, 0.01)}  # price, tick, lot
STOCKS = {"AAPL": (189.5, 0.01, 100.0), "MSFT": (410.0, 0.01, 100.0)}
STEP_MS = 50
LEVELS_MAX = 20
Event = dict[str, Any]


class Side:
    """Resting sizes by distance from the middle, in ticks and lots. `sign` -1 = bids."""

    def __init__(self, dice: random.Random, sign: int) -> None:
        self.sign = sign
        self.levels: dict[int, int] = {}
        self._dice = dice

    def fill(self, middle: int) -> None:
        """Place and cancel a few orders around `middle`; the side is never empty."""
        for _ in range(3):
            ticks = middle + self.sign * (1 + int(self._dice.expovariate(0.12)))
            self.levels[ticks] = self.levels.get(ticks, 0) + 1 + int(self._dice.lognormvariate(5.5, 1.3))
        worst_first = sorted(self.levels, key=lambda ticks: -self.sign * ticks)
        for ticks in worst_first[: max(0, len(self.levels) - 40)]:
            del self.levels[ticks]
        if len(self.levels) > 8 and self._dice.random() < 0.5:
            del self.levels[self._dice.choice(list(self.levels))]

    def best(self) -> list[tuple[int, int]]:
        """Return the best levels, best first."""
        return sorted(self.levels.items(), key=lambda level: self.sign * level[0])[:LEVELS_MAX]

    def take(self) -> tuple[int, int]:
        """Take a part of the best level, or all of it; return (ticks, lots)."""
        ticks, resting = self.best()[0]
        lots = min(resting, 1 + int(self._dice.lognormvariate(4, 1.5)))
        if lots == resting and len(self.levels) > 1:
            del self.levels[ticks]
        else:
            self.levels[ticks] = max(1, resting - lots)
        return ticks, lots


class Instrument:
    """One instrument's orders and trades; `with_depth` False sends no L2."""

    def __init__(self, dice: random.Random, symbol: str, facts: tuple[float, float, float], with_depth: bool) -> None:
        self.symbol, self.with_depth = symbol, with_depth
        price, self._tick, self._lot = facts
        self._dice, self._middle, self._trades = dice, round(price / self._tick), 0
        self._bids, self._asks = Side(dice, -1), Side(dice, 1)
        for _ in range(12):
            self._bids.fill(self._middle)
            self._asks.fill(self._middle)

    def step(self, ms: int) -> list[Event]:
        """Return what happens at `ms`."""
        for side in (self._bids, self._asks):
            side.fill(self._middle)
            for ticks in [ticks for ticks in side.levels if side.sign * (ticks - self._middle) <= 0]:
                del side.levels[ticks]
        events = [self._trade(ms)] if self._dice.random() < 0.3 else []
        self._middle += self._dice.choice((-1, 0, 0, 0, 1))
        return [*events, *self.quotes(ms)]

    def quotes(self, ms: int) -> list[Event]:
        """Return the best bid and offer and the depth."""
        bids, asks = self._shown(self._bids), self._shown(self._asks)
        (bp, bs), (ap, a_s) = bids[0], asks[0]
        best = {"ev": "Q", "sym": self.symbol, "bp": bp, "bs": bs, "ap": ap, "as": a_s, "t": ms}
        depth = {"ev": "L2", "sym": self.symbol, "b": bids, "a": asks, "t": ms}
        return [best, depth] if self.with_depth else [best]

    def _trade(self, ms: int) -> Event:
        ticks, lots = self._dice.choice((self._bids, self._asks)).take()
        self._trades += 1
        price, size = self._price(ticks), self._size(lots)
        return {"ev": "T", "sym": self.symbol, "i": str(self._trades), "x": 1, "p": price, "s": size, "t": ms}

    def _shown(self, side: Side) -> list[list[float]]:
        return [[self._price(ticks), self._size(lots)] for ticks, lots in side.best()]

    def _price(self, ticks: int) -> float:
        return round(ticks * self._tick, 8)

    def _size(self, lots: int) -> float:
        return round(lots * self._lot, 8)


def frames(seed: int, start_ms: int, seconds: float) -> Iterator[tuple[int, list[Event]]]:
    """Yield (ms, events) every 50 ms."""
    dice = random.Random(seed)
    made = [Instrument(dice, symbol, facts, True) for symbol, facts in CONTRACTS.items()]
    made += [Instrument(dice, symbol, facts, False) for symbol, facts in STOCKS.items()]
    for ms in range(start_ms, start_ms + round(seconds * 1000), STEP_MS):
        yield ms, [event for instrument in made for event in instrument.step(ms)]


def write_tape(path: Path, seed: int, start_ms: int, seconds: float) -> Path:
    """Write the recording to `path` (.ndjson); return it."""
    with path.open("wb") as out:
        for ms, events in frames(seed, start_ms, seconds):
            out.write(write_line(json.dumps(events).encode(), ms * 1_000_000))
    return path
