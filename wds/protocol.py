"""Defines protocol v1 as types: client commands and server frames. Unknown fields are ignored, absent ones are not sent.

This file is the contract; `asyncapi.yaml` and `schema.json` are generated from it (`python -m wds schema`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from service.errors import UNREADABLE

VERSION = 1
PATH = "/v1/stream"
EVENTS_PATH = "/v1/sse"
TICKET_PATH = "/v1/ticket"
COMPAT_PATH = "/ws"  # of the original service's browser app (`compat/`)
SUBPROTOCOL = "wds.v1.json"
CHANNEL_CHARS_MAX = 96
CHANNELS_PER_COMMAND_MAX = 500

Hz = Annotated[Literal["raw"] | float, Meta(extra_json_schema={"enum": ["raw", 10, 4, 1, 0.2]})]
HZ_DEFAULT: Hz = 4
TIERS: tuple[Hz, ...] = ("raw", 10, 4, 1, 0.2)
PERIOD_S: dict[Hz, float] = {10: 0.1, 4: 0.25, 1: 1.0, 0.2: 5.0}  # raw has no period: it sends as documents arrive
# A tier does not tick all at once: its channels are spread over so many phases of its period. A page of 2,600 quotes at 4 Hz
# got 1,300 updates in one lump, missed that frame and painted 46 a second; in five parts it keeps up.
PHASES: dict[Hz, int] = {"raw": 1, 10: 2, 4: 5, 1: 10, 0.2: 50}

Code = Literal[
    "bad_request",
    "unauthorized",
    "token_expired",
    "unknown_key",
    "forbidden",
    "unknown_channel",
    "already_subscribed",
    "limit",
    "rate_limited",
    "too_large",
    "unavailable",
    "internal",
]
RETRY: frozenset[Code] = frozenset({"rate_limited", "unavailable", "internal", "token_expired", "unknown_key"})

BAD_TOKEN = 4001
FORBIDDEN = 4003
NO_AUTH = 4008
TOO_MANY_CONNECTIONS = 4010
ABUSE = 4029
OVERLOAD = 4100
SLOW = 4108
NO_PONG = 4112
DRAINING = 4200
TOKEN_EXPIRED = 4201


class CloseCode(NamedTuple):
    """What a close code means and what a client does. `spread_ms` = the range of `after_ms`; None = it does not come back."""

    means: str
    client: str
    spread_ms: tuple[int, int] | None


CLOSE_CODES: dict[int, CloseCode] = {
    BAD_TOKEN: CloseCode(
        "bad token",
        "with after_ms (expired, or of a key not known here yet): reconnect with a fresh token; without: never",
        (500, 3000),
    ),
    FORBIDDEN: CloseCode("forbidden", "never reconnect", None),
    NO_AUTH: CloseCode("no auth in time", "reconnect after after_ms; have the token before", (500, 3000)),
    TOO_MANY_CONNECTIONS: CloseCode("too many connections", "reconnect after after_ms", (2000, 6000)),
    ABUSE: CloseCode("abuse", "reconnect after after_ms; keep to the limits in hello", (5000, 15_000)),
    OVERLOAD: CloseCode("overload", "reconnect after after_ms", (1000, 6000)),
    SLOW: CloseCode("slow client", "reconnect after after_ms; ask for less", (1000, 4000)),
    NO_PONG: CloseCode("no pong", "reconnect after after_ms", (200, 2000)),
    DRAINING: CloseCode("draining", "reconnect after after_ms and resume", (200, 5000)),
    TOKEN_EXPIRED: CloseCode("token expired", "reconnect after after_ms with a fresh token", (0, 1000)),
}
FINAL = frozenset({1002, 1009, BAD_TOKEN, FORBIDDEN})  # never reconnect, unless the bye before gave `after_ms`
STANDARD_CLOSE_CODES: dict[int, str] = {
    1000: "the client said goodbye",
    1002: "not WebSocket; never reconnect",
    1006: "the connection broke without a word; back off, then reconnect",
    1009: "a frame beyond four times the limit; never reconnect",
}

Id = Annotated[str, Meta(max_length=64)] | Annotated[int, Meta(ge=-(2**53), le=2**53)]
ChannelName = Annotated[str, Meta(min_length=1, max_length=CHANNEL_CHARS_MAX)]
Channels = Annotated[list[ChannelName], Meta(min_length=1, max_length=CHANNELS_PER_COMMAND_MAX)]
Fields = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=64)]
HzAsked = Annotated[str | float, Meta(extra_json_schema={"enum": ["raw", 10, 4, 1, 0.2, "10", "4", "1", "0.2"]})]


class Since(Struct, frozen=True):
    """Where a resuming client stands in a channel."""

    epoch: Annotated[str, Meta(max_length=64)]
    seq: Annotated[int, Meta(ge=0, le=2**53)]


class Auth(Struct, tag_field="op", tag="auth"):
    """Present a token; later again = refresh in place.

    `form` asks for the form of changes: `json`, or `compact`. It counts until something is subscribed. The reply says which
    one is in force; a server that does not know the word, or is older than it, stays with objects.
    """

    token: Annotated[str, Meta(min_length=1, max_length=8192)]
    form: Annotated[str, Meta(max_length=32)] | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class Sub(Struct, tag_field="op", tag="sub"):
    """Subscribe to channels, or to `kind:*`."""

    ch: Channels
    hz: HzAsked | UnsetType = UNSET
    fields: Fields | UnsetType = UNSET
    since: dict[ChannelName, Since] | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class Unsub(Struct, tag_field="op", tag="unsub"):
    """Leave channels, or everything a pattern joined."""

    ch: Channels
    id: Id | UnsetType = UNSET


class Get(Struct, tag_field="op", tag="get"):
    """Ask for snapshots without subscribing; also repairs a broken chain."""

    ch: Channels
    limit: Annotated[int, Meta(ge=1, le=1000)] | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class Set(Struct, tag_field="op", tag="set"):
    """Change the rate of everything, or pause it (a hidden tab)."""

    hz: HzAsked | UnsetType = UNSET
    paused: bool | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class Pong(Struct, tag_field="op", tag="pong"):
    """Answer to a ping."""

    id: Id | UnsetType = UNSET


Command = Auth | Sub | Unsub | Get | Set | Pong


class Envelope(Struct):
    """What of a malformed command still names it."""

    id: Any = UNSET


class Error(Struct, omit_defaults=True):
    """What went wrong; `retry` says whether the same command may succeed later."""

    code: Code
    message: str = ""
    retry: bool | UnsetType = UNSET
    after_ms: int | UnsetType = UNSET


class SubOutcome(Struct):
    """The outcome of one channel of sub or unsub. A pattern's own line says how many channels it `matched`."""

    ch: str
    hz: Hz | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET
    matched: int | UnsetType = UNSET
    error: Error | UnsetType = UNSET


class GetOutcome(Struct):
    """The outcome of one channel of get: a snapshot, or an error. A pattern has a line only when it was cut or refused."""

    ch: str
    epoch: str | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    ts: int | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    matched: int | UnsetType = UNSET
    error: Error | UnsetType = UNSET


class CompactKind(Struct):
    """How compact items of a kind are read: the frame they stand for, its fields in the order of the mask's bits from 1."""

    t: str
    fields: list[str]


class Reply(Struct):
    """The answer to the command with this `id`. `set` hears `state` and `reason` of the pipeline as a whole.

    `auth` that asked for a form hears which one is in force; of `compact` also its kinds, and `base_ms` that its `ts` count from.
    """

    id: Id | UnsetType
    ok: bool
    subs: list[SubOutcome] | UnsetType = UNSET
    snaps: list[GetOutcome] | UnsetType = UNSET
    expires_s: int | UnsetType = UNSET
    state: Literal["live", "stale", "closed"] | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    error: Error | UnsetType = UNSET
    form: Literal["json", "compact"] | UnsetType = UNSET
    base_ms: int | UnsetType = UNSET
    kinds: dict[str, CompactKind] | UnsetType = UNSET


class HelloLimits(Struct):
    """The limits a client should respect. A command costs 1, and 1 more for every `channels_per_cost` channels in it.

    `burst` may be spent at once, `commands_s` come back a second.
    """

    subs: int
    bytes: int
    commands_s: float
    burst: int
    channels: int  # in one command
    channels_per_cost: int


class Hello(Struct, tag_field="t", tag="hello"):
    """The first frame."""

    v: int
    conn: str
    ping_s: float
    limits: HelloLimits


class Snap(Struct, tag_field="t", tag="snap"):
    """A channel's whole state: the chain starts (again) at `seq`. Event channels: an array, oldest first.

    `n` is the channel's number on this connection, in the compact form.
    """

    ch: str
    epoch: str
    seq: int
    ts: int
    data: Raw
    n: int | UnsetType = UNSET


class Num(Struct, tag_field="t", tag="num"):
    """The channel's number in the compact form, when it resumes without a snap."""

    ch: str
    n: int


class Upd(Struct, tag_field="t", tag="upd"):
    """Changed fields of a merge channel since `prev`. A field that vanished comes as null."""

    ch: str
    prev: int
    seq: int
    ts: int
    data: dict[str, Raw]


class Rows(Struct, tag_field="t", tag="rows"):
    """Changed and deleted rows of a board since `prev`; `order` when it changed: rows not in it are gone."""

    ch: str
    prev: int
    seq: int
    ts: int
    set: dict[str, Raw]
    del_: list[str] | UnsetType = msgspec.field(default=UNSET, name="del")
    order: list[str] | UnsetType = UNSET


class Event(Struct, tag_field="t", tag="event"):
    """One event; never conflated. Several may come in one array frame."""

    ch: str
    prev: int
    seq: int
    ts: int
    data: Raw


class Lost(Struct, tag_field="t", tag="lost"):
    """`n` events of the channel will not come: the client's seq advances by `n`."""

    ch: str
    n: int


class Status(Struct, tag_field="t", tag="status"):
    """Whether the channel is fresh."""

    ch: str
    state: Literal["live", "stale", "closed"]
    reason: str = ""


class AuthExpiring(Struct, tag_field="t", tag="auth_expiring"):
    """Send `auth` with a fresh token within `in_s` seconds."""

    in_s: int


class Ping(Struct, tag_field="t", tag="ping"):
    """Answer with {"op":"pong"}."""

    ts: int


class Bye(Struct, tag_field="t", tag="bye"):
    """The server closes with `code`; reconnect after `after_ms` when given, and not at all when not."""

    code: int
    after_ms: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET


Push = Hello | Snap | Num | Upd | Rows | Event | Lost | Status | AuthExpiring | Ping | Bye

_encoder = msgspec.json.Encoder()
_command = msgspec.json.Decoder(Command)
_envelope = msgspec.json.Decoder(Envelope)
_items = msgspec.json.Decoder(list[Raw])


class BadCommand(Exception):
    """A command that cannot be understood; `id` is what it called itself, if that much could be read."""

    def __init__(self, message: str, id: Any = UNSET) -> None:
        super().__init__(message)
        self.id = id if isinstance(id, str | int) and not isinstance(id, bool) and len(str(id)) <= 64 else UNSET


def encode(frame: Any) -> bytes:
    """Return `frame` (or a list of frames) as JSON."""
    return _encoder.encode(frame)


def split(data: bytes) -> list[Any]:
    """Return the commands of one client frame, still encoded: one object, or each item of an array.

    Raises: BadCommand when it is neither.
    """
    if data.lstrip()[:1] != b"[":
        return [data]
    try:
        return list(_items.decode(data))
    except UNREADABLE as bad:
        raise BadCommand(f"not JSON: {bad}") from None


def decode(item: Any) -> Command:
    """Return one command.  Raises: BadCommand naming the fault and, where readable, the command's id."""
    try:
        command: Command = _command.decode(item)
        return command
    except msgspec.ValidationError as bad:
        raise BadCommand(str(bad), _id_of(item)) from None
    except UNREADABLE as bad:
        raise BadCommand(f"not JSON: {bad}") from None


def _id_of(item: Any) -> Any:
    try:
        return _envelope.decode(item).id
    except UNREADABLE:
        return UNSET


def tier(asked: Any) -> Hz | None:
    """Return the tier that a client's `hz` names (number or string), None when there is no such tier."""
    return next((hz for hz in TIERS if asked == hz or asked == str(hz)), None)


def error(code: Code, message: str = "", after_ms: int | UnsetType = UNSET) -> Error:
    """Return the error object of `code`; whether to retry follows from the code."""
    return Error(code, message[:300], code in RETRY, after_ms)
