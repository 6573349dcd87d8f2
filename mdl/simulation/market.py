"""Simulates a plausible stock market as frames; the same seed and the same calls give the same bytes.

Prices walk around a target of their own, quotes stand around the last price, every second and minute ends in aggregates,
some trades are odd lots, late or out of sequence, now and then a stock is halted. Measured: 0.8 M events/s on one core;
the work of an event is one draw of random bits, a few list reads and one f-string.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from random import Random

from mdl.feeds.hours import eastern
from mdl.simulation.past import Past
from mdl.simulation.universe import Universe, universe

PRICE_CENTS_MAX = 200_000
DRAWS_MIN = 1 << 16
PENDING_MAX = 50_000  # aggregates waiting for room in the rate; the oldest go first
HALT_MS, HALT_EVERY_MS, BANDS_EVERY_MS = 20_000, 45_000, 400
HALTED, RESUMED, BANDS = 17, 18, 21
LATE = 32  # sold, out of sequence
EXTENDED = 12  # form T
CONDITIONS = ("[14]", "[14]", "[0]", "[0]", "[14,41]", "[0]", "[14]", "[41]")
ROUND_LOTS = (100, 100, 100, 200, 100, 300, 500, 1000)
EXCHANGES = (4, 11, 12, 8, 10, 19, 2, 3, 7, 9, 15, 18, 20, 21, 17, 1)
STEPS = (*([0] * 26), 1, 1, 1, -1, -1, -1)  # in ticks: a price changes with every fifth event


class Bar:
    """The aggregate of one symbol while it grows."""

    __slots__ = ("close", "high", "low", "open", "trades", "value", "volume")

    def __init__(self, price: int, size: int) -> None:
        self.open = self.high = self.low = self.close = price
        self.volume, self.value, self.trades = size, price * size, 1


class Simulator:
    """One market. `frame()` is called with times that do not go back; nothing else moves it."""

    def __init__(self, symbols: int, seed: int, quotes: float = 0.7, session: str = "regular") -> None:
        self.listed = universe(symbols, seed)
        self.events = 0
        self.past: Past | None = None  # set by whoever is asked for it: it costs a microsecond a trade, and 64 bytes a minute
        self._dice = Random(f"simulator {seed}")
        self._quotes_of_1024 = round(quotes * 1024)
        self._session = session
        self._draws = _draws(self.listed, self._dice)
        self._mask = len(self._draws) - 1
        self._prices = _price_texts()
        self._begin_prices()
        self._heads()
        self._seconds: dict[int, Bar] = {}
        self._minutes: dict[int, Bar] = {}
        self._days: dict[int, Bar] = {}
        self._pending: deque[str] = deque(maxlen=PENDING_MAX)
        self._halted: dict[int, int] = {}
        self._second = self._next_halt_ms = self._next_bands_ms = 0
        self._extended = False

    def frame(self, now_ms: int, events: int) -> bytes:
        """Return one frame of `events` events (a JSON array) that happen at `now_ms`."""
        if now_ms // 1000 != self._second:
            self._turn_second(now_ms)
        if now_ms >= self._next_bands_ms:
            self._regulate(now_ms)
        pending = self._pending
        parts = [pending.popleft() for _ in range(min(len(pending), events // 3 + 1, events))]
        self._fill(parts, now_ms, events - len(parts))
        self.events += len(parts)
        return f"[{','.join(parts)}]".encode()

    def quiet_share(self) -> float:
        """Return how much of the usual rate belongs to this time of day (session `clock`; else always all of it)."""
        return self._share

    def day(self, number: int) -> dict[str, float]:
        """Return the day so far of the stock at `number`, as the vendor's snapshot names it; empty before its first trade."""
        bar = self._days.get(number)
        if bar is None or not bar.volume:
            return {}
        prices = {"o": bar.open / 100, "h": bar.high / 100, "l": bar.low / 100, "c": bar.close / 100}
        return prices | {"v": bar.volume, "vw": round(bar.value / bar.volume / 100, 4)}

    def _begin_prices(self) -> None:
        dice, closes = self._dice, self.listed.closes_cents
        self._ticks = [max(1, cents // 4000) for cents in closes]
        self._last = [max(100, round(cents * (1 + dice.gauss(0, 0.01)))) for cents in closes]
        for index in range(0, len(closes), 17):  # every 17th opens with a gap worth a board
            self._last[index] = max(100, round(closes[index] * (1 + dice.gauss(0, 0.06))))
        self._target = [max(100, round(cents * (1 + dice.gauss(0, 0.03)))) for cents in closes]
        self._share = 1.0

    def _heads(self) -> None:
        """Text that never changes is rendered once: it is two thirds of an event."""
        symbols, tapes = self.listed.symbols, self.listed.tapes
        self._trade_heads = [f'{{"ev":"T","sym":"{symbol}","x":' for symbol in symbols]
        self._trade_mids = [f'","z":{tape},"p":' for tape in tapes]
        self._quote_heads = [f'{{"ev":"Q","sym":"{symbol}","bx":' for symbol in symbols]
        self._quote_tails = [f',"z":{tape}}}' for tape in tapes]

    def _fill(self, parts: list[str], now_ms: int, count: int) -> None:
        """Add `count` trades and quotes. Long on purpose: a call per event would cost as much as the event."""
        bits_of, draws, mask, share = self._dice.getrandbits, self._draws, self._mask, self._quotes_of_1024
        last, ticks, target, prices = self._last, self._ticks, self._target, self._prices
        quote_heads, quote_tails, halted, add = self._quote_heads, self._quote_tails, self._halted, parts.append
        number = self.events
        for _ in range(count):
            bits = bits_of(64)
            index = draws[bits & mask]
            bits >>= 20
            if halted and index in halted:
                index = self._trading_instead(index)
            number += 1
            price = last[index]
            step = STEPS[bits & 31]
            if step:
                away = target[index] - price
                # A pull that grows with the distance keeps the walk within some percent of its target.
                if (away > 0) != (step > 0) and abs(away) * 24 > price * (bits >> 5 & 7):
                    step = -step
                price = last[index] = max(100, price + step * ticks[index])
            bits >>= 8
            if (bits & 1023) < share:
                tick = ticks[index]
                bits >>= 10
                spread = tick * (1 + (bits & 1))
                bid = price - (tick if bits & 2 else 0)
                add(
                    f'{quote_heads[index]}{EXCHANGES[bits >> 2 & 15]},"bp":{prices[bid]},"bs":{1 + (bits >> 6 & 15)}00,"ax":'
                    f'{EXCHANGES[bits >> 10 & 15]},"ap":{prices[bid + spread]},"as":{1 + (bits >> 14 & 15)}00,"c":1,'
                    f'"t":{now_ms},"q":{number}{quote_tails[index]}'
                )
            else:
                add(self._trade(index, price, bits >> 10, now_ms, number))

    def _trade(self, index: int, price: int, bits: int, now_ms: int, number: int) -> str:
        odd = bits & 1
        size = 1 + (bits >> 1 & 63) if odd else ROUND_LOTS[bits >> 1 & 7]
        conditions = "[37]" if odd else CONDITIONS[bits >> 4 & 7]
        at_ms = now_ms
        if self._extended:
            conditions = f"[{EXTENDED},37]" if odd else f"[{EXTENDED}]"
        late = bits >> 7 & 511 == 0
        if late:  # one in 512 is reported late; by rule it moves neither the last price nor the bars
            at_ms = now_ms - 2_000 - (bits & 0x1FFF)
            conditions = f"[{LATE}]"
        else:
            self._count(index, price, size)
        if self.past is not None:
            self.past.take(index, at_ms, price, size, bool(odd) and not late, late)
        return (
            f'{self._trade_heads[index]}{EXCHANGES[bits >> 7 & 15]},"i":"{number}{self._trade_mids[index]}{self._prices[price]},'
            f'"s":{size},"c":{conditions},"t":{at_ms},"q":{number}}}'
        )

    def _count(self, index: int, price: int, size: int) -> None:
        bar = self._seconds.get(index)
        if bar is None:
            self._seconds[index] = Bar(price, size)
            return
        bar.close = price
        if price > bar.high:
            bar.high = price
        elif price < bar.low:
            bar.low = price
        bar.volume += size
        bar.value += price * size
        bar.trades += 1

    def _turn_second(self, now_ms: int) -> None:
        ended_ms, self._second = self._second * 1000, now_ms // 1000
        for index, bar in self._seconds.items():
            _merge(self._minutes, index, bar)
            _merge(self._days, index, bar)
            self._pending.append(self._aggregate("A", index, bar, ended_ms, 1_000))
        self._seconds.clear()
        if ended_ms // 60_000 != now_ms // 60_000:
            for index, bar in self._minutes.items():
                self._pending.append(self._aggregate("AM", index, bar, ended_ms // 60_000 * 60_000, 60_000))
            self._minutes.clear()
            self._follow_clock(now_ms)

    def _follow_clock(self, now_ms: int) -> None:
        if self._session == "clock":
            self._share, self._extended = session_share(now_ms)

    def _aggregate(self, ev: str, index: int, bar: Bar, start_ms: int, span_ms: int) -> str:
        day, prices = self._days[index], self._prices
        return (
            f'{{"ev":"{ev}","sym":"{self.listed.symbols[index]}","v":{bar.volume},"av":{day.volume},"op":{prices[day.open]},'
            f'"vw":{bar.value / bar.volume / 100:.4f},"o":{prices[bar.open]},"c":{prices[bar.close]},"h":{prices[bar.high]},'
            f'"l":{prices[bar.low]},"a":{day.value / day.volume / 100:.4f},"z":{bar.volume // bar.trades},"s":{start_ms},'
            f'"e":{start_ms + span_ms}}}'
        )

    def _regulate(self, now_ms: int) -> None:
        """Move the price bands of one stock, halt one now and then, let a halted one trade again when its time is over."""
        self._next_bands_ms = now_ms + BANDS_EVERY_MS
        index = self._draws[self._dice.getrandbits(32) & self._mask]
        if index not in self._halted:
            self._pending.append(self._luld(index, BANDS, now_ms))
        for done in [one for one, until_ms in self._halted.items() if now_ms >= until_ms]:
            del self._halted[done]
            self._pending.append(self._luld(done, RESUMED, now_ms))
        if self._next_halt_ms == 0:
            self._next_halt_ms = now_ms + HALT_EVERY_MS // 4
        elif now_ms >= self._next_halt_ms and len(self._halted) < len(self._last) // 4:
            self._next_halt_ms = now_ms + HALT_EVERY_MS
            self._halted[index] = now_ms + HALT_MS
            self._pending.append(self._luld(index, HALTED, now_ms))

    def _luld(self, index: int, indicator: int, now_ms: int) -> str:
        price, prices = self._last[index], self._prices
        high, low = min(PRICE_CENTS_MAX, price + price // 20), price - price // 20
        return (
            f'{{"ev":"LULD","T":"{self.listed.symbols[index]}","h":{prices[high]},"l":{prices[low]},"i":[{indicator}],'
            f'"z":{self.listed.tapes[index]},"t":{now_ms},"q":{self.events}}}'
        )

    def _trading_instead(self, index: int) -> int:
        while index in self._halted:
            index = (index + 1) % len(self._last)
        return index


def session_share(now_ms: int) -> tuple[float, bool]:
    """Return (share of the regular rate, whether these are extended hours) of that time in New York."""
    local = eastern(now_ms * 1_000_000)
    minute = local.hour * 60 + local.minute
    if local.weekday() > 4 or not 240 <= minute < 1200:
        return 0.0, True
    if 570 <= minute < 960:
        return (1.0 if 600 <= minute < 930 else 2.0), False  # the first and last half hour are twice as busy
    return 0.1, True


def _merge(bars: dict[int, Bar], index: int, newer: Bar) -> None:
    bar = bars.get(index)
    if bar is None:
        bar = bars[index] = Bar(newer.open, 0)
        bar.trades = 0
    bar.high, bar.low, bar.close = max(bar.high, newer.high), min(bar.low, newer.low), newer.close
    bar.volume += newer.volume
    bar.value += newer.value
    bar.trades += newer.trades


def _draws(listed: Universe, dice: Random) -> list[int]:
    """Return a shuffled table in which each symbol occurs as often as its weight says, and at least once."""
    size = DRAWS_MIN
    while size < 8 * len(listed.symbols):
        size *= 2
    table = [index for index, weight in enumerate(listed.weights) for _ in range(max(1, int(weight * size)))]
    table += dice.choices(range(len(listed.symbols)), listed.weights, k=max(0, size - len(table)))
    dice.shuffle(table)
    return table[:size]


@lru_cache(1)
def _price_texts() -> list[str]:
    """Cents → JSON number: looking a text up costs a tenth of formatting it. 8 MB once a process."""
    return [f"{cents / 100:g}" if cents % 100 == 0 else f"{cents / 100:.2f}" for cents in range(PRICE_CENTS_MAX + 1000)]
