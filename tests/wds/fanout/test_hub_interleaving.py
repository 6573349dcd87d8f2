"""Interleaves everything at random and checks that each client sees the upstream's state by an unbroken chain."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wds.replica import Replica
from tests.wds.upstream import Cache, Wire
from wds.client.compact import Expander
from wds.fanout import hub, phases, pieces
from wds.fanout.compact import told_kinds
from wds.fanout.freshness import Freshness
from wds.fanout.hub import Hub
from wds.fanout.member import Member, Want
from wds.fanout.outbox import Ladder
from wds.protocol import PHASES, TIERS, Since

QUOTE, BARS, BOARD, TRADES = "quote:A", "bars:1m:A", "board:gainers", "trades:A"
CHANNELS = (QUOTE, BARS, BOARD, TRADES)
LADDER = Ladder(high_bytes=100, low_bytes=10, max_bytes=10_000, pause_s=1e6, close_s=2e6)


@pytest.fixture(scope="module", autouse=True)
def small_pieces() -> Iterator[None]:
    """Let every round be cut: the bounds of the real one are never reached with four channels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "FRAMES_MAX", 2)
        patch.setattr(pieces, "PIECE_BYTES", 150)
        patch.setattr(hub, "JUDGED", 2)
        patch.setattr(phases, "WRITES_S_MAX", 8)  # three clients are a crowd: phases go together, or not
        yield


class Client:
    """A member with its replica; it remembers where it stood so that it can resume.

    In the middle of a write its buffer may fill, or it may end: as a transport does that calls back at once.
    """

    def __init__(self, hub: Hub, dice: random.Random) -> None:
        self.replica = Replica()
        self.hub = hub
        self.dice = dice
        self.fills = dice.choice((0, 0, 0.1, 0.5))
        self.ends = dice.choice((0, 0, 0.02))
        self.member = Member(self.take, LADDER)
        self.compact = dice.random() < 0.5
        self.expander = Expander()
        self.joining: set[str] = set()

    def enter(self) -> None:
        """Sign in, in the form that it speaks."""
        self.expander.learn({"kinds": msgspec.to_builtins(told_kinds()), "base_ms": self.hub.base_ms} if self.compact else {})
        self.hub.add(self.member)
        if self.compact:
            self.hub.compact(self.member)

    def take(self, payload: bytes) -> None:
        assert not self.member.gone or self.hub._turn.depth, "written to after its end"
        for line in payload.splitlines():
            frames = self.expander.frames(json.loads(line))
            self.replica.take(json.dumps([frame for frame in frames if frame["t"] != "num"]).encode())
        dice = self.dice.random()
        if dice < self.ends:
            self.hub.drop(self.member, self.hub._now_ns)
        elif dice < self.ends + self.fills:
            self.hub.on_buffer(self.member, 500, self.hub._now_ns)

    def come_back(self) -> None:
        """Connect anew, with the copies of before."""
        self.member = Member(self.take, LADDER)
        self.joining.clear()
        self.replica.status.clear()
        self.enter()

    def done(self, outcomes: list[Any]) -> Any:
        for outcome in outcomes:
            self.joining.discard(outcome.ch)
            if outcome.recovered is False:
                self.replica.forget(outcome.ch)
        return lambda: None


class Simulation:
    """A cache, a wire, a hub and three clients, moved by dice. Each seed weighs the moves differently (swarm testing)."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cache = Cache()
        self.hub = Hub(
            lambda payload: payload + b"\n",
            Freshness(5, 0),
            linger_s=0.5,
            slice_=self.random.choice((1, 2, 256)),
            base_ms=1_700_000_000_000,
        )
        self.wire = Wire(self.cache, self.hub)
        self.clients = [Client(self.hub, self.random) for _ in range(3)]
        self.channels = self.random.sample(CHANNELS, self.random.randint(1, 4))
        self.tiers = self.random.sample(TIERS, self.random.randint(1, 5))
        for client in self.clients:
            client.enter()
        moves = (
            self.publish, self.publish, self.deliver, self.lose, self.carry_out, self.read, self.answer, self.outage, self.come_back,
            self.tick, self.time, self.subscribe, self.unsubscribe, self.retune, self.hide, self.stall, self.ask, self.settle,
            self.work, self.work, self.reconnect, self.part_outage, self.part_back,
        )  # fmt: skip
        self.moves: list[Callable[[], None]] = list(moves)
        self.weights = [self.random.choice((0, 1, 1, 3, 8)) for _ in moves]
        self.weights[0] = self.weights[11] = 3

    def run(self, steps: int) -> None:
        for move in self.random.choices(self.moves, self.weights, k=steps):
            move()
            assert self.hub._turn.depth == 0
            self.members_are_fast_or_late()
        self.settle()

    def work(self) -> None:
        self.hub.work(self.wire.now_ns)

    def reconnect(self) -> None:
        for client in self.clients:
            if client.member.gone:
                client.come_back()

    def members_are_fast_or_late(self) -> None:
        for round_ in list(self.hub._cohorts.loose) if self.random.random() < 0.2 else ():
            self.hub._cohorts.settle(round_)
            for client in self.clients:
                fast = [one for one in client.member.groups.values() if one.round == round_ and client.member in one.fast]
                cohort = client.member.cohorts.get(round_)
                assert (set(cohort.groups) if cohort else set()) == set(fast)
                assert all(cohort in group.cohorts for group in fast)
        for client in self.clients:
            assert not (client.member.gone and client.member.groups)
            for group in client.member.groups.values():
                assert (client.member in group.fast) != (client.member in group.late)

    def publish(self) -> None:
        dice, channel = self.random, self.random.choice(self.channels)
        if channel == TRADES:
            for _ in range(dice.choice((1, 1, 2, 60))):
                self.wire.publish(
                    TRADES, {"id": len(self.cache.docs.get(TRADES, ())) + 1, **({} if dice.random() < 0.9 else {"odd": 1})}
                )
        elif channel == BOARD:
            order = dice.sample("ABCD", dice.randint(0, 4))
            self.wire.publish(BOARD, {"order": order, "rows": {sym: {"last": dice.randint(1, 2)} for sym in order}})
        else:
            ts = self.cache.clock_ms + dice.choice((0, 1))  # of the document itself, or not
            fields = {
                "open": dice.randint(1, 2),
                "high": dice.choice((None, 1)),
                "low": 1,
                **({"ts": ts} if channel == QUOTE else {}),
            }
            self.wire.publish(channel, {name: fields[name] for name in fields if name != "low" or dice.random() < 0.5})

    def deliver(self) -> None:
        self.wire.deliver(self.random.randint(1, 5))

    def lose(self) -> None:
        trades = [at for at, doc in enumerate(self.wire.flying) if doc.ch == TRADES]
        if len(trades) > 1:
            del self.wire.flying[trades[-2]]  # the one after it shows the gap

    def carry_out(self) -> None:
        self.wire.carry_out()

    def read(self) -> None:
        self.wire.read_one()

    def answer(self) -> None:
        self.wire.answer_one()

    def outage(self) -> None:
        if self.wire.up:
            self.wire.cut()

    def part_outage(self) -> None:
        if self.wire.up:
            self.wire.cut_part(self.random.choice(self.channels))

    def part_back(self) -> None:
        if self.wire.up and self.wire.parts:
            self.wire.mend_part()

    def come_back(self) -> None:
        if self.wire.up:
            return
        if self.random.random() < 0.3:
            self.cache.empty()
        elif self.random.random() < 0.3 and not any(client.joining for client in self.clients):
            self.restore_an_older_copy()
        for _ in range(self.random.randint(0, 3)):
            self.publish()
        self.wire.mend()

    def restore_an_older_copy(self) -> None:
        # Within one epoch this shows only on channels that are watched: nobody can resume the others honestly.
        for channel in CHANNELS:
            self.cache.forget(channel, self.random.randint(1, 5))
            for client in self.clients:
                if channel not in client.member.groups:
                    client.replica.forget(channel)

    def tick(self) -> None:
        hz = self.random.choice(self.tiers)
        self.hub.tick(hz, self.random.randrange(PHASES[hz]), self.wire.now_ns)

    def time(self) -> None:
        self.wire.now_ns += self.random.randint(100, 2000) * 1_000_000
        self.hub.on_time(self.wire.now_ns)

    def subscribe(self) -> None:
        client = self.random.choice(self.clients)
        if client.member.gone:
            return
        wants = []
        for channel in self.random.sample(self.channels, self.random.randint(1, len(self.channels))):
            if channel in client.member.groups or channel in client.joining:
                continue
            since = None
            if self.random.random() < 0.7 and channel in client.replica.seq:
                since = Since(client.replica.epoch[channel], client.replica.seq[channel])
            else:
                client.replica.forget(channel)
            client.joining.add(channel)
            wants.append(Want(channel, self.random.choice(self.tiers), None, since))
        if wants:
            self.hub.join(client.member, wants, client.done, self.wire.now_ns)

    def unsubscribe(self) -> None:
        self.hub.leave(self.random.choice(self.clients).member, self.random.choice(self.channels), self.wire.now_ns)

    def retune(self) -> None:
        self.hub.retune(self.random.choice(self.clients).member, self.random.choice(self.tiers), self.wire.now_ns)

    def hide(self) -> None:
        self.hub.pause(self.random.choice(self.clients).member, self.random.random() < 0.5, self.wire.now_ns)

    def stall(self) -> None:
        self.hub.on_buffer(self.random.choice(self.clients).member, self.random.choice((0, 500)), self.wire.now_ns)

    def ask(self) -> None:
        client, channel = self.random.choice(self.clients), self.random.choice(self.channels)
        if self.hub.chores:
            return  # a session has one command at a time
        outcome = self.hub.position(client.member, channel, None)
        if outcome is not None and not outcome.error:
            snap = {"t": "snap", "ch": channel, "epoch": outcome.epoch, "seq": outcome.seq}
            client.replica.take(json.dumps({**snap, "data": json.loads(bytes(outcome.data))}).encode())

    def settle(self) -> None:
        """Everything arrives, everybody reads: now all must be equal."""
        for client in self.clients:
            client.fills = client.ends = 0
        self.wire.settle()
        self.reconnect()
        for client in self.clients:
            self.hub.on_buffer(client.member, 0, self.wire.now_ns)
            self.hub.pause(client.member, False, self.wire.now_ns)
        for hz in TIERS:
            for phase in range(PHASES[hz]):
                self.hub.tick(hz, phase, self.wire.now_ns)
        self.wire.settle()
        for client in self.clients:
            client.fills, client.ends = self.random.choice((0, 0, 0.1, 0.5)), self.random.choice((0, 0, 0.02))
            assert not client.joining
            for channel in client.member.groups:
                self._same(client.replica, channel)

    def _same(self, replica: Replica, channel: str) -> None:
        docs = self.cache.docs.get(channel)
        if not docs:
            return
        assert replica.epoch[channel].rstrip("~") == self.cache.epoch
        if channel == TRADES:
            assert replica.seq[channel] == docs[-1].seq
            numbers = [event["id"] for event in replica.state[channel]]
            assert numbers == sorted(set(numbers)), "an event came twice, or out of order"
            missing = docs[-1].seq - numbers[0] + 1 - len(numbers)
            assert missing <= replica.lost.get(channel, 0), "an event was lost in silence"
        else:
            truth = json.loads(bytes(docs[-1].data))
            mine = {name: value for name, value in replica.state[channel].items() if value is not None or name in truth}
            assert mine == truth, channel


@given(seed=st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
def test_clients_see_the_upstream_by_an_unbroken_chain(seed: int) -> None:
    """Whatever interleaves, every client ends at the upstream's state, with no gap, no repeat and no silent loss."""
    Simulation(seed).run(steps=120)


@pytest.mark.parametrize("seed", range(60))
def test_long_runs_keep_the_chain(seed: int) -> None:
    """The same over longer lives of one hub."""
    Simulation(seed).run(steps=600)
