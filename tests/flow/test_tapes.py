"""Plays the recorded tapes through the processors' pure parts, cut, repeated and handed over at random: equal to plain arithmetic."""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from mdp import roster
from mdp.partitions.partition import Partition
from mdq.batch import Batch
from service.partition import partition_of
from tests.mdp.mirror import Mirror
from tests.oracle import PRINTS, differences, expected
from tests.tapes import tape

PARTITIONS = 8
WALL_NS = 1_800_000_000_000_000_000
STREAMS = {"T": "trades", "XT": "trades", "Q": "quotes", "XQ": "quotes"}


class Flow:
    """All partitions of a deployment, each with its view of the cache."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.caches = [Mirror() for _ in range(PARTITIONS)]
        self.partitions = [self._new(n) for n in range(PARTITIONS)]
        self._open: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        self._sent: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._last: dict[tuple[str, int], Batch] = {}
        self._time_ms = 0  # of the tape
        self._run = 0

    def take(self, event: dict[str, Any]) -> None:
        """Put an event into its batch; close batches, flush, repeat and hand over now and then."""
        self._time_ms = max(self._time_ms, event["t"])
        key = STREAMS[event["ev"]], partition_of(event.get("sym") or event["pair"], PARTITIONS)
        self._open[key].append(json.dumps(event))
        if self.dice.random() < 0.05:
            self.close(key)
        if self.dice.random() < 0.01:
            self.flush(key[1])

    def close(self, key: tuple[str, int]) -> None:
        """Deliver what is open, and sometimes the batch before it again."""
        bodies = self._open.pop(key, [])
        if key in self._last and self.dice.random() < 0.1:
            self.partitions[key[1]].on_batch(self._last[key], True, WALL_NS)
        if bodies:
            body = f"[{','.join(bodies)}]".encode()
            feed_ns = self._time_ms * 1_000_000
            made = Batch("s", self._run, *key, "p1", self._sent[key], len(bodies), 1, WALL_NS, feed_ns, body)
            self._sent[key] += len(bodies)
            self._last[key] = made
            self.partitions[key[1]].on_batch(made, False, WALL_NS)

    def flush(self, number: int) -> None:
        """Flush a partition; sometimes another worker goes on from its checkpoint."""
        self.caches[number].apply(self.partitions[number].collect(WALL_NS // 1_000_000), self.partitions[number].flush_number)
        if self.dice.random() < 0.1 and self.caches[number].cells:
            self.partitions[number] = self._new(number)
            self.partitions[number].restore(dict(self.caches[number].cells))

    def finish(self) -> None:
        """Deliver and flush everything."""
        for key in list(self._open):
            self.close(key)
        for number in range(PARTITIONS):
            self.flush(number)

    def rewind(self) -> None:
        """The tape has ended and begins anew."""
        self.finish()
        self._time_ms, self._run = 0, self._run + 1

    def _new(self, number: int) -> Partition:
        return Partition(number, 1, "e1", roster.build(roster.ANALYZERS, {}, 500))


def replay(path: Path, seed: int, rounds: int = 1) -> Flow:
    """Feed a tape, frame by frame."""
    flow = Flow(seed)
    for n in range(rounds):
        if n:
            flow.rewind()
        with gzip.open(path) as lines:
            for line in lines:
                frame = json.loads(line)
                for event in frame if isinstance(frame, list) else [frame]:
                    flow.take(event)
    flow.finish()
    return flow


def check(flow: Flow, wanted: dict[str, dict[str, Any]]) -> tuple[int, list[str]]:
    """Return how many prints there are, and every field that differs from plain arithmetic over the tape."""
    faults, prints_total = [], 0
    for symbol, state in wanted.items():
        cache = flow.caches[partition_of(symbol, PARTITIONS)]
        bars = None
        if f"bars:1m:{symbol}" in cache.documents:
            bars = cache.data(f"bars:1m:{symbol}") | {"history": cache.history[f"bars:1m:{symbol}"]}
        prints = cache.events(f"trades:{symbol}")
        prints_total += len(prints)
        quote = cache.data(f"quote:{symbol}")
        faults += [f"{symbol} {name}" for name, value in state["quote"].items() if name != "vwap" and quote[name] != value]
        faults += differences(symbol, state, quote, prints[-PRINTS:], bars)
    return prints_total, faults


@pytest.mark.parametrize(
    ("name", "seed"), [("es-2023-12-25", 1), ("es-2023-12-25", 2), *(("crypto-2021-04-17", n) for n in range(1, 7))]
)
def test_a_tape_equals_plain_arithmetic(name: str, seed: int) -> None:
    """Quotes, totals, minute bars and prints of every symbol are exact, fractions too, however the tape was cut and handed over."""
    path = tape(f"{name}.ndjson.gz")
    flow = replay(path, seed)
    total, faults = check(flow, expected(path))
    assert not faults, (f"seed {seed}", faults[:5])
    assert total == {"es-2023-12-25": 2_973, "crypto-2021-04-17": 107}[name]
    assert (
        sum(sum(p.counts.events.values()) for p in flow.partitions) == {"es-2023-12-25": 28_412, "crypto-2021-04-17": 1_885}[name]
    )
    assert not any(p.counts.discarded or p.counts.dropped or p.counts.expired for p in flow.partitions)


@pytest.mark.parametrize("name", ["es-2023-12-25", "crypto-2021-04-17"])
def test_the_second_round_of_a_tape_equals_the_first(name: str) -> None:
    """A tape that loops shows what one round shows: nothing is frozen, doubled or mixed, however it was cut and handed over."""
    path = tape(f"{name}.ndjson.gz")
    flow = replay(path, 3, rounds=2)
    total, faults = check(flow, expected(path))
    assert not faults, faults[:5]
    assert total == {"es-2023-12-25": 2_973, "crypto-2021-04-17": 107}[name]
    assert not any(p.counts.discarded for p in flow.partitions)
