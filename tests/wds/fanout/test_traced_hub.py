"""What the traced hub tells of documents of a trace, and that it delivers as the plain one does."""

from __future__ import annotations

import itertools

import msgspec

from mdc.documents import Doc
from tests.traces.spans import Spans
from tests.wds.upstream import Cache, Wire
from wds.fanout.freshness import Freshness
from wds.fanout.member import Member, Want
from wds.fanout.outbox import Ladder
from wds.fanout.traced_hub import TracedHub
from wds.protocol import PHASES, Hz

NAMES = ["quote:A", "quote:B"]
PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


class World:
    """A hub with one member that follows both quotes."""

    def __init__(self, hz: Hz) -> None:
        clock = itertools.count(1)
        self.spans, self.cache, self.written = Spans(), Cache(), list[bytes]()
        self.hub = TracedHub(lambda payload: payload, Freshness(1e9, 0), spans=self.spans, wall_ns=lambda: next(clock))
        self.wire = Wire(self.cache, self.hub)
        for name in NAMES:
            self.wire.publish(name, {"last": 0})
        member = Member(self.written.append, Ladder())
        self.hub.add(member)
        self.hub.join(member, [Want(name, hz) for name in NAMES], lambda _: lambda: None, 0)
        self.wire.settle()
        self.written.clear()

    def change(self, last: int, trace: str | None, names: list[str]) -> None:
        """Change quotes in one message of a flush with or without a trace."""
        for name in names:
            self.wire.publish(name, {"last": last})
        for doc in self.wire.flying:
            doc.trace = trace
        self.wire.deliver(100)


def test_the_first_push_of_each_channel_is_told() -> None:
    """Under the fan-out, which is under the flush; over when what the call wrote is written."""
    world = World("raw")
    world.change(1, PARENT, NAMES)
    assert world.spans.names == ["wds.fanout", "wds.push", "wds.push"]
    fanout, first, second = world.spans.kept
    assert (fanout.parent, first.parent, second.parent) == (PARENT, fanout.context, fanout.context)
    assert [first.attributes["channel"], second.attributes["channel"]] == NAMES
    assert first.attributes["subscribers"] == 1
    assert fanout.start_ns < first.start_ns < first.end_ns < fanout.end_ns
    assert b"trace" not in b"".join(world.written)
    world.change(2, None, NAMES)
    assert len(world.spans.kept) == 3


def test_a_rate_is_told_at_its_tick() -> None:
    """The push of a subscriber with 10 a second lasts until that tick has written."""
    world = World(10)
    world.change(1, PARENT, NAMES[:1])
    assert world.spans.names == ["wds.fanout"]
    for phase in range(PHASES[10]):
        world.hub.tick(10, phase, 200)
    assert world.spans.names == ["wds.fanout", "wds.push"]
    assert world.spans.kept[1].end_ns
    assert world.written


def test_nobody_looks_nothing_is_told() -> None:
    """Documents of channels that nobody follows belong to no push."""
    world = World("raw")
    doc = Doc("quote:Z", "e", 1, 1, msgspec.Raw(b"{}"), trace=PARENT)
    world.hub.on_docs([doc], 100)
    assert world.spans.kept == []
    assert world.written == []
