"""Keeps the consistent current state of one channel from its snapshots and documents.

Invariant: while `warm`, the state is a snapshot plus every document after it: nothing missing, nothing twice. Documents
that come while a snapshot is being read wait in `_pending`; what the snapshot already holds is dropped. `life` counts the
breaks of the chain (another epoch, a cache that went back in time): within one life `seq` only grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import msgspec
from msgspec import Raw

from mdc.channels import Kind
from mdc.documents import Doc, Snapshot
from wds.fanout.delta import Board, parse_board, parse_fields

Names = Mapping[str, Sequence[str]]  # kind → its known channels
EVENTS_MAX = 2000  # kept for conflated tiers and slow clients; past it they are told `lost`

_items = msgspec.json.Decoder(list[Raw])
_encoder = msgspec.json.Encoder()


class Entry(NamedTuple):
    """One event of an event channel."""

    seq: int
    ts: int
    data: Raw


class Moved(Enum):
    """What a document did to the channel."""

    NO = 0  # known already, or waiting for a snapshot
    YES = 1
    GAP = 2  # events are missing before it: the snapshot must be read again


class Channel:
    """The upstream side of one channel."""

    __slots__ = (
        "_again",
        "_parsed",
        "_pending",
        "data",
        "epoch",
        "history",
        "kind",
        "life",
        "log",
        "name",
        "number",
        "seq",
        "shown_epoch",
        "ts",
        "warm",
    )

    def __init__(self, name: str, kind: Kind, number: int = 0) -> None:
        self.name = name
        self.number = number  # in the compact form; never used again in this worker
        self.kind = kind
        self.epoch = ""
        self.shown_epoch = ""
        self.life = 0  # 0 = no data ever
        self.seq = 0
        self.ts = 0
        self.data = b""  # the full state of a merge or rows channel
        self.log: deque[Entry] = deque(maxlen=EVENTS_MAX)  # an event channel's newest events
        self.history: Raw | None = None  # closed bars, held only from a read until its waiters took them
        self.warm = False
        self._pending: list[Doc] = []
        self._parsed: Board | dict[str, Raw] | None = None
        self._again = False

    @property
    def state(self) -> Board | dict[str, Raw]:
        """The current state, parsed once a version and only when somebody looks. Never changed in place."""
        if self._parsed is None:
            self._parsed = self._parse(self.data)
        return self._parsed

    def reopen(self) -> None:
        """Updates may have been missed: hold documents back until the next snapshot."""
        self.warm = False
        self._pending.clear()
        self._again = False

    def apply(self, doc: Doc) -> Moved:
        """Take one document in upstream order."""
        if not self.warm:
            self._hold(doc)
            return Moved.NO
        same = doc.epoch == self.epoch
        if same and doc.seq <= self.seq:
            return Moved.NO
        if self.kind.mode == "event" and doc.seq != (self.seq + 1 if same else 1):
            self.reopen()
            self._hold(doc)
            return Moved.GAP
        self._adopt(doc.epoch, doc.seq, doc.ts, bytes(doc.data))
        return Moved.YES

    def _hold(self, doc: Doc) -> None:
        if self.kind.mode != "event":
            self._pending = [doc]  # a document is the whole state
            return
        self._pending.append(doc)
        if len(self._pending) > EVENTS_MAX:
            del self._pending[0]

    def install(self, snapshot: Snapshot | None) -> bool:
        """Take the snapshot that was read after watching began; return False when it must be read once more."""
        if not self._again and self._doubtful(snapshot):
            self._again = True
            return False
        if self.kind.mode == "event":
            self._install_events(snapshot)
        else:
            self._install_state(snapshot)
        self.reopen()
        self.warm = True
        return True

    def _doubtful(self, snapshot: Snapshot | None) -> bool:
        # The cache changed lives between snapshot and documents, or events between them were lost on the way: a second
        # read is younger than what is held now and settles it.
        if snapshot is not None and self._pending and self._pending[-1].epoch != snapshot.epoch:
            self._pending.clear()
            return True
        expected = snapshot.seq + 1 if snapshot is not None else 1
        for doc in self._pending if self.kind.mode == "event" else ():
            if doc.seq > expected:
                return True
            expected = max(expected, doc.seq + 1)
        return False

    def take_history(self, snapshot: Snapshot | None) -> None:
        """Take only the closed bars of a snapshot that was read while the channel is warm: its state is older than ours."""
        if snapshot is not None and snapshot.epoch == self.epoch:
            self.history = self._without_history(snapshot.data)[1]

    def _install_state(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            data, self.history = self._without_history(snapshot.data)
            if snapshot.epoch == self.epoch and snapshot.seq == self.seq and not self._holds(data):
                self.seq += 1  # a cache that lost its newest versions counts them anew: same seq, other content
            self._adopt(snapshot.epoch, snapshot.seq, snapshot.ts, data)
        for doc in self._pending:
            if doc.epoch != self.epoch or doc.seq > self.seq:
                self._adopt(doc.epoch, doc.seq, doc.ts, bytes(doc.data))

    def _holds(self, data: bytes) -> bool:
        return data == self.data or self._parse(data) == self.state

    def _parse(self, data: bytes) -> Board | dict[str, Raw]:
        return parse_board(data) if self.kind.mode == "rows" else parse_fields(data)

    def _without_history(self, data: bytes) -> tuple[bytes, Raw | None]:
        if not self.kind.keep:
            return data, None
        fields = parse_fields(data)
        history = fields.pop("history", None)
        return _encoder.encode(fields), history.copy() if history is not None else None

    def _adopt(self, epoch: str, seq: int, ts: int, data: bytes) -> None:
        if epoch != self.epoch or seq < self.seq:
            self._begin_life(epoch)
        elif seq == self.seq:
            return
        self.epoch, self.seq, self.ts = epoch, seq, ts
        if self.kind.mode == "event":
            self.log.append(Entry(seq, ts, Raw(data)))
        else:
            self.data = data
            self._parsed = None

    def _begin_life(self, epoch: str) -> None:
        # A cache that went back in time keeps its epoch; a client of before must not resume by a seq that now means
        # something else, so what clients are told differs.
        self.shown_epoch = f"{self.shown_epoch}~" if epoch == self.epoch else epoch
        self.life += 1
        self.log.clear()

    def _install_events(self, snapshot: Snapshot | None) -> None:
        epoch, found = _entries(snapshot)
        later = [doc for doc in self._pending if not epoch or doc.epoch == epoch]
        if later:
            epoch = later[-1].epoch
            found += [Entry(doc.seq, doc.ts, Raw(bytes(doc.data))) for doc in later if doc.epoch == epoch]
        if not found:
            return
        if epoch != self.epoch or (snapshot is not None and snapshot.seq < self.seq) or self._contradicts(found):
            self._begin_life(epoch)
        self._fill(found)
        self.epoch, self.seq, self.ts = epoch, self.log[-1].seq, self.log[-1].ts

    def _contradicts(self, found: Iterable[Entry]) -> bool:
        known = {entry.seq: entry.data for entry in self.log}
        return any(known.get(entry.seq, entry.data) != entry.data for entry in found)

    def _fill(self, found: Iterable[Entry]) -> None:
        known = {entry.seq: entry for entry in found}
        known.update({entry.seq: entry for entry in self.log})
        self.log.clear()
        self.log.extend(known[seq] for seq in sorted(known))

    def since(self, seq: int, until: int) -> list[Entry]:
        """Return the events after `seq` up to and with `until`; a jump in their seqs is a loss.  Cost: O(found)."""
        found: list[Entry] = []
        for entry in reversed(self.log):
            if entry.seq <= seq:
                break
            if entry.seq <= until:
                found.append(entry)
        found.reverse()
        return found

    def recovers(self, epoch: str, seq: int) -> bool:
        """Whether a client that stands at (epoch, seq) can go on without a snapshot."""
        if not self.life or epoch != self.shown_epoch or seq > self.seq:
            return False
        return self.kind.mode != "event" or len(self.since(seq, self.seq)) == self.seq - seq


def _entries(snapshot: Snapshot | None) -> tuple[str, list[Entry]]:
    if snapshot is None:
        return "", []
    items = _items.decode(snapshot.data)
    first = snapshot.seq - len(items) + 1
    return snapshot.epoch, [Entry(first + at, snapshot.ts, item) for at, item in enumerate(items)]
