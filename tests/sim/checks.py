"""Checks the properties that hold whatever happens: at every published document, four times a second, after healing, at the end.

Invariant: a check reads the state of the world beside all links and changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from mdc.documents import Doc, decode_message
from tests.sim.clients import Browser
from tests.sim.plan import OWNED_S

if TYPE_CHECKING:
    from tests.sim.components import DataService
    from tests.sim.world import World

LIVE_S_MAX = 5.0 + 1.5  # without data; a verdict is made once a second and has to arrive
TELL_S_MAX = 0.6  # a slow tier sends the data after the word: at its next tick
FRESH_S_MAX = 2.0
TAKEN_S = OWNED_S + 0.5
_raw = msgspec.json.Encoder().encode


class Checks:
    """What is looked at. `complaints` are faults that components report themselves: unexpected ends, unhandled exceptions."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.complaints: list[str] = []
        self._contents: dict[tuple[str, str, int], bytes] = {}
        self._newest: dict[tuple[str, str], tuple[int, float]] = {}  # of a trades channel: (seq, price)
        self._awake_s: dict[DataService, float] = {}
        self._doubtful_s: dict[tuple[Browser, str], float] = {}  # since when something old is called live

    # --- at every document

    def on_publish(self, channel: bytes, message: bytes) -> None:
        """A message leaves the cache."""
        try:
            for doc in decode_message(message):
                self._one_content(doc)
                if doc.ch.startswith("trades:"):
                    self._in_order(doc)
        except AssertionError as broken:
            self.complaints.append(str(broken))

    def _one_content(self, doc: Doc) -> None:
        key = (doc.ch, doc.epoch, doc.seq)
        content = bytes(doc.data)
        known = self._contents.setdefault(key, content)
        assert known == content, f"{key} has two contents: {known.decode()} and {content.decode()}"

    def _in_order(self, doc: Doc) -> None:
        key = (doc.ch, doc.epoch)
        price = json.loads(bytes(doc.data))["price"]
        seq, newest = self._newest.get(key, (0, 0))
        assert doc.seq > seq, f"{doc.ch} goes back from {seq} to {doc.seq} in {doc.epoch}"
        assert price > newest, f"{doc.ch} {doc.seq}: event {price} after {newest}"
        self._newest[key] = (doc.seq, price)

    # --- four times a second

    def look(self) -> None:
        """Nobody complains, and nobody calls live what is old."""
        assert not self.complaints, "; ".join(self.complaints)
        self._taken_over()
        for service in self.world.services:
            if not service.alive:
                self._awake_s.pop(service, None)
                continue
            since_s = self._awake_s.setdefault(service, self.world.now_s)
            if self.world.now_s - since_s < 2.0:
                continue  # it has just come up or woken: it needs a turn to see how things are
            for browser in service.browsers:
                self._honest(browser)

    def _taken_over(self) -> None:
        """While one worker can do everything, everything is done: others take over from those who cannot."""
        world = self.world
        settled = world.now_s - world.faults.changed_s > TAKEN_S and world.now_s < world.quiet_s
        servers = [server.listening and not server.process.paused for server in (world.cache, world.queues)]
        if not settled or not all(servers) or not any(worker.hale for worker in world.workers):
            return
        for source, market in world.markets.items():
            if all(listener.hale for listener in world.listeners if listener.source == source):
                for symbol in market.symbols:
                    self._moves(symbol, f"{TAKEN_S} s after the last change")

    def _moves(self, symbol: str, when: str) -> None:
        doc = self._document(f"quote:{symbol}")
        age_s = (self.world.true_ms() - doc["data"]["ts"]) / 1000 if doc else float("inf")
        assert age_s < FRESH_S_MAX, f"{when} {symbol} is {age_s} s old"

    def _honest(self, browser: Browser) -> None:
        now_ms, now_s, replica = self.world.true_ms(), self.world.now_s, browser.replica
        for channel, ts in browser.ts.items():
            if channel.startswith("quote:") and replica.status.get(channel, "live") == "live":
                age_s = (now_ms - ts) / 1000
                quiet_s = max(0.0, now_s - self.world.quiet_s)
                if age_s - quiet_s < LIVE_S_MAX:
                    self._doubtful_s.pop((browser, channel), None)
                elif now_s - self._doubtful_s.setdefault((browser, channel), now_s) >= TELL_S_MAX:
                    doc = self._document(channel)
                    cached = f"{(now_ms - doc['data']['ts']) / 1000:.1f} s old in the cache" if doc else "not in the cache"
                    raise AssertionError(f"{browser.name} shows {channel} live, {age_s:.1f} s old ({cached})")
            else:
                self._doubtful_s.pop((browser, channel), None)

    # --- after healing

    def owned_and_fresh(self) -> None:
        """Every partition is read by one worker, every symbol moves, everybody says live."""
        world = self.world
        readers: Counter[int] = Counter()
        for component in world.workers:
            if component.alive and component.worker is not None:
                for number, owned in component.worker.owned.items():
                    readers[number] += owned.subscription is not None and owned.subscription.live
        expected = dict.fromkeys(range(world.plan.partitions), 1)
        assert dict(readers) == expected, f"{OWNED_S:.0f} s after healing partitions are read by {dict(readers)}"
        for symbol in world.symbols():
            self._moves(symbol, f"{OWNED_S:.0f} s after healing")
        for service in world.services:
            for browser in service.browsers:
                wrong = {ch: state for ch, state in browser.replica.status.items() if state != "live"}
                assert not wrong, f"{OWNED_S:.0f} s after healing {browser.name} shows {wrong}"

    # --- at the end

    def at_end(self) -> None:
        """Every copy equals the cache, and every event is accounted for."""
        for service in self.world.services:
            for browser in service.browsers:
                for channel in self.world.channels():
                    self._same(browser, channel)
        self._accounted()

    def _same(self, browser: Browser, channel: str) -> None:
        mine = browser.replica.state.get(channel)
        if channel.startswith("trades:"):
            entries = self.world.cache.read(f"ch:{channel}") or []
            docs = [json.loads(entry) for entry in entries]  # of an earlier life of the cache nothing is shown any more
            cached: Any = [doc["data"]["price"] for doc in docs if doc["epoch"] == docs[-1]["epoch"]][-10:]
            mine = [event["price"] for event in mine or []][-10:]
        else:
            doc = self._document(channel)
            cached = doc["data"] if doc else None
        assert mine == cached, f"{browser.name} has {mine} as {channel}, the cache {cached}"

    def _accounted(self) -> None:
        """received = applied + expired + dropped + refused, by source; and quotes hold what is counted as applied.

        What a worker had in hand when it died is in the watched symbols' quotes already. If nobody gets it again, it is counted
        as lost, or not at all where an epoch has ended: so far may the quotes be ahead of the counts.
        """
        for source, market in self.world.markets.items():
            total: Counter[str] = Counter()
            for partition in range(self.world.plan.partitions):
                counts = self._counts(partition) or {}
                for name in ("events", "expired", "dropped", "fenced"):
                    total[name] += counts.get(name, {}).get(f"{source}/trades", 0)
            quotes = sum(doc["data"]["trades"] for doc in map(self._document, (f"quote:{s}" for s in market.symbols)) if doc)
            facts = f"{source}: received {market.taken}, accounted for {total.total()}: {dict(total)}, in quotes {quotes}"
            missing = market.taken - total.total()
            if source in self.world.faults.astray:
                missing = max(0, missing)
            elif self.world.faults.forgot or self.world.faults.poisoned or self.world.tenures(source) > 1:
                assert missing >= 0, facts
            else:
                assert missing == 0, facts
            least = 0 if self.world.faults.poisoned else total["events"]
            assert least <= quotes <= total["events"] + total["expired"] + total["dropped"] + missing, facts

    def _counts(self, partition: int) -> Any:
        shares = self.world.cache.read("part:counts") or {}
        body = shares.get(str(partition).encode())
        return json.loads(body) if body else None

    def _document(self, channel: str) -> Any:
        body = self.world.cache.read(f"ch:{channel}")
        return json.loads(body) if body else None
