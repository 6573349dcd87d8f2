"""Imitates the cache by hand: documents, snapshots and outages arrive as mdc/reader.py would deliver them.

Every hop is explicit (published, on the wire, delivered), so that a test decides how they interleave.
"""

from __future__ import annotations

import json
from typing import Any

from msgspec import Raw

from mdc.away import Away
from mdc.channels import kind_of, split
from mdc.documents import Doc, Snapshot
from wds.fanout.hub import Hub
from wds.fanout.topic import Request

PARTITIONS = 8


class Cache:
    """The truth: documents by channel, in one epoch."""

    def __init__(self) -> None:
        self.epoch = "e1"
        self.docs: dict[str, list[Doc]] = {}
        self.clock_ms = 1_700_000_000_000

    def publish(self, channel: str, data: Any) -> Doc:
        known = self.docs.setdefault(channel, [])
        self.clock_ms += 1
        doc = Doc(channel, self.epoch, known[-1].seq + 1 if known else 1, self.clock_ms, Raw(json.dumps(data).encode()))
        known.append(doc)
        return doc

    def read(self, channel: str) -> Snapshot | None:
        known = self.docs.get(channel)
        if not known:
            return None
        last = known[-1]
        if kind_of(channel).mode == "event":
            data = b"[" + b",".join(bytes(doc.data) for doc in known[-kind_of(channel).keep :]) + b"]"
        else:
            data = bytes(last.data)
            if kind_of(channel).keep:
                data = data[:-1] + b',"history":[[1,2,3]]}'
        return Snapshot(channel, last.epoch, last.seq, last.ts, data)

    def empty(self) -> None:
        self.epoch = f"e{int(self.epoch[1:]) + 1}"
        self.docs.clear()

    def forget(self, channel: str, n: int) -> None:
        """Go back in time: a cache restored from an older copy of itself."""
        known = self.docs.get(channel, [])
        del known[max(1, len(known) - n) :]


class Wire:
    """The way between cache and hub: a pub/sub connection in order, and reads that take their time."""

    def __init__(self, cache: Cache, hub: Hub) -> None:
        self.cache = cache
        self.hub = hub
        self.up = True
        self.parts: dict[int, str] = {}  # of a cluster: those that are away
        self.watched: set[str] = set()
        self.flying: list[Doc] = []
        self.asked: list[Request] = []  # not yet executed by the cache
        self.answers: list[tuple[Request, Snapshot | None]] = []
        self.now_ns = 0

    def publish(self, channel: str, data: Any) -> None:
        doc = self.cache.publish(channel, data)
        if self.up and channel in self.watched and self.part_of(channel) not in self.parts:
            self.flying.append(doc)

    def deliver(self, n: int) -> None:
        docs, self.flying = self.flying[:n], self.flying[n:]
        self.hub.on_docs(docs, self.now_ns)

    def carry_out(self) -> None:
        """Take the hub's requests: watching is active from now, the reads are executed later."""
        for request in self.hub.requests:
            if request.what == "close":
                self.watched.discard(request.channel)
            else:
                self.watched.add(request.channel)
                self.asked.append(request)
        self.hub.requests.clear()

    def read_one(self) -> None:
        if self.asked:
            request = self.asked.pop(0)
            if self.up and self.part_of(request.channel) not in self.parts:
                self.answers.append((request, self.cache.read(request.channel)))
            else:
                self.hub.on_read_failed(request.channel, request.ticket, self.now_ns)

    def answer_one(self) -> None:
        if self.answers:
            request, snapshot = self.answers.pop(0)
            self.hub.on_snapshot(request.channel, request.ticket, snapshot, self.now_ns)

    def cut(self) -> None:
        """The connection breaks: what is on the wire is gone."""
        self.up = False
        self.flying.clear()
        for request, _ in self.answers:
            self.hub.on_read_failed(request.channel, request.ticket, self.now_ns)
        self.answers.clear()
        self.hub.on_cache(False, "cut", self.now_ns)

    def mend(self) -> None:
        self.up = True
        self.parts.clear()
        self.hub.on_away(Away(PARTITIONS), self.now_ns)
        self.hub.on_cache(True, "", self.now_ns)

    def part_of(self, channel: str) -> int:
        name = split(channel)[1]
        return Away(PARTITIONS).part_of(kind_of(channel), name)

    def cut_part(self, channel: str) -> None:
        """The node of a channel breaks: what of it is on the wire is gone, reads under way fail or were answered before."""
        part = self.part_of(channel)
        self.parts[part] = "cut"
        self.flying = [doc for doc in self.flying if self.part_of(doc.ch) != part]
        self.hub.on_away(Away(PARTITIONS, dict(self.parts)), self.now_ns)

    def mend_part(self) -> None:
        """The part that broke first is back."""
        self.parts.pop(next(iter(self.parts), -2), None)
        self.hub.on_away(Away(PARTITIONS, dict(self.parts)), self.now_ns)

    def settle(self) -> None:
        """Let everything arrive."""
        if not self.up:
            self.mend()
        while self.parts:
            self.mend_part()
        for _ in range(10_000):
            self.carry_out()
            more = self.hub.work(self.now_ns)
            if not (self.flying or self.asked or self.answers or more or self.hub.requests):
                return
            self.deliver(1000)
            self.read_one()
            self.answer_one()
        raise AssertionError("the hub never stops asking")
