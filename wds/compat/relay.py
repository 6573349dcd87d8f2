"""Follows our channels for all clients of the original service's feeds, and pushes each change to them as one payload.

The relay is one member of the hub, whoever and however many follow: a change is translated and encoded once a feed, and every
follower is written the same bytes. Nothing of it is on the way of other clients' frames.

Invariant: no push is stored for a slow client. Of a feed that is a state it is owed the latest, of events those after the last
one it got that are still among the newest `EVENTS_KEPT`; both are written as soon as it reads again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from mdc.channels import kind_of
from wds.compat.feeds import Feed, find, hz_of
from wds.compat.payloads import FAULTS, RANGES, Ranges, read
from wds.fanout.framing import text_frame
from wds.fanout.hub import Hub
from wds.fanout.member import Member, Want
from wds.fanout.outbox import Ladder
from wds.protocol import encode

SLICE = 128  # pushes that are made before others have their turn: about 2 ms of quotes
EVENTS_KEPT = 100  # of a feed, for clients that fell behind; the original keeps as many alerts
WAITING_MAX = 20_000  # changes that wait to be pushed; the oldest gives way


class Item(Struct):
    """What is read of a frame of the hub's."""

    t: str
    ch: str = ""
    ts: int = 0
    data: Raw = Raw(b"")


class Stamp(Struct):
    """What is read of an event to know when it happened, ms."""

    ts: int = 0


_items = msgspec.json.Decoder(list[Item])
_item = msgspec.json.Decoder(Item)
_events = msgspec.json.Decoder(list[Raw])
_stamp = msgspec.json.Decoder(Stamp)


class Followed:
    """One feed that somebody follows. `made` counts its pushes; `kept` has an event feed's newest, a state's latest."""

    __slots__ = ("feed", "followers", "kept", "made", "waits")

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.followers: dict[Member, None] = {}
        self.made = 0
        self.kept: deque[bytes] = deque(maxlen=EVENTS_KEPT if feed.family.events else 1)
        self.waits = False  # its state has changed and is not pushed yet

    def after(self, got: int) -> list[bytes]:
        """Return the pushes that are kept of those after the first `got`."""
        return list(self.kept)[-min(self.made - got, len(self.kept)) :] if self.made > got else []


def _line(payload: bytes) -> bytes:
    """Return a payload as a line: several may come in one write. Its JSON may have line breaks, which would cut it in two."""
    if b"\n" in payload or b"\r" in payload:
        payload = payload.replace(b"\r", b" ").replace(b"\n", b" ")
    return payload + b"\n"


def _read_items(lines: bytes) -> Iterator[Item]:
    for line in lines.splitlines():
        if line[:1] == b"[":
            yield from _items.decode(line)
        else:
            yield _item.decode(line)


class Relay:
    """The feeds of one worker that somebody follows."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._member = Member(self._hear, Ladder(), _line)
        self._known = False  # to the hub
        self._feeds: dict[str, Followed] = {}
        self._told_by: dict[str, dict[str, Followed]] = {}  # channel → feeds that its changes make a push of
        self._uses: Counter[str] = Counter()
        self._joining: set[str] = set()
        self._began: set[str] = set()  # their first snapshot, which nobody is pushed, is there
        self._following: dict[Member, dict[str, Followed]] = {}
        self._owed: dict[Member, dict[Followed, int]] = {}  # how many of the feed's pushes it got
        self._waiting: deque[tuple[Followed, Raw | None]] = deque(maxlen=WAITING_MAX)
        self._pushing = False
        self._ranges: dict[str, Ranges] = {}
        self._seen_ms: dict[str, int] = {}  # of event channels: when the newest event that was heard of happened
        self._numbers: dict[str, tuple[int, int]] = {}  # bars: number and revision of the one in the making

    def __len__(self) -> int:
        return len(self._feeds)

    @property
    def channels(self) -> set[str]:
        """The channels whose changes are pushed now."""
        return self._began & self._member.groups.keys()

    def count(self, member: Member) -> int:
        """Return how many feeds a client follows."""
        return len(self._following.get(member, ()))

    def held(self) -> dict[str, int]:
        """Return how much is kept for clients: all of it goes with them."""
        return {
            "following": len(self._following), "owed": len(self._owed), "channels": len(self._member.groups),
            "joining": len(self._joining), "ranges": len(self._ranges), "seen": len(self._seen_ms),
        }  # fmt: skip

    # Clients

    def follow(self, member: Member, names: Sequence[str], now_ns: int) -> None:
        """Push the changes of these feeds to a client from now on."""
        mine = self._following.setdefault(member, {})
        channels: list[str] = []
        for name in names:
            feed = find(name)
            if feed is None or name in mine:
                continue
            followed = self._feeds.get(name)
            if followed is None:
                followed = self._feeds[name] = Followed(feed)
                self._told_by.setdefault(feed.channels[0], {})[name] = followed
                channels += feed.channels
                self._uses.update(feed.channels)
            followed.followers[member] = None
            mine[name] = followed
        self._join(dict.fromkeys(channels), now_ns)

    def unfollow(self, member: Member, names: Sequence[str]) -> None:
        """Push no more of these feeds to a client."""
        mine, owed = self._following.get(member, {}), self._owed.get(member, {})
        for name in names:
            followed = mine.pop(name, None)
            if followed is not None:
                followed.followers.pop(member, None)
                owed.pop(followed, None)
                if not followed.followers:
                    self._forget(followed)

    def drop(self, member: Member) -> None:
        """A client is gone."""
        if member in self._following:
            self.unfollow(member, list(self._following[member]))
            del self._following[member]
            self._owed.pop(member, None)

    def catch_up(self, member: Member) -> None:
        """A client reads again: write what it is owed, as far as it takes it."""
        owed = self._owed.get(member)
        while owed and member.ready:
            followed, got = next(iter(owed.items()))
            left = followed.after(got)
            self._hub.tally.lost += followed.made - got - len(left) if followed.feed.family.events else 0
            for at, frame in enumerate(left):
                if not member.ready:
                    owed[followed] = followed.made - len(left) + at
                    return
                member.write(frame)
                self._hub.tally.frames += 1
            owed.pop(followed, None)
        if not owed:
            self._owed.pop(member, None)

    # Channels

    def _join(self, channels: dict[str, None], now_ns: int) -> None:
        fresh = [name for name in channels if name not in self._member.groups and name not in self._joining]
        if not fresh:
            return
        if not self._known:
            self._known = True
            self._hub.add(self._member)
        self._joining.update(fresh)
        self._hub.join(self._member, [Want(name, hz_of(name)) for name in fresh], lambda _: self._joined(fresh), now_ns)

    def _joined(self, channels: list[str]) -> Callable[[], None]:
        def entered() -> None:
            self._joining.difference_update(channels)
            self._began.update(channels)
            for name in channels:
                self._let_go(name)

        return entered

    def _forget(self, followed: Followed) -> None:
        feed = followed.feed
        del self._feeds[feed.name]
        told = self._told_by[feed.channels[0]]
        del told[feed.name]
        if not told:
            del self._told_by[feed.channels[0]]
        self._uses.subtract(feed.channels)
        for channel in dict.fromkeys(feed.channels):
            if not self._uses[channel]:
                del self._uses[channel]
                self._let_go(channel)

    def _let_go(self, channel: str) -> None:
        # In a turn of its own: a client may end while the hub goes over the groups that this takes one from.
        if not self._uses[channel]:
            self._hub.chores.append(self._leave(channel))

    def _leave(self, channel: str) -> Iterator[None]:
        if not self._uses[channel] and channel not in self._joining:
            self._part(channel)
        return
        yield

    def _part(self, channel: str) -> None:
        self._hub.leave(self._member, channel, self._hub.now_ns)
        self._began.discard(channel)
        self._ranges.pop(channel, None)
        self._numbers.pop(channel, None)
        self._seen_ms.pop(channel, None)

    # What the hub says

    def _hear(self, lines: bytes) -> None:
        for item in _read_items(lines):
            if item.t == "event":
                self._seen_ms[item.ch] = max(item.ts, self._seen_ms.get(item.ch, 0))
                self._happened(item.ch, item.data)
            elif item.t in ("snap", "upd", "rows"):
                self._changed(item)
        if self._waiting and not self._pushing:
            self._pushing = True
            self._hub.chores.append(self._push())

    def _happened(self, channel: str, event: Raw) -> None:
        for followed in self._told_by.get(channel, {}).values():
            self._wait(followed, event)

    def _look_back(self, channel: str, events: Raw) -> None:
        # A list of events comes when the relay joins, which is nobody's news, and in a new life of the cache: then what happened
        # meanwhile stands in it, after what was written again.
        seen_ms = newest_ms = self._seen_ms.get(channel, 0)
        for event in _events.decode(events):
            try:
                ts = _stamp.decode(event).ts
            except msgspec.DecodeError:
                self._hub.tally.malformed += 1
                continue
            newest_ms = max(newest_ms, ts)
            if ts > seen_ms and channel in self._began:
                self._happened(channel, event)
        self._seen_ms[channel] = newest_ms

    def _changed(self, item: Item) -> None:
        channel, kind = item.ch, kind_of(item.ch)
        if kind.mode == "event":
            self._look_back(channel, item.data)
            return
        if kind.name == RANGES:
            self._see_range(channel, item)
        if item.t == "snap" and channel not in self._began:
            return  # the original pushes changes alone: who wants to begin with the state gets it
        for followed in self._told_by.get(channel, {}).values():
            if not followed.waits:
                followed.waits = True
                self._wait(followed, None)

    def _see_range(self, channel: str, item: Item) -> None:
        group = self._member.groups.get(channel)
        try:
            bar = read(RANGES, bytes(item.data) if item.t == "snap" or group is None else group.data)
        except msgspec.DecodeError:
            self._hub.tally.malformed += 1
            return
        before = self._numbers.get(channel)
        self._numbers[channel] = bar.i, bar.rev
        if item.t == "snap" or channel not in self._ranges:
            self._ranges[channel] = Ranges()
        self._ranges[channel].see(bar)
        missed = before is not None and (bar.i > before[0] + 1 or bar.rev != before[1])
        if missed and item.t == "upd":  # bars in between, or corrected ones: its history has them
            self._hub.chores.append(self._again(channel))

    def _again(self, channel: str) -> Iterator[None]:
        if self._uses[channel] and channel not in self._joining:
            known = self._ranges.get(channel, Ranges())  # good until the history is there
            self._part(channel)
            self._ranges[channel] = known
            self._join({channel: None}, self._hub.now_ns)
        return
        yield

    # Pushes

    def _wait(self, followed: Followed, data: Raw | None) -> None:
        if len(self._waiting) == WAITING_MAX:
            first, event = self._waiting.popleft()
            first.waits = first.waits and event is not None
            self._hub.tally.lost += event is not None
        self._waiting.append((followed, data))

    def _push(self) -> Iterator[None]:
        while self._waiting:
            for _ in range(min(SLICE, len(self._waiting))):
                followed, event = self._waiting.popleft()
                self._push_one(followed, event)
                if followed.feed.family.kind.mode == "rows":
                    break  # 500 rows take 6 ms
            yield
        self._pushing = False

    def _push_one(self, followed: Followed, event: Raw | None) -> None:
        followed.waits = followed.waits and event is not None
        if not followed.followers:
            return
        try:
            payload = self._payload(followed.feed, event)
            frame = b"" if payload is None else text_frame(encode(payload))
        except FAULTS:
            self._hub.tally.malformed += 1  # one poisoned document must not end the feeds of all
            return
        if frame:
            self._hand_out(followed, frame)

    def _hand_out(self, followed: Followed, frame: bytes) -> None:
        followed.made += 1
        followed.kept.append(frame)
        owed = False
        for member in tuple(followed.followers):
            if member.ready and followed not in self._owed.get(member, ()):
                member.write(frame)
                self._hub.tally.frames += 1
            else:
                owed = True
                self._owe(member, followed)
        if not owed and not followed.feed.family.events:
            followed.kept.clear()  # thousands of states, which nobody waits for

    def _owe(self, member: Member, followed: Followed) -> None:
        if not member.gone:
            self._owed.setdefault(member, {}).setdefault(followed, followed.made - 1)
            self._hub.tally.conflated += 1

    def _payload(self, feed: Feed, event: Raw | None) -> Any:
        kind = feed.family.kind.name
        first = self._state(feed.channels[0]) if event is None else read(kind, bytes(event))
        if first is None:
            return None
        return feed.family.shape(feed.symbol, [first, *(self._state(channel) for channel in feed.channels[1:])])

    def _state(self, channel: str) -> Any:
        if kind_of(channel).name == RANGES:
            return self._ranges.get(channel)
        group = self._member.groups.get(channel)
        return None if group is None or not group.life else read(group.channel.kind.name, group.data)
