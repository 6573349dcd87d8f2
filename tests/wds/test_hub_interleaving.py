"""Random interleavings of everything in, one demand out: each client sees the upstream's state by an unbroken chain."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.wds.replica import Replica
from tests.wds.upstream import Cache, Wire
from wds.freshness import Freshness
from wds.hub import Hub, Member, Want
from wds.outbox import Ladder
from wds.protocol import TIERS, Since

QUOTE, BARS, BOARD, TRADES = "quote:A", "bars:1m:A", "board:gainers", "trades:A"
CHANNELS = (QUOTE, BARS, BOARD, TRADES)
SYMS = st.lists(st.sampled_from(["A", "B", "C", "D"]), unique=True)
LADDER = Ladder(high_bytes=100, low_bytes=10, max_bytes=10_000, pause_s=1e6, close_s=2e6)


class Client:
    """A member with its replica; it remembers where it stood so that it can resume."""

    def __init__(self) -> None:
        self.replica = Replica()
        self.member = Member(self.replica.take, LADDER)
        self.joining: set[str] = set()

    def done(self, outcomes: list[Any]) -> Any:
        for outcome in outcomes:
            self.joining.discard(outcome.ch)
            if outcome.recovered is False:
                self.replica.forget(outcome.ch)
        return lambda: None


class Interleaving(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache()
        self.hub = Hub(lambda payload: payload, Freshness(5, 0), linger_s=0.5)
        self.wire = Wire(self.cache, self.hub)
        self.clients = [Client() for _ in range(3)]
        for client in self.clients:
            self.hub.add(client.member)

    who = st.integers(0, 2)
    channel = st.sampled_from(CHANNELS)
    hz = st.sampled_from(TIERS)

    @rule(last=st.integers(1, 3), bid=st.one_of(st.none(), st.integers(1, 2)), bars=st.booleans())
    def publish_state(self, last: int, bid: int | None, bars: bool) -> None:
        self.wire.publish(BARS if bars else QUOTE, {"close": last} if bars else {"last": last, "bid": bid})

    @rule(order=SYMS, value=st.integers(1, 2))
    def publish_board(self, order: list[str], value: int) -> None:
        self.wire.publish(BOARD, {"order": order, "rows": {sym: {"last": value} for sym in order}})

    @rule(n=st.integers(1, 60))
    def publish_events(self, n: int) -> None:
        for _ in range(n):
            self.wire.publish(TRADES, {"n": len(self.cache.docs.get(TRADES, ())) + 1})

    @rule(n=st.integers(1, 5))
    def deliver(self, n: int) -> None:
        self.wire.deliver(n)

    @rule()
    def lose_one_document(self) -> None:
        trades = [at for at, doc in enumerate(self.wire.flying) if doc.ch == TRADES]
        if len(trades) > 1:
            del self.wire.flying[trades[-2]]  # the one after it shows the gap

    @rule()
    def carry_out(self) -> None:
        self.wire.carry_out()

    @rule()
    def read(self) -> None:
        self.wire.read_one()

    @rule()
    def answer(self) -> None:
        self.wire.answer_one()

    @rule()
    def outage(self) -> None:
        if self.wire.up:
            self.wire.cut()

    @rule(emptied=st.booleans(), back=st.integers(0, 3))
    def come_back(self, emptied: bool, back: int) -> None:
        if not self.wire.up:
            if emptied:
                self.cache.empty()
            for channel in CHANNELS:
                self.cache.forget(channel, back)
            self.wire.mend()

    @rule(hz=hz)
    def tick(self, hz: Any) -> None:
        self.hub.tick(hz, self.wire.now_ns)

    @rule(ms=st.integers(100, 2000))
    def time(self, ms: int) -> None:
        self.wire.now_ns += ms * 1_000_000
        self.hub.on_time(self.wire.now_ns)

    @rule(who=who, channels=st.lists(channel, min_size=1, max_size=3, unique=True), hz=hz, resume=st.booleans())
    def subscribe(self, who: int, channels: list[str], hz: Any, resume: bool) -> None:
        client = self.clients[who]
        wants = []
        for channel in channels:
            if channel in client.member.groups or channel in client.joining:
                continue
            since = None
            if resume and channel in client.replica.seq:
                since = Since(client.replica.epoch[channel], client.replica.seq[channel])
            else:
                client.replica.forget(channel)
            client.joining.add(channel)
            wants.append(Want(channel, hz, None, since))
        if wants:
            self.hub.join(client.member, wants, client.done, self.wire.now_ns)

    @rule(who=who, channel=channel)
    def unsubscribe(self, who: int, channel: str) -> None:
        self.hub.leave(self.clients[who].member, channel, self.wire.now_ns)

    @rule(who=who, hz=hz)
    def retune(self, who: int, hz: Any) -> None:
        self.hub.retune(self.clients[who].member, hz, self.wire.now_ns)

    @rule(who=who, paused=st.booleans())
    def hide(self, who: int, paused: bool) -> None:
        self.hub.pause(self.clients[who].member, paused, self.wire.now_ns)

    @rule(who=who, full=st.booleans())
    def stall(self, who: int, full: bool) -> None:
        self.hub.on_buffer(self.clients[who].member, 500 if full else 0, self.wire.now_ns)

    @rule(who=who, channel=channel)
    def ask(self, who: int, channel: str) -> None:
        client = self.clients[who]
        outcome = self.hub.position(client.member, channel, None)
        if outcome is not None and not outcome.error:
            snap = {"t": "snap", "ch": channel, "epoch": outcome.epoch, "seq": outcome.seq}
            client.replica.take(json.dumps({**snap, "data": json.loads(bytes(outcome.data))}).encode())

    @invariant()
    def slow_clients_hold_nothing(self) -> None:
        for client in self.clients:
            for group in client.member.groups.values():
                assert (client.member in group.fast) != (client.member in group.late)

    def teardown(self) -> None:
        self.wire.settle()
        for client in self.clients:
            self.hub.on_buffer(client.member, 0, self.wire.now_ns)
            self.hub.pause(client.member, False, self.wire.now_ns)
        for hz in TIERS:
            self.hub.tick(hz, self.wire.now_ns)
        self.wire.settle()
        for client in self.clients:
            assert not client.joining
            for channel in client.member.groups:
                self._same(client.replica, channel)

    def _same(self, replica: Replica, channel: str) -> None:
        docs = self.cache.docs.get(channel)
        if not docs:
            return
        if channel == TRADES:
            assert replica.seq[channel] == docs[-1].seq
            mine = replica.state[channel]
            truth = [json.loads(bytes(doc.data)) for doc in docs]
            assert [event for event in truth if event in mine[-50:]] == mine[-50:][-len(truth) :]
        else:
            assert replica.state[channel] == json.loads(bytes(docs[-1].data)), channel
        assert replica.epoch[channel] == self.cache.epoch


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(
    max_examples=int(__import__("os").environ.get("N", "150")),
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
