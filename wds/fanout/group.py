"""Sends one channel at one rate and field set to all its members, as the same bytes.

Invariant: `fast` members have received exactly what leads to (`life`, `seq`); `late` ones stand at their own cursor and
are brought to the group's position by frames of their own as soon as they can be written to. Nobody waits for anybody.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from zlib import crc32

import msgspec
from msgspec import Raw

from wds.fanout import delta
from wds.fanout.channel import Channel, Entry
from wds.fanout.cohort import Cohort, Cork
from wds.fanout.compact import Form, packer
from wds.fanout.delta import Board
from wds.fanout.pieces import PIECE_BYTES, Cursor, Part, Recipient, cut, hand_over, in_array
from wds.protocol import PHASES, Event, Hz, Lost, Num, Rows, Snap, Upd, encode

EVENTS_PER_FRAME_MAX = 200
NOWHERE = Cursor(0, 0)
_numbers = itertools.count()


class Sent(NamedTuple):
    """What a flush did, for the metrics."""

    frames: int
    conflated: int
    lost: int


Key = tuple[Hz, frozenset[str] | None, Form]


class Group:
    """The members of one (channel, hz, fields, form). Starts at the channel's current state."""

    __slots__ = (
        "_full",
        "_packer",
        "_unnumbered",
        "_writes",
        "channel",
        "cohorts",
        "data",
        "epoch",
        "fast",
        "hz",
        "key",
        "late",
        "life",
        "lost",
        "number",
        "phase",
        "round",
        "seq",
        "state",
        "ts",
        "wanted",
        "wrap",
    )

    def __init__(self, channel: Channel, hz: Hz, wanted: frozenset[str] | None, form: Form) -> None:
        self.number = next(_numbers)  # an order among groups, for cohorts
        self.key: Key = (hz, wanted, form)
        self.channel = channel
        self.hz = hz
        self.phase = crc32(channel.name.encode()) % PHASES[hz]
        self.round = (hz, self.phase)
        self.wanted = wanted
        self.wrap = form.wrap
        self._packer = packer(channel.kind, form.base_ms) if form.compact else None
        self._unnumbered: set[Recipient] = set()  # late ones that do not know the channel's number, in the compact form
        self.life = 0
        self.epoch = ""
        self.seq = 0
        self.ts = 0
        self.lost = 0
        self.data = b""
        self.state: Board | dict[str, Raw] = {}
        self.fast: dict[Recipient, Callable[[bytes], None]] = {}
        self.cohorts: dict[Cohort, None] = {}  # who hears of it in a round
        self.late: dict[Recipient, Cursor] = {}
        self._writes: list[Callable[[bytes], None]] | None = None
        self._full: bytes | None = None
        if channel.warm and channel.life:
            with contextlib.suppress(msgspec.DecodeError):  # a poisoned state: begin with the next one
                self._take()

    @property
    def empty(self) -> bool:
        return not self.fast and not self.late

    def _take(self) -> None:
        channel = self.channel
        if channel.kind.mode != "event":
            self.state = self._picked()  # may raise, and then nothing has moved
            self.data = channel.data
        self.life, self.epoch, self.seq, self.ts = channel.life, channel.shown_epoch, channel.seq, channel.ts
        self._full = None

    def _picked(self) -> Board | dict[str, Raw]:
        state = self.channel.state
        if self.wanted is None:
            return state
        return delta.pick_rows(state, self.wanted) if isinstance(state, Board) else delta.pick(state, self.wanted)

    # Members

    def join(self, member: Recipient, cursor: Cursor, history: Raw | None = None) -> list[bytes]:
        """Add a member that stands at `cursor`; return the frames that bring it here (none while it is not ready)."""
        self.late[member] = cursor
        if self._packer is not None:
            self._unnumbered.add(member)
        return self.catch_up(member, history)

    def part(self, member: Recipient) -> Cursor:
        """Remove a member; return how far it came."""
        cursor = self.late.pop(member, None)
        self._unnumbered.discard(member)
        if cursor is None and self._slow(member):
            cursor = Cursor(self.life, self.seq)
        return cursor or NOWHERE

    def _slow(self, member: Recipient) -> bool:
        if self.fast.pop(member, None) is None:
            return False
        self._writes = None
        member.loosen(self.round)
        return True

    def demote(self, member: Recipient) -> None:
        """Take a slow or paused member off the fast list; it keeps its place in the chain."""
        if self._slow(member):
            self.late[member] = Cursor(self.life, self.seq)

    def place(self, member: Recipient) -> int | None:
        """Return up to which seq of this life the member was written everything; None when nothing yet."""
        cursor = self.late.get(member, Cursor(self.life, self.seq))
        return cursor.seq if self.life and cursor.life == self.life else None

    def rewind(self, member: Recipient, before: Cursor) -> None:
        """Put a demoted member back to where it stood before a frame that was not written to it."""
        if member in self.late:
            self.late[member] = before

    def reset(self, member: Recipient) -> None:
        """The member was told this very position by other means (get): its chain goes on from here."""
        if member in self.late:
            self.late[member] = Cursor(self.life, self.seq)
            if member not in self._unnumbered:  # else it is told the number first, with the next change
                self.catch_up(member)

    def catch_up(self, member: Recipient, history: Raw | None = None) -> list[bytes]:
        """Return what brings a late, ready member nearer to the group's position; at it, it is on the fast list.

        Of many missed events only the first frame's worth comes: the caller asks again while the member takes more.
        """
        cursor = self.late[member]
        if not member.ready or (cursor.life == self.life and cursor.seq > self.seq):
            return []  # ahead: it came from a quicker tier and waits until the group has passed it
        if self.channel.kind.mode == "event" and cursor.life == self.life and cursor.seq < self.seq:
            frame, _, after = next(self._events(cursor.seq))
            if after < self.seq:
                self.late[member] = Cursor(self.life, after)
            else:
                self._hurry(member)
            return [*self._introduction(member), frame]
        self._hurry(member)
        if not self.life or cursor == (self.life, self.seq):
            return self._introduction(member) if self.life else []
        if cursor.life == self.life:
            return [*self._introduction(member), self._bridge(cursor.seq)]
        self._unnumbered.discard(member)  # the snap says it
        return [self.snap(history)]

    def _introduction(self, member: Recipient) -> list[bytes]:
        if member not in self._unnumbered:
            return []
        self._unnumbered.discard(member)
        return [encode(Num(self.channel.name, self.channel.number))]

    def _hurry(self, member: Recipient) -> None:
        del self.late[member]
        self.fast[member] = member.write
        self._writes = None
        member.loosen(self.round)

    def _bridge(self, prev: int) -> bytes:
        if isinstance(self.state, Board):
            return self._rows_frame(prev, self.state.rows, [], self.state.order)
        # The client may hold a field that has vanished since: what the state lacks of the catalogue's fields comes as null.
        absent = {name: delta.NULL for name in self._fields() if name not in self.state}
        return self._upd_frame(prev, {**self.state, **absent})

    def _fields(self) -> Iterable[str]:
        return self.channel.kind.fields if self.wanted is None else self.wanted & frozenset(self.channel.kind.fields)

    # Frames

    def flush(self, cork: Cork | None = None) -> Sent:
        """Bring the members from the last position to the channel's current state. Never awaits, never waits.

        With a `cork` the parts are laid there; who gave it writes each cohort's all at once, then brings up who is late.
        """
        parts = self._advance()
        written, held = len(parts) * len(self.fast), 0
        if cork is not None:
            if parts:
                cork.lay(self, parts)
            if self.late:
                cork.late[self] = cork.late.get(self, False) or bool(parts)
        else:
            self._hand_out(parts)
            held = self.bring_late(bool(parts))
        lost, self.lost = self.lost, 0
        return Sent(written, held, lost)

    def _hand_out(self, parts: list[Part]) -> None:
        if sum(len(part.frame) for part in parts) > PIECE_BYTES and len(parts) > 1:
            pieces = cut(parts, self.wrap)
            for member in list(self.fast):
                hand_over(member, pieces)
        elif parts:
            blob = b"".join([self.wrap(part.frame) for part in parts])
            # A member whose buffer fills in this loop leaves `fast` while we go on over the old list: its cursor is
            # already at the new position, and it does get these bytes.
            for write in self.writes():
                write(blob)

    def bring_late(self, spoke: bool) -> int:
        """Bring up the late members that can be written to; return how many had to be passed over when we spoke."""
        held = 0
        for member in list(self.late):
            while member.ready and member in self.late and (frames := self.catch_up(member)):
                for frame in frames:
                    member.write(self.wrap(frame))
            held += not member.ready
        return held if spoke else 0

    def writes(self) -> list[Callable[[bytes], None]]:
        """The fast members' write functions, listed once per change of membership."""
        if self._writes is None:
            self._writes = list(self.fast.values())
        return self._writes

    def _advance(self) -> list[Part]:
        channel = self.channel
        if not channel.warm or not channel.life or (self.life == channel.life and self.seq == channel.seq):
            return []
        before = Cursor(self.life, self.seq)
        if self.life != channel.life:
            self._take()
            return [Part(self.snap(None), self, before)]
        if channel.kind.mode == "event":
            self._take()
            return [Part(frame, self, Cursor(self.life, prev)) for frame, prev, _ in self._events(before.seq)]
        old, state = self.state, self._picked()
        frame = self._rows(before.seq, old, state) if isinstance(state, Board) else self._update(before.seq, old, state)
        return [] if frame is None else [Part(frame, self, before)]

    def _overtaken(self) -> bool:
        # A member that saw more than the group did may have seen a value that has changed back since: only passing its
        # seq lets it hear of that.
        return any(cursor.life == self.life and cursor.seq > self.seq for cursor in self.late.values())

    def _update(self, prev: int, old: Board | dict[str, Raw], new: dict[str, Raw]) -> bytes | None:
        assert isinstance(old, dict)
        changed = delta.changed(old, new)
        if not changed and not self._overtaken():
            return None  # the position stays too: the next change bridges from here
        self._take()
        return self._upd_frame(prev, changed)

    def _upd_frame(self, prev: int, data: dict[str, Raw]) -> bytes:
        if self._packer is not None and (packed := self._packer.change(self.channel.number, prev, self.seq, self.ts, data)):
            return packed
        return encode(Upd(self.channel.name, prev, self.seq, self.ts, data))

    def _rows(self, prev: int, old: Board | dict[str, Raw], new: Board) -> bytes | None:
        assert isinstance(old, Board)
        diff = delta.row_diff(old, new)
        if diff.empty and not self._overtaken():
            return None
        self._take()
        return self._rows_frame(prev, diff.set, diff.gone, diff.order)

    def _rows_frame(self, prev: int, rows: dict[str, Raw], gone: list[str], order: list[str] | None) -> bytes:
        channel = self.channel
        if self._packer is not None and (packed := self._packer.rows(channel.number, prev, self.seq, self.ts, rows, gone, order)):
            return packed
        told = msgspec.UNSET if order is None else order
        return encode(Rows(channel.name, prev, self.seq, self.ts, rows, gone or msgspec.UNSET, told))

    def _events(self, prev: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield frames of what comes after `prev`, each with the seq before and after it."""
        items: list[Event | Lost | bytes] = []
        size, before = 0, prev
        for entry in self.channel.since(prev, self.seq):
            if entry.seq > prev + 1:
                items.append(self._loss(entry.seq - prev - 1))
            data = self._event_data(entry)
            items.append(self._event_item(entry, data))
            size, prev = size + len(bytes(data)), entry.seq
            if size >= PIECE_BYTES or len(items) >= EVENTS_PER_FRAME_MAX:
                yield _one_or_all(items), before, prev
                items, size, before = [], 0, prev
        if prev < self.seq:
            items.append(self._loss(self.seq - prev))
        if items:
            yield _one_or_all(items), before, self.seq

    def _event_item(self, entry: Entry, data: Raw) -> Event | bytes:
        packed = self._packer and self._packer.event(self.channel.number, entry.seq, entry.ts, data)
        return packed or Event(self.channel.name, entry.seq - 1, entry.seq, entry.ts, data)

    def _loss(self, n: int) -> Lost:
        self.lost += n
        return Lost(self.channel.name, n)

    def _event_data(self, entry: Entry) -> Raw:
        return entry.data if self.wanted is None else delta.pick_encoded(entry.data, self.wanted)

    def snap(self, history: Raw | None) -> bytes:
        """Return the snap frame of the group's position."""
        n = self.channel.number if self._packer is not None else msgspec.UNSET
        return encode(Snap(self.channel.name, self.epoch, self.seq, self.ts, Raw(self.full(None, history)), n))

    def full(self, limit: int | None, history: Raw | None) -> bytes:
        """Return the group's state as JSON: at most `limit` rows, events or closed bars."""
        if self.channel.kind.mode == "event":
            return self._event_list(limit)
        if self._full is None:
            self._full = self.data if self.wanted is None else encode(self.state)
        if history is not None and (self.wanted is None or "history" in self.wanted):
            closed = bytes(history) if limit is None else delta.truncate_list(bytes(history), limit)
            return delta.with_field(self._full, "history", closed)
        if limit is not None and self.channel.kind.mode == "rows":
            return delta.truncate_board(self._full, limit)
        return self._full

    def _event_list(self, limit: int | None) -> bytes:
        keep = self.channel.kind.keep if limit is None else min(limit, self.channel.kind.keep)
        known = [entry for entry in self.channel.log if entry.seq <= self.seq]
        return encode([self._event_data(entry) for entry in known[-keep:]])


def _one_or_all(items: list[Any]) -> bytes:
    if any(isinstance(item, bytes) for item in items):
        return in_array([item if isinstance(item, bytes) else encode(item) for item in items])
    return encode(items[0] if len(items) == 1 else items)
