"""Makes vendor events, random ones too, and feeds partitions with them: the processors' tests speak vendor JSON only."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from mdc.channels import KINDS
from mdp import roster
from mdp.analyzer import Analyzer
from mdp.analyzers.stats import StatsAnalyzer
from mdp.analyzers.wide import WideBars
from mdp.partitions.partition import Partition
from mdp.reference import Reference
from mdq.batch import Batch
from tests.mdp.mirror import Mirror

START_MS = 1_700_000_000_000  # a Tuesday, 17:13 in New York
CONDITIONS = [None, [], [14, 41], [12], [37], [10], [15], [38], [2, 22], [32]]
STREAMS = {
    "T": "trades", "XT": "trades", "Q": "quotes", "XQ": "quotes", "C": "quotes", "LULD": "halts", "L2": "books", "status": "status",
    "news": "news",
}  # fmt: skip
WATCHABLE = tuple(kind.name for kind in KINDS.values() if kind.per_symbol)
Event = dict[str, Any]


class Desk:
    """A partition and a mirror of the cache it writes to."""

    def __init__(
        self,
        analyzers: Sequence[Analyzer] | None = None,
        reference: Reference | None = None,
        epoch: str = "e1",
        prompt: bool = False,
    ) -> None:
        self.cache = Mirror()
        self._make = lambda: analyzers or roster.build(roster.ANALYZERS, reference or {}, 500)
        self.partition = Partition(3, 1, epoch, self._make())
        self.now_ms = START_MS
        self.prompt = prompt  # have everything written with each flush, also what nobody watches and is written now and then
        self._seqs: dict[tuple[str, str], int] = {}

    def feed(self, *events: Event, source: str = "s", run: int = 0, feed_ms: int | None = None) -> None:
        """Deliver events as one batch of the first one's stream; the feed's clock is at the newest of them if not given."""
        stream = STREAMS.get(events[0]["ev"], "aggregates")
        seq = self._seqs.get((source, stream), 0)
        self.deliver(batch(events, stream, seq, source=source, run=run, feed_ms=feed_ms))
        self._seqs[source, stream] = seq + len(events)

    def deliver(self, made: Batch, redelivered: bool = False) -> None:
        """Deliver a batch at the wall clock's time."""
        self.partition.on_batch(made, redelivered, self.now_ms * 1_000_000)

    def watch(self, *symbols: str, kinds: Sequence[str] = WATCHABLE) -> None:
        """Look at these kinds of these symbols' channels, and at nothing else."""
        self.partition.watch([(kind, symbol) for kind in kinds for symbol in symbols])

    def flush(self, after_ms: int = 50) -> Mirror:
        """Let time pass, flush, return the cache."""
        self.now_ms += after_ms
        if self.prompt:
            write_all(self.partition)
        self.cache.apply(self.partition.collect(self.now_ms), self.partition.flush_number)
        return self.cache

    def hand_over(self) -> None:
        """Go on with a new partition that knows only the checkpoint."""
        self.flush()
        self.partition = Partition(3, 2, self.partition.epoch, roster.build(roster.ANALYZERS, {}, 500))
        self.partition.restore(dict(self.cache.cells))


def write_all(partition: Partition) -> None:
    """Have the next flush write everything that changed, also what nobody watches and is written now and then."""
    for analyzer in partition.analyzers:
        if isinstance(analyzer, WideBars):
            analyzer._looked_ms = 0
        elif isinstance(analyzer, StatsAnalyzer):
            analyzer._closed.update(analyzer._changed)


def batch(
    events: Sequence[Event], stream: str, seq: int, epoch: str = "p1", source: str = "s", run: int = 0, feed_ms: int | None = None
) -> Batch:
    """Return the events as the listener would publish them."""
    if feed_ms is None:
        feed_ms = max((event.get("t", event.get("s", 0)) for event in events), default=0)
    body = json.dumps(list(events)).encode()
    return Batch(source, run, stream, 3, epoch, seq, len(events), 5, 5, feed_ms * 1_000_000, body)


def pass_time(desk: Desk, feed_ms: int, *streams: str) -> None:
    """Let the listener's marks say how far the feed's time has come in these streams, twice: once alone is not believed."""
    for _ in range(2):
        desk.now_ms += 1_500
        for stream in streams:
            desk.deliver(replace(batch([], stream, 0), feed_ns=feed_ms * 1_000_000))


def trade(sym: str = "A", p: float = 10.0, s: float = 100, t: int = START_MS, c: list[int] | None = None, ev: str = "T") -> Event:
    """Return a trade; `ev` XT makes it crypto."""
    return {"ev": ev, "pair" if ev == "XT" else "sym": sym, "p": p, "s": s, "t": t, "c": c, "x": 4, "i": "71"}


def quote(
    sym: str = "A", bp: float = 9.9, ap: float = 10.1, t: int = START_MS, bs: float = 1, a_s: float = 2, ev: str = "Q"
) -> Event:
    """Return a best bid and offer; `ev` XQ or C for crypto and forex."""
    if ev == "C":
        return {"ev": "C", "p": sym, "b": bp, "a": ap, "t": t, "x": 48}
    return {"ev": ev, "pair" if ev == "XQ" else "sym": sym, "bp": bp, "ap": ap, "bs": bs, "as": a_s, "t": t}


def book(
    sym: str = "A", b: Sequence[Sequence[float]] = ((9.9, 1),), a: Sequence[Sequence[float]] = ((10.1, 2),), t: int = START_MS
) -> Event:
    """Return the best levels of a book, [price, size] each."""
    return {"ev": "L2", "sym": sym, "b": [list(level) for level in b], "a": [list(level) for level in a], "t": t}


def article(
    name: str, sym: str = "", t: int = START_MS, tickers: Sequence[str] = (), title: str = "A title", **more: Any
) -> Event:
    """Return a copy of an article, for one symbol or (without one) for the list of all."""
    place = {"sym": sym} if sym else {"T": name}
    return {"ev": "news", **place, "id": name, "title": title, "tickers": list(tickers), "t": t, **more}


def copies(name: str, tickers: Sequence[str], t: int = START_MS, **more: Any) -> list[Event]:
    """Return all copies of an article."""
    return [article(name, sym, t, tickers, **more) for sym in ("", *tickers)]


def bar(ev: str, start: int, close: float, sym: str = "A", **more: Any) -> Event:
    """Return an aggregate of a second (A, XAS, CAS) or minute (AM, XA, CA) that closes at `close`."""
    name = "sym" if ev in ("A", "AM") else "pair"
    length = 1_000 if ev in ("A", "XAS", "CAS") else 60_000
    made = {"ev": ev, name: sym, "o": close - 0.5, "h": close + 1, "l": close - 1, "c": close, "v": 100, "vw": close - 0.25}
    return made | {"s": start, "e": start + length} | more


class Dice:
    """Random events of some symbols, mostly in order of time, some late, over a few days."""

    def __init__(self, seed: int, symbols: Iterable[str] = ("A", "B", "BRK.B", "X:BTC-USD", "EUR/USD")) -> None:
        self.random = random.Random(seed)
        self.symbols = list(symbols)
        self.now = START_MS

    def trade(self, pause_ms: int = 300, late_ms: int = 3_000, many: int = 1) -> Event:
        """Return a trade; every symbol with a colon is crypto."""
        sym = self.random.choice([s for s in self.symbols if "/" not in s])
        self.now += self.random.randint(0, pause_ms)
        late = self.random.randint(0, late_ms) if self.random.random() < 0.2 else 0
        price = round(self.random.uniform(9, 11), self.random.choice((0, 2, 4)))
        if ":" in sym:
            size = round(self.random.uniform(0, 3), self.random.choice((1, 4, 8)))
            return trade(sym, price, size, self.now - late, [self.random.choice((1, 2))], "XT")
        return trade(sym, price, self.random.choice((0, 1, 100, 1234, 0.5)), self.now - late, self.random.choice(CONDITIONS))

    def quote(self, pause_ms: int = 300) -> Event:
        """Return a best bid and offer of any market."""
        sym = self.random.choice(self.symbols)
        self.now += self.random.randint(0, pause_ms)
        bid, ask = (self.random.choice((0, round(self.random.uniform(9, 11), 2))) for _ in range(2))
        kind = "C" if "/" in sym else "XQ" if ":" in sym else "Q"
        return quote(sym, bid, ask, self.now - self.random.choice((0, 0, 0, 20)), self.random.randint(0, 9), 0.25, kind)

    def book(self, pause_ms: int = 300, late_ms: int = 500) -> Event:
        """Return a book of up to 20 levels a side, some sides empty, some books late."""
        self.now += self.random.randint(0, pause_ms)
        bids, asks = ([n for n in range(1, 40) if self.random.random() < self.random.choice((0, 0.2, 0.9))][:20] for _ in "ba")
        late = self.random.randint(0, late_ms) if self.random.random() < 0.2 else 0
        return book(
            self.random.choice(self.symbols), [(round(10 - n / 100, 2), self._lots()) for n in bids],
            [(round(10 + n / 100, 2), self._lots()) for n in asks], self.now - late,
        )  # fmt: skip

    def _lots(self) -> int | float:
        return self.random.choice((self.random.randint(1, 900), round(self.random.uniform(0.001, 3), 3)))

    def event(self, pause_ms: int = 300) -> Event:
        """Return a trade or a quote."""
        return self.trade(pause_ms) if self.random.random() < 0.5 else self.quote(pause_ms)

    def batches(self, events: Sequence[Event]) -> Iterator[list[Event]]:
        """Cut events into batches of one stream each, in order."""
        run: list[Event] = []
        for event in events:
            if run and (STREAMS[run[0]["ev"]] != STREAMS[event["ev"]] or self.random.random() < 0.2):
                yield run
                run = []
            run.append(event)
        if run:
            yield run
