"""Interleaves clients of the app, slow ones, ends and outages at random, and checks what each is pushed against a plain model."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest

from tests.wds.compat.test_payloads import ALERT, BAR, BOARD, QUOTE, TS
from tests.wds.upstream import Cache, Wire
from wds.compat import relay as relay_module
from wds.compat.feeds import find
from wds.compat.payloads import Ranges, read
from wds.compat.relay import EVENTS_KEPT, Relay
from wds.fanout.framing import text_frame
from wds.fanout.freshness import Freshness
from wds.fanout.hub import Hub
from wds.fanout.member import Member
from wds.fanout.outbox import Ladder, Step
from wds.protocol import PHASES

FEEDS = (
    "quote:A", "stocks:quotes:A", "daily_range:A", "scanners:top_volume", "stocks:trades:A", "daily_range_hod_alert", "stocks:agg:A",
)  # fmt: skip
LADDER = Ladder(high_bytes=100, low_bytes=10, max_bytes=10_000, pause_s=1e6, close_s=2e6)
BASE = {
    "quote:A": QUOTE, "board:volume": BOARD, "trades:A": {"size": 1, "ts": TS}, "alerts:range": ALERT, "bars:1s:A": BAR,
    "bars:5m:A": {**BAR, "high": 120.0},
}  # fmt: skip
GONE = {"following": 0, "owed": 0, "channels": 0, "joining": 0, "ranges": 0, "seen": 0}


def payload_of(frame: bytes) -> Any:
    """Return what stands in one whole WebSocket frame; a write of several would not be one."""
    size = frame[1]
    start = 2 if size < 126 else 4 if size == 126 else 10
    assert text_frame(frame[start:]) == frame
    return json.loads(frame[start:])


class Client:
    """One connection of the app: what it follows, what it was pushed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.heard: list[Any] = []
        self.member = Member(self.take, LADDER)
        self.fills = world.dice.choice((0, 0, 0.2))
        self.ends = world.dice.choice((0, 0, 0, 0.01))
        self.feeds: set[str] = set()
        world.hub.add(self.member)

    def take(self, frame: bytes) -> None:
        assert not self.member.gone, "written to after its end"
        assert self.member.ready, "written to while it does not read"
        self.heard.append(payload_of(frame))
        dice = self.world.dice.random()
        if dice < self.ends:
            self.end()
        elif dice < self.ends + self.fills:
            self.slow()

    def slow(self) -> None:
        self.world.hub.on_buffer(self.member, 500, 0)

    def reads(self) -> None:
        """Read until nothing is owed: what it is brought may fill its buffer again."""
        for _ in range(1000):
            if self.member.gone:
                return
            if self.member.outbox.step is not Step.OPEN:
                self.world.hub.on_buffer(self.member, 0, 0)
            self.world.relay.catch_up(self.member)
            if self.member.ready:
                return
        raise AssertionError("it is owed something for ever")

    def end(self) -> None:
        self.world.hub.drop(self.member, 0)
        self.world.relay.drop(self.member)
        self.feeds.clear()

    def follow(self, name: str) -> None:
        self.feeds.add(name)
        self.world.relay.follow(self.member, [name], 0)

    def unfollow(self, name: str) -> None:
        self.feeds.discard(name)
        self.world.relay.unfollow(self.member, [name])


class World:
    """A hub with a relay, the cache behind it, and clients."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.hub = Hub(text_frame, Freshness(5.0, 0), 0.0)
        self.relay = Relay(self.hub)
        self.cache = Cache()
        self.wire = Wire(self.cache, self.hub)
        self.hub.on_cache(True, "", 0)
        self.serial = 0
        self.clients = [Client(self) for _ in range(4)]
        self.wire.settle()

    def publish(self, channel: str) -> None:
        """Write a document that differs from all before it."""
        self.serial += 1
        number = float(self.serial)
        data: dict[str, Any] = dict(BASE[channel])
        if channel == "board:volume":
            data["rows"] = {**BOARD["rows"], "NEW": {"sym": "NEW", "last": number}}
        else:
            data |= {
                "ts": TS + self.serial,
                "last": number,
                "bid": number,
                "price": number,
                "close": number,
                "kind": self.dice.choice(["new_high", "new_low"]),
            }
        self.wire.publish(channel, data)

    def tick(self) -> None:
        for hz in (10, 4, 1):
            for phase in range(PHASES[hz]):
                self.hub.tick(hz, phase, 0)

    def settle(self) -> None:
        for _ in range(3):
            self.wire.settle()
            self.tick()
            while self.hub.work(0):
                pass
            self.hub.on_time(10**12)
            self.wire.settle()

    def step(self) -> None:
        dice, wire, client = self.dice, self.wire, self.dice.choice(self.clients)
        doing = dice.randrange(12)
        if client.member.gone:
            self.clients[self.clients.index(client)] = Client(self)
        elif doing < 3:
            self.publish(dice.choice(list(BASE)))
        elif doing == 3:
            wire.deliver(dice.randrange(4))
        elif doing == 4:
            dice.choice((wire.carry_out, wire.read_one, wire.answer_one))()
        elif doing == 5:
            self.tick()
        elif doing == 6:
            self.hub.work(0)
        elif doing == 7:
            client.follow(dice.choice(FEEDS))
        elif doing == 8:
            client.unfollow(dice.choice(FEEDS))
        elif doing == 9:
            dice.choice((client.slow, client.reads))()
        elif dice.random() < 0.15:
            dice.choice((wire.cut, wire.mend, client.end, self.cache.empty))()

    def newest(self, name: str) -> Any:
        """Return what a plain reading of the cache makes of a feed."""
        feed = find(name)
        assert feed is not None
        inputs: list[Any] = []
        for channel in feed.channels:
            docs = self.cache.docs.get(channel)
            found = read(channel.rpartition(":")[0], bytes(docs[-1].data)) if docs else None
            if channel.startswith("bars:5m") and found is not None:
                ranges = Ranges()
                ranges.see(found)
                found = ranges
            inputs.append(found)
        return json.loads(json.dumps(feed.family.shape(feed.symbol, inputs)))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_every_client_has_the_newest(seed: int) -> None:
    """States end at the newest document, events come once and in order, frames are whole, and what ends leaves nothing behind."""
    world = World(seed)
    for _ in range(world.dice.randrange(50, 400)):
        world.step()
    world.settle()
    world.clients = [client for client in world.clients if not client.member.gone]
    for client in world.clients:
        client.fills = client.ends = 0
        client.reads()
        client.heard.clear()
    world.settle()
    for channel in BASE:
        world.publish(channel)
    world.settle()
    for client in world.clients:
        client.reads()
        told = [json.dumps(one, sort_keys=True) for one in client.heard]
        for name in client.feeds:
            feed = find(name)
            assert feed is not None
            expected = world.newest(name)
            if expected is not None:
                assert told.count(json.dumps(expected, sort_keys=True)) == 1, (name, client.heard)
        prices = [one["price"] for one in client.heard if isinstance(one, dict) and one.get("event_type") == "T"]
        assert prices == sorted(set(prices))
        client.end()
    world.settle()
    assert (world.relay.held(), len(world.relay)) == (GONE, 0)
    assert world.hub.watched == 0


def test_one_who_falls_far_behind_gets_the_newest_events() -> None:
    """Of more than are kept, the rest is counted as lost; of a state it gets the latest alone."""
    world = World(1)
    client = world.clients[0]
    client.fills = client.ends = 0
    for name in ("stocks:trades:A", "quote:A"):
        client.follow(name)
    world.settle()
    client.slow()
    lost = world.hub.tally.lost
    for _ in range(EVENTS_KEPT + 50):
        world.publish("trades:A")
        world.publish("quote:A")
        world.settle()
    assert client.heard == []
    client.reads()
    assert len([one for one in client.heard if one.get("event_type") == "T"]) == EVENTS_KEPT
    assert len([one for one in client.heard if "event_type" not in one]) == 1
    assert world.hub.tally.lost - lost == 50


def test_changes_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More events in one turn than may wait: the oldest give way and are counted, the newest come."""
    monkeypatch.setattr(relay_module, "WAITING_MAX", 10)
    world = World(2)
    client = world.clients[0]
    client.fills = client.ends = 0
    world.publish("trades:A")
    client.follow("stocks:trades:A")
    world.settle()
    for _ in range(40):
        world.publish("trades:A")
    world.settle()
    assert [one["price"] for one in client.heard] == [float(n) for n in range(32, 42)]
    assert world.hub.tally.lost == 30


def test_one_turn_makes_so_many_pushes() -> None:
    """Many changes, which the hub tells in several frames of one write, are pushed in slices, between which others have their turn."""
    world = World(3)
    client = world.clients[0]
    client.fills = client.ends = 0
    world.publish("trades:A")
    client.follow("stocks:trades:A")
    world.settle()
    for _ in range(relay_module.SLICE * 3):
        world.publish("trades:A")
    world.wire.deliver(10_000)
    world.tick()
    seen = [len(client.heard)]
    while world.hub.work(0):
        seen.append(len(client.heard))
    assert max(after - before for before, after in pairwise(seen)) <= relay_module.SLICE
    assert len(client.heard) == relay_module.SLICE * 3
