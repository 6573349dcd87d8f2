"""Defines the contract that all feeds obey: `async for frame in feed`; a feed never looks inside what it passes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, NamedTuple, Protocol

State = Literal["connecting", "live", "refused", "stopped", "standby", "ended"]


class FeedRefused(Exception):
    """The vendor refused our key: trying again is useless until the key changes."""


class FeedClosed(ConnectionError):
    """The connection to the vendor is lost or could not be made; the feed tries again by itself."""


class Frame(NamedTuple):
    """What arrived in one piece, its bytes untouched, and when it arrived (wall clock, ns).

    Of a tape also: `feed_ns`, when it arrived at the recording (None = it is live), and `run`, the playing it belongs to.
    """

    data: bytes | str
    received_ns: int
    feed_ns: int | None = None
    run: int = 0


class Feed(Protocol):
    """`async for frame in feed` until the feed ends, is closed, or raises FeedRefused.

    `lossless` feeds wait while the listener has no room; `patient` ones, whose source keeps what we do not ask for, also while
    the broker is away; the others are never slowed. `market` and `subscriptions` say
    what is asked of the source; `state` and `reason` how it stands, `ailing` what of its data does not flow although it is live
    (empty: nothing); `reconnects` and `malformed` count since the start, `dropped_frames` also holes of unknown size.
    """

    name: str
    market: str
    subscriptions: tuple[str, ...]
    lossless: bool
    patient: bool
    state: State
    reconnects: int
    dropped_frames: int

    @property
    def reason(self) -> str: ...

    @property
    def ailing(self) -> str: ...

    @property
    def malformed(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[Frame]: ...

    async def close(self) -> None:
        """Give the source back; the iteration ends."""
