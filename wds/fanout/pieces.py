"""Cuts what one round has to say into writes of bounded size, and stops in between when a client cannot take more.

Invariant: a piece is written whole or not at all; of what was not written the client's place in each chain is put back, so that
it is told later. One client's buffer is therefore never above the ladder's mark plus one piece plus one frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple, Protocol

from wds.protocol import Hz

FRAMES_MAX = 256  # in one array: a slow reader gets whole frames early instead of one large one late
PIECE_BYTES = 32_768
ARRAYS = (b"[{", b"[[")  # a payload of several items; an item of the compact form alone begins with its number
FRAME = itemgetter(0)

Wrap = Callable[[bytes], bytes]


class Cursor(NamedTuple):
    """How far a client came in a channel; life 0 = nothing yet."""

    life: int
    seq: int


class Recipient(Protocol):
    """A client as a group sees it: whether frames may be written to it now, and the way to do so (never blocks)."""

    ready: bool
    write: Callable[[bytes], None]

    def loosen(self, round_: tuple[Hz, int]) -> None:
        """Note that the set of groups of this round which write to it at once has changed."""


class Chain(Protocol):
    """Who keeps the members' places."""

    def rewind(self, member: Recipient, before: Cursor) -> None: ...


class Part(NamedTuple):
    """One frame of a chain, and where its readers stood before it."""

    frame: bytes
    chain: Chain
    before: Cursor


class Piece(NamedTuple):
    """One write: whole WebSocket frames, and the parts in them."""

    blob: bytes
    parts: Sequence[Part]


def cut(parts: Sequence[Part], wrap: Wrap) -> list[Piece]:
    """Return the parts, in order, as writes of about PIECE_BYTES at most."""
    if len(parts) <= FRAMES_MAX:
        whole = in_array(list(map(FRAME, parts)))
        if len(whole) <= PIECE_BYTES or len(parts) == 1:
            return [Piece(wrap(whole), parts)]
    pieces, start, size = [], 0, 0
    for at, part in enumerate(parts):
        size += len(part.frame)
        if size >= PIECE_BYTES or at + 1 - start >= FRAMES_MAX or at + 1 == len(parts):
            some = parts[start : at + 1]
            pieces.append(Piece(wrap(in_array([one.frame for one in some])), some))
            start, size = at + 1, 0
    return pieces


def hand_over(member: Recipient, pieces: Sequence[Piece]) -> None:
    """Write the pieces as long as the client takes them; put its chains back for the rest."""
    for at, piece in enumerate(pieces):
        if not member.ready:
            for rest in reversed(pieces[at:]):
                for part in reversed(rest.parts):  # the earliest place of a chain is the last one that is set
                    part.chain.rewind(member, part.before)
            return
        member.write(piece.blob)


def in_array(frames: Sequence[bytes]) -> bytes:
    """Return one payload that holds all frames in order: a frame alone as it is, several as a JSON array.

    A frame that is an array of items already (events of one tick) joins with what is in it: a payload is one item, or an array of
    items.
    """
    if len(frames) == 1:
        return frames[0]
    return b"[" + b",".join([frame[1:-1] if frame[:2] in ARRAYS else frame for frame in frames]) + b"]"


def in_arrays(frames: Sequence[bytes]) -> Iterator[bytes]:
    """Yield payloads that hold all frames in order, at most FRAMES_MAX in one."""
    for start in range(0, len(frames), FRAMES_MAX):
        yield in_array(frames[start : start + FRAMES_MAX])


class Pile:
    """Frames for one member alone, written together as soon as they are a piece."""

    __slots__ = ("_frames", "_member", "_size", "_wrap", "written")

    def __init__(self, member: Recipient, wrap: Wrap) -> None:
        self.written = 0
        self._member = member
        self._wrap = wrap
        self._frames: list[bytes] = []
        self._size = 0

    def add(self, frames: Sequence[bytes]) -> None:
        """Add frames, which are as good as written: `ready` must be asked before they are made."""
        for frame in frames:
            self._frames.append(frame)
            self._size += len(frame)
            if self._size >= PIECE_BYTES or len(self._frames) >= FRAMES_MAX:
                self.flush()

    def flush(self) -> None:
        """Write what is there."""
        if self._frames:
            frames, self._frames, self._size = self._frames, [], 0
            self.written += len(frames)
            self._member.write(self._wrap(in_array(frames)))
