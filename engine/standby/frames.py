"""Lays out what leader and standby say to each other on `/v1/replication`, one WebSocket message each.

The standby opens with `Hello`. The leader answers `Refusal` and closes, or `Status` and goes on with bytes: the first byte of a
binary message says what the rest is. A segment's bytes are those of the leader's file, so that both journals are alike byte for
byte. The standby says `Ack` whenever its disk has more, and after each `Status`. Before its `Hello` a standby may ask where its
journal and the leader's part (`Trace`): the answer is `Status`, then the links of the chain in the segment that it names.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

VERSION = 1
SEGMENT, DATA, FILE, KEYS = b"S", b"D", b"F", b"K"  # first index (8 bytes); journal; a part of a snapshot's file; the key file
CHAINS = b"C"  # 16 bytes for a segment's beginning and for each of its groups; nothing when there is no such segment
PART_BYTES = 1 << 20  # of one binary message, at most
MESSAGE_BYTES_MAX = 17 << 20  # a key file has up to 16 MB
PATH = "/v1/replication"
NOTHING = -2


class Frame(msgspec.Struct, frozen=True, tag_field="type", rename="camel"):
    """A message that is JSON."""


class Hello(Frame, frozen=True, tag="hello"):
    """Where a standby is: the last index, the chain and the first index of the last segment of its journal (-1 = nothing yet),
    and the highest term it knows of."""

    name: Annotated[str, msgspec.Meta(max_length=200)]
    term: int
    index: int
    chain: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    segment: int = -1
    version: int = VERSION


class Trace(Frame, frozen=True, tag="trace"):
    """Asks for the leader's term and the links of its segment that begins at index `segment`; -1 = for the term alone."""

    name: Annotated[str, msgspec.Meta(max_length=200)]
    term: int
    segment: int = -1
    version: int = VERSION


class Refusal(Frame, frozen=True, tag="refusal"):
    """Why nothing is sent; `term` is that of the engine which says so, `leader` whom it follows itself."""

    code: str
    detail: str
    term: int
    leader: str = ""


class Status(Frame, frozen=True, tag="status"):
    """Where the leader is; said at first, then every second. `wall_ns` is its clock's time."""

    term: int
    index: int
    wall_ns: int
    sync: bool


class FileEnd(Frame, frozen=True, tag="file"):
    """A file of the snapshot is complete; the exchange's is the first one, then each market's."""

    left: int  # files that follow


class Ack(Frame, frozen=True, tag="ack"):
    """The standby's disk has everything up to `index`; `NOTHING` while it is new and could not take over yet."""

    term: int
    index: int


# Why a standby is refused
NOT_THE_LEADER = "NotTheLeader"  # it is a standby itself, or does not take commands
TAKEN = "StandbyTaken"  # it has another standby
DIVERGED = "Diverged"  # the journals tell two histories
TOO_OLD = "TooOld"  # what follows is not in the leader's journal any more
DEPOSED = "Deposed"  # the standby knows of a later term: the one that says this stops
UNKNOWN_VERSION = "UnknownVersion"
FINAL = {DIVERGED, TOO_OLD, UNKNOWN_VERSION}  # asking again changes nothing

_FROM_LEADER: msgspec.json.Decoder[Status | Refusal | FileEnd] = msgspec.json.Decoder(Status | Refusal | FileEnd)
_FROM_STANDBY: msgspec.json.Decoder[Hello | Trace | Ack] = msgspec.json.Decoder(Hello | Trace | Ack)
_ENCODER = msgspec.json.Encoder()


class Unreadable(Exception):
    """A message is none of these."""


def encode(frame: Frame) -> str:
    """Return a message's text."""
    return _ENCODER.encode(frame).decode()


def from_leader(text: str) -> Status | Refusal | FileEnd:
    """Return what a leader says.  Raises: Unreadable."""
    try:
        return _FROM_LEADER.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Unreadable(f"the leader says what this version does not understand: {error}") from None


def from_standby(text: str) -> Hello | Trace | Ack:
    """Return what a standby says.  Raises: Unreadable."""
    try:
        return _FROM_STANDBY.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Unreadable(f"the standby says what this version does not understand: {error}") from None
