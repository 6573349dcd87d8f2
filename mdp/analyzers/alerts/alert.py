"""Defines what an alert says, and keeps the alerts of one channel until the next flush takes them.

Invariant: what an alert says follows from the events of its stream alone, in their order: no wall clock, no moment of a flush. So
a replay of any speed, any number of workers and any restart give the same alerts. Only the bid and offer in its quote, which come
on another queue, are those of the moment.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import msgspec

from mdc.writer import Flush
from mdp.analyzers.quote import QuoteAnalyzer, QuoteData

KEEP = 200  # in memory, of a partition's channel: to fill a cache that was emptied
DECIMALS_MAX = 10


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on something is an alert. Times are the feed's.

    `pause_ms`: between two range alerts of a symbol, session and side. `volume_times`: the last minute's volume against the
    average minute of the hour, 0 = none. `volume_pause_ms`: between two of these of a symbol. `rel_volumes`: multiples of the
    average day's volume, ascending. `gap_pct`: of the previous close. `news_ms`: between an article and a breakout, 0 = none.
    `snapshot_ms`: who joins during a session waits so long for what the vendor has seen of it with its range alerts, 0 = never.
    """

    pause_ms: int = 1_000
    volume_times: float = 5.0
    volume_pause_ms: int = 300_000
    rel_volumes: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    gap_pct: float = 4.0
    news_ms: int = 1_800_000
    snapshot_ms: int = 0


DEFAULT = Thresholds()


class Alert(msgspec.Struct, gc=False):
    """One alert; fields in the order of mdc.channels.ALERT_FIELDS; null = not known, or not of this kind.

    `prev`: what `price` is told against; `value`: how much, as the note says (times, per cent); `session`: the one it belongs to;
    `quote`: the symbol's whole quote in that moment; `ts`: when it happened, by the feed (ms).
    """

    sym: str
    kind: str
    price: float | None
    prev: float | None
    value: float | None
    session: str
    note: str
    high_band: float | None
    low_band: float | None
    quote: QuoteData | None
    ts: int


class Alerts:
    """The alerts of one channel of a partition. `quotes` knows the quotes that go along, None = they have none."""

    def __init__(self, channel: str, quotes: QuoteAnalyzer | None) -> None:
        self.symbols: set[str] = set()  # of which an alert waits for the next flush
        self._channel = channel
        self._quotes = quotes
        self._fresh: list[tuple[int, bytes]] = []  # bounded by the batches that wait for that flush
        self._newest: deque[tuple[int, bytes]] = deque(maxlen=KEEP)
        self._encode = msgspec.json.Encoder().encode

    def make(
        self, symbol: str, kind: str, price: float | None, prev: float | None, ts: int, note: str, session: str = "",
        value: float | None = None, high_band: float | None = None, low_band: float | None = None,
    ) -> Alert:  # fmt: skip
        """Return an alert with the quote as it stands now; without a `session`, that of the quote."""
        quote = None if self._quotes is None else self._quotes.snapshot(symbol)
        session = session or (quote.session if quote is not None else "")
        return Alert(symbol, kind, price, prev, value, session, note, high_band, low_band, quote, ts)

    def add(self, alert: Alert) -> None:
        """Have the next flush take an alert, after those that were added before."""
        self._fresh.append((alert.ts, self._encode(alert)))
        self.symbols.add(alert.sym)

    def collect(self, flush: Flush) -> None:
        """Put what waits into `flush`, which must be about all of its symbols."""
        if not self._fresh:
            return
        assert flush.only is None or self.symbols <= flush.only, "who has an alert is urgent"
        for ts, body in self._fresh:
            flush.add_shared("alerts", self._channel, ts, body)
        self._newest += self._fresh
        self._fresh = []
        self.symbols.clear()

    def rewrite(self) -> None:
        """The cache is new and empty: the newest ones leave again, those of the flush that it has lost among them."""
        self._fresh = [*self._newest, *self._fresh]
        self._newest.clear()


def paused(ts: int, told_ms: int, pause_ms: int) -> bool:
    """Return whether `ts` is within the pause after an alert at `told_ms` (0 = none yet).

    A trade that was reported late may be a little before it; one that is far before it shows that `told_ms` was no true time.
    """
    return told_ms > 0 and abs(ts - told_ms) < pause_ms


def decimal(value: float) -> str:
    """Return a price as people write it: two decimals at least, and all that it has (up to ten)."""
    text = f"{value:.{DECIMALS_MAX}f}".rstrip("0")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<2}"


def amount(value: float) -> str:
    """Return a number as people write it: no decimals that say nothing, at most two."""
    return f"{value:,.2f}".rstrip("0").rstrip(".")
