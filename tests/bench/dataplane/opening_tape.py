"""Makes the tape of an opening: every symbol trades and is quoted within the first second of the regular session.

Before it each symbol trades and is quoted once in the pre-market, and some of them go on, by which a client can set its clock. At the
open every symbol trades away from its pre-market range, two thirds of them with a gap; after it two in five go on to new highs or
lows with every trade, the others return to a price of before. The same arguments give the same tape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

from mdl.simulation.universe import universe

OPENS_MS = round(datetime(2026, 3, 9, 9, 30, tzinfo=ZoneInfo("America/New_York")).timestamp() * 1000)  # a Monday
FRAME_MS = 5
PRE_S, KNOWN_S = 20, 8  # how long the pre-market is, and within what of it every symbol has come
CALM_RATE = 400  # events/s of the symbols that go on in the pre-market
OPENING_TRADES, OPENING_QUOTES = 2, 4  # of a symbol, in the first second
TRADES_OF_10 = 3  # after the first second
GAPS = (1.06, 0.95, 1.005)  # of the previous close, in turn
TRENDS = (1, -1, 0, 0, 0)  # whether a symbol goes on to new highs, new lows, or neither; in turn
SYMBOLS_SEEN = 40  # the client looks at these


@dataclass(frozen=True, slots=True)
class Plan:
    """An opening of `symbols`, and `seconds` of it, with `rate` events/s after the first."""

    symbols: int
    rate: int
    seconds: int
    seed: int = 7

    @property
    def names(self) -> list[str]:
        return universe(self.symbols, self.seed).symbols

    @property
    def seen(self) -> list[str]:
        """Return the symbols that a client looks at, spread over the market."""
        step = max(1, self.symbols // SYMBOLS_SEEN)
        return self.names[::step][:SYMBOLS_SEEN]


class Tape:
    """What was written: how many events, and since when a symbol has had which volume of the day."""

    def __init__(self) -> None:
        self.events = self.trades = 0
        self.reached_ms: dict[tuple[str, int], int] = {}


class _Market:
    """Prices and volumes of every symbol; makes their events."""

    def __init__(self, plan: Plan, tape: Tape) -> None:
        listed = universe(plan.symbols, plan.seed)
        self._names, self._tape = listed.symbols, tape
        self._closes = listed.closes_cents
        self._last = [round(cents * 1.001) for cents in self._closes]
        self._volumes = [0] * plan.symbols

    def open(self) -> None:
        """Every symbol stands at its opening price, from here on."""
        self._last = [round(cents * GAPS[n % len(GAPS)]) for n, cents in enumerate(self._closes)]

    def trade(self, n: int, ts: int, size: int, conditions: str) -> str:
        tape, name = self._tape, self._names[n]
        price = self._last[n]
        trend = TRENDS[n % len(TRENDS)]
        self._last[n] = max(100, price + trend) if trend else price + (1 if tape.trades % 2 else -1)
        self._volumes[n] += size
        tape.trades += 1
        tape.reached_ms[name, self._volumes[n]] = ts
        return (
            f'{{"ev":"T","sym":"{name}","x":4,"i":"{tape.trades}","z":3,"p":{price / 100:.2f},"s":{size},"c":[{conditions}],'
            f'"t":{ts},"q":{tape.trades}}}'
        )

    def quote(self, n: int, ts: int) -> str:
        price = self._last[n]
        return (
            f'{{"ev":"Q","sym":"{self._names[n]}","bx":4,"bp":{(price - 1) / 100:.2f},"bs":100,"ax":4,"ap":{(price + 1) / 100:.2f},'
            f'"as":200,"c":1,"t":{ts},"q":{ts},"z":3}}'
        )


def write(path: Path, plan: Plan) -> Tape:
    """Write the tape as a recorder would."""
    made = Tape()
    with path.open("w") as file:
        for at_ms, events in _frames(plan, made):
            made.events += len(events)
            file.write(f'{{"received_ns":{at_ms * 1_000_000},"frame":[{",".join(events)}]}}\n')
    return made


def write_reference(path: Path, plan: Plan) -> None:
    """Write what the processors know of the day before: gaps are told against it, and volumes."""
    listed = universe(plan.symbols, plan.seed)
    rows = (
        f"{name},{cents / 100:.2f},{2_000 + 100 * (n % 90)}"
        for n, (name, cents) in enumerate(zip(listed.symbols, listed.closes_cents, strict=True))
    )
    path.write_text("symbol,prev_close,avg_volume\n" + "\n".join(rows) + "\n")


def _frames(plan: Plan, made: Tape) -> Iterator[tuple[int, list[str]]]:
    """Yield (time, events) of each frame."""
    dice, market = Random(f"opening {plan.seed}"), _Market(plan, made)
    order = dice.sample(range(plan.symbols), plan.symbols)
    names = plan.names
    calm = [names.index(name) for name in plan.seen]
    begins_ms = OPENS_MS - PRE_S * 1_000
    for at_ms, share in _steps(begins_ms, KNOWN_S * 1_000, len(order)):
        yield at_ms, [text for n in order[share] for text in (market.trade(n, at_ms, 100, "12"), market.quote(n, at_ms))]
    for at_ms, share in _steps(begins_ms + KNOWN_S * 1_000, (PRE_S - KNOWN_S) * 1_000, CALM_RATE * (PRE_S - KNOWN_S)):
        picked = [calm[one % len(calm)] for one in range(share.start, share.stop)]
        yield at_ms, [market.trade(n, at_ms, 1, "12") if one % 2 else market.quote(n, at_ms) for one, n in enumerate(picked)]
    market.open()
    rounds = [n for _ in range(OPENING_TRADES) for n in dice.sample(order, len(order))]
    for at_ms, share in _steps(OPENS_MS, 1_000, len(rounds)):
        yield at_ms, [text for n in rounds[share] for text in _opening(market, n, at_ms)]
    for at_ms, share in _steps(OPENS_MS + 1_000, (plan.seconds - 1) * 1_000, plan.rate * (plan.seconds - 1)):
        picked = [dice.randrange(plan.symbols) for _ in range(share.start, share.stop)]
        yield (
            at_ms,
            [market.trade(n, at_ms, 100, "0") if dice.randrange(10) < TRADES_OF_10 else market.quote(n, at_ms) for n in picked],
        )


def _opening(market: _Market, n: int, at_ms: int) -> list[str]:
    quotes = [market.quote(n, at_ms) for _ in range(OPENING_QUOTES // OPENING_TRADES)]
    return [market.trade(n, at_ms, 5_000, "0"), *quotes]


def _steps(begins_ms: int, lasts_ms: int, count: int) -> Iterator[tuple[int, slice]]:
    """Spread `count` things over a time; yield (time, which of them) of each step that has some."""
    steps = lasts_ms // FRAME_MS
    for step in range(steps):
        share = slice(count * step // steps, count * (step + 1) // steps)
        if share.stop > share.start:
            yield begins_ms + step * FRAME_MS, share
