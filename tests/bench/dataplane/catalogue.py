"""What does an event cost the processors with every analyzer, beside the first seven, and which analyzer takes how much?

One partition's share of a simulated market, in one process, without queue and cache: batches are decoded, taken in and flushed
(documents, cells and the script's arguments are made, not sent). All variants take the same batches in turn, round after round,
and a figure is the median of the rounds; what is left of `cost_ratio` is the analyzers' own. Excluded: the first round.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from statistics import median

from mdl.simulation.market import Simulator
from mdp import roster
from mdp.analyzer import Analyzer
from mdp.analyzers.alerts.ranges import RangeAnalyzer
from mdp.analyzers.bars import BarsAnalyzer
from mdp.analyzers.boards import BoardsAnalyzer, share_rows
from mdp.analyzers.book import BookAnalyzer
from mdp.analyzers.halts import HaltsAnalyzer
from mdp.analyzers.quote import QuoteAnalyzer
from mdp.analyzers.ranks import BUILT_IN, QUICK
from mdp.analyzers.stats import StatsAnalyzer
from mdp.analyzers.trades import TradesAnalyzer
from mdp.partitions.partition import Partition
from mdp.plugins.example.tapeline_big_prints import BigPrints
from mdp.plugins.host import Installed, Limits
from mdp.plugins.installed import Found
from mdp.plugins.rack import Rack
from mdq.batch import Batch

START_MS = 1_700_060_400_000  # a Wednesday, 10:00 in New York
BATCH = 25  # events, as at 20,000 events/s in eight partitions
FLUSH_EVERY_MS = 500
ROWS = share_rows(500, 8)


def first_seven() -> list[Analyzer]:
    """Return quote, bars of a second and a minute, trades, four boards, range, halts and book."""
    quotes = QuoteAnalyzer({})
    stats, halts = StatsAnalyzer(quotes), HaltsAnalyzer()
    boards = BoardsAnalyzer(quotes, stats, halts, ROWS, [board for board in BUILT_IN if board.name in QUICK])
    bars: list[Analyzer] = [BarsAnalyzer("bars:1s", 1_000, 10), BarsAnalyzer("bars:1m", 60_000, 5)]
    return [quotes, *bars, TradesAnalyzer(), halts, boards, RangeAnalyzer(quotes), BookAnalyzer()]


def one(name: str) -> Callable[[], list[Analyzer]]:
    """Return what makes one analyzer with those that it needs."""
    return lambda: roster.build((name,), {}, ROWS)


def with_plugin() -> list[Analyzer]:
    """Return all analyzers and the worked example of a plug-in, with a clock and limits as in a processor."""
    rack = Rack(Found([Installed("big_prints", BigPrints, "1.0")], []), Limits(10**8), clock=time.monotonic_ns)
    return roster.build(roster.ANALYZERS, {}, ROWS, more=rack.analyzers)


def batches(symbols: int, events: int, rate: float, seed: int) -> list[Batch]:
    """Return the share of one of eight partitions: `symbols` of it, `rate` events/s."""
    market, made = Simulator(symbols, seed), []
    for seq in range(0, events, BATCH):
        now_ms = START_MS + round(seq / rate * 1000)
        body = market.frame(now_ms, BATCH)
        made.append(Batch("sim", 0, "trades", 3, "e", seq, BATCH, 1, 1, now_ms * 1_000_000, body))
    return made


class Variant:
    """A partition with some analyzers, and what its rounds took."""

    def __init__(self, analyzers: Sequence[Analyzer]) -> None:
        self.partition = Partition(3, 1, "e1", analyzers)
        self.us_an_event: list[float] = []
        self._flush_ms = 0

    def take(self, some: Sequence[Batch]) -> None:
        """Take batches in as a worker would, and note what an event cost."""
        partition, began_s = self.partition, time.process_time()
        for batch in some:
            now_ms = batch.feed_ns // 1_000_000
            partition.on_batch(batch, False, batch.feed_ns)
            if now_ms >= self._flush_ms:
                self._flush_ms = now_ms + FLUSH_EVERY_MS
                flush = partition.collect(now_ms)
                if flush is not None:
                    flush.arguments(1, partition.flush_number)
        self.us_an_event.append(1e6 * (time.process_time() - began_s) / sum(batch.count for batch in some))

    @property
    def cost_us(self) -> float:
        return median(self.us_an_event[1:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--symbols", type=int, default=625, help="of this partition")
    parser.add_argument("--rate", type=float, default=2_500, help="events/s of this partition")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20, help="of the market, a round")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="a moment of a few symbols: that it runs, not what it says")
    given = parser.parse_args()
    if given.tiny:
        given.symbols, given.rate, given.rounds, given.seconds = 20, 500, 3, 2
    a_round = round(given.rate * given.seconds)
    made = batches(given.symbols, a_round * given.rounds, given.rate, given.seed)
    variants = {"all": Variant(roster.build(roster.ANALYZERS, {}, ROWS)), "first_seven": Variant(first_seven())}
    variants["with_plugin"] = Variant(with_plugin())
    alone = {name: Variant(one(name)()) for name in roster.ANALYZERS}
    nothing = Variant([])
    step = a_round // BATCH
    for first in range(0, len(made), step):
        for variant in (*variants.values(), *alone.values(), nothing):
            variant.take(made[first : first + step])
    quotes, bare = alone["quote"].cost_us, nothing.cost_us
    under = dict.fromkeys(("stats", "boards", "range", "gap"), quotes) | {"volume": alone["stats"].cost_us}
    own = {name: variant.cost_us - under.get(name, bare) for name, variant in alone.items()}
    cost = {name: variant.cost_us for name, variant in variants.items()}
    workload = {
        "symbols": given.symbols, "events_per_s": given.rate, "rounds": given.rounds, "seconds": given.seconds, "seed": given.seed,
    }  # fmt: skip
    figures = {
        "cost_ratio": (cost["all"] / cost["first_seven"], "all ÷ first seven"),
        "plugin_ratio": (cost["with_plugin"] / cost["all"], "all and the example of a plug-in ÷ all"),
        "decoding_us_per_event": (bare, "µs"),
        **{f"{name}_us_per_event": (us, "µs") for name, us in (*cost.items(), *own.items())},
    }
    for figure, (value, unit) in figures.items():
        line = {"bench": "catalogue", "figure": figure, "value": round(value, 3), "unit": unit, "workload": workload}
        print(json.dumps(line | {"excluded": "the first round; queue and cache"}), flush=True)


if __name__ == "__main__":
    main()
