"""Plays a tape through partitions without servers: each queue in its order, but any of them far ahead of the others.

Partitions change hands by their checkpoints, flushes come when the dice say so. What holds here for every seed cannot depend on the
speed of a replay, on how workers share the market, or on who dies when.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

from mdp import roster
from mdp.analyzers.boards import merge_shares, read_share
from mdp.partitions.partition import Partition
from mdp.reference import read_reference
from mdq.batch import Batch
from tests.days.boards import NAMES
from tests.mdp.mirror import Mirror

PARTITIONS, BATCH = 8, 500
STREAMS = {"T": "trades", "Q": "quotes", "LULD": "halts", "V": "aggregates", "AM": "aggregates"}
LEVEL = 100.0  # of an index, and of what has aggregates alone: they stand still, so that no board and no alert names them
Lane = list[tuple[int, str]]  # (clock of the tape, event)


def named(begins: str, partition: int) -> str:
    """Return a symbol of a partition whose name begins so."""
    tails = ("".join(letters) for letters in product("ABCDEFGH", repeat=3))
    return next(begins + tail for tail in tails if crc32((begins + tail).encode()) % PARTITIONS == partition)


class Queues:
    """The partitions, what waits for them, and the cache they write to."""

    def __init__(self, reference: Path, dice: Random) -> None:
        self._reference = read_reference(reference)
        self._dice = dice
        self._now_ms = 1_800_000_000_000
        self._partitions = [Partition(n, 1, "e1", self._analyzers()) for n in range(PARTITIONS)]
        self._seqs: dict[tuple[str, int], int] = dict.fromkeys(((s, n) for s in STREAMS.values() for n in range(PARTITIONS)), 0)
        self._minute_ms = 0
        self.mirrors = [Mirror() for _ in range(PARTITIONS)]
        self.beside = [(named("ILEVEL", number), named("BARSONLY", number)) for number in range(PARTITIONS)]

    def _analyzers(self) -> Sequence[Any]:
        return roster.build(roster.ANALYZERS, self._reference, 500)

    def play(self, tape: Path, chunk_max: int) -> None:
        """Play a tape; a queue is at most `chunk_max` events of the whole tape ahead of another."""
        lanes: dict[tuple[str, int], Lane] = defaultdict(list)
        clock_ms = held = 0
        chunk = self._dice.randint(1, chunk_max)
        for line in tape.open():
            recorded = json.loads(line)
            clock_ms = recorded["received_ns"] // 1_000_000
            for event in [*recorded["frame"], *self._beside(clock_ms)]:
                place = crc32((event.get("sym") or event["T"]).encode()) % PARTITIONS
                lanes[STREAMS[event["ev"]], place].append((clock_ms, json.dumps(event)))
                held += 1
            if held >= chunk:
                self._deliver(lanes, clock_ms)
                held, chunk = 0, self._dice.randint(1, chunk_max)
        self._deliver(lanes, clock_ms)
        for number in range(0, PARTITIONS, 2):
            self._hand_over(number)  # who takes over now hears of no event any more
        for _ in range(10):  # the feed's time stands still at the end, and what is made at leisure gets its time
            for _ in range(6):
                self._mark(clock_ms)
                self._now_ms += 1_000
            for number in range(PARTITIONS):
                self._flush(number)

    def _beside(self, clock_ms: int) -> list[dict[str, Any]]:
        """Return what comes beside the tape, each minute: an index's value, and an aggregate of what no trades come of.

        They tell the time in a queue of their own, in every partition. Nobody may believe it while trades still wait in theirs.
        """
        start_ms = clock_ms - clock_ms % 60_000
        if start_ms <= self._minute_ms:
            return []
        self._minute_ms = start_ms
        prices: dict[str, Any] = dict.fromkeys("ohlc", LEVEL) | {"v": 0, "s": start_ms - 60_000, "e": start_ms}
        return [
            event
            for index, untraded in self.beside
            for event in ({"ev": "V", "T": index, "val": LEVEL, "t": clock_ms}, {"ev": "AM", "sym": untraded, **prices})
        ]

    def _deliver(self, lanes: dict[tuple[str, int], Lane], clock_ms: int) -> None:
        keys = sorted(lanes)
        self._dice.shuffle(keys)
        for key in keys:
            while lanes[key]:
                many = self._dice.randint(1, BATCH)
                part, lanes[key] = lanes[key][:many], lanes[key][many:]
                self._hand(key, [event for _, event in part], part[-1][0])
                if self._dice.random() < 0.2:
                    self._flush(key[1])
                if self._dice.random() < 0.03:
                    self._hand_over(key[1])
        self._now_ms += 500
        self._mark(clock_ms)

    def _hand(self, key: tuple[str, int], events: list[str], clock_ms: int) -> None:
        stream, number = key
        self._now_ms += self._dice.randrange(20)
        body, at_ns = f"[{','.join(events)}]".encode(), self._now_ms * 1_000_000
        batch = Batch("tape", 1, stream, number, "p1", self._seqs[key], len(events), at_ns, at_ns, clock_ms * 1_000_000, body)
        self._seqs[key] += len(events)
        self._partitions[number].on_batch(batch, False, at_ns)

    def _mark(self, clock_ms: int) -> None:
        for key in self._seqs:
            self._hand(key, [], clock_ms)

    def _flush(self, number: int) -> None:
        self._now_ms += 5
        partition = self._partitions[number]
        self.mirrors[number].apply(partition.collect(self._now_ms), partition.flush_number)

    def _hand_over(self, number: int) -> None:
        self._flush(number)
        after = Partition(number, 2, "e1", self._analyzers())
        assert not after.restore(dict(self.mirrors[number].cells), self._now_ms)
        self._partitions[number] = after

    def alerts(self) -> dict[str, list[dict[str, Any]]]:
        """Return channel → its documents, numbered as the cache would."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for mirror in self.mirrors:
            for channel, _, data in mirror.shared:
                found[channel].append({"seq": len(found[channel]), "data": data})
        return found

    @property
    def earlier_day(self) -> int:
        return sum(partition.counts.discarded.get("earlier_day", 0) for partition in self._partitions)

    # --- as a cache is read

    def mget(self, keys: Sequence[str]) -> list[str | None]:
        return [self._document(key.removeprefix("ch:")) for key in keys]

    def pipeline(self, transaction: bool) -> Reads:
        return Reads(self)

    def lrange(self, key: str, first: int, last: int) -> list[str]:
        assert last == -1
        kind, _, channel = key.partition(":")
        mirror = self.mirrors[crc32(channel.rpartition(":")[2].encode()) % PARTITIONS]
        if kind == "hist":
            return [json.dumps(row) for row in mirror.history[channel][first:]]
        return [json.dumps(doc) for doc in mirror.log if doc["ch"] == channel][first:]

    def _document(self, channel: str) -> str | None:
        kind, _, name = channel.rpartition(":")
        if kind == "board":
            assert name in NAMES
            shares = [read_share(mirror.shares[channel]) for mirror in self.mirrors if channel in mirror.shares]
            return json.dumps({"data": json.loads(merge_shares(shares, 500, PARTITIONS))})
        doc = self.mirrors[crc32(name.encode()) % PARTITIONS].documents.get(channel)
        return None if doc is None else json.dumps(doc)


class Reads:
    """Several reads that are answered together."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._answers: list[list[str]] = []

    def lrange(self, key: str, first: int, last: int) -> None:
        self._answers.append(self._queues.lrange(key, first, last))

    def execute(self) -> list[list[str]]:
        return self._answers
