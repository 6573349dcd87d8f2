"""Defines a queue message: a batch of one source's events, the body a JSON array of them with their bytes untouched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

EVENTS_MAX = 500
EVENTS_GROWN_MAX = 2_000  # while the broker is slow or away batches grow up to this instead of becoming more
LINGER_NS = 5_000_000
LINGER_GROWN_NS = 20_000_000  # at rates at which that brings more events into fewer messages, see linger.py
TRACE = "traceparent"
MARKET = "market"
SOURCE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")  # one vendor connection: stocks, crypto, options-2, exchange


class MalformedBatch(ValueError):
    """A queue message that is not a batch; the consumer counts it and goes on."""


@dataclass(slots=True)
class Batch:
    """Consecutive events of one source in one (stream, partition).

    `seq` is the index of the first event, counted in events from 0 within the `epoch` of the source, so that
    `next.seq - (seq + count)` is exactly the number of events lost between two batches. `first_ns` is when the oldest
    event was received, `sent_ns` when the batch was closed (wall clock, ns). `feed_ns` is the feed's own clock when the
    newest event was received: the wall clock of a live feed, the tape's time of a replay. `run` names one playing of a tape
    from its start (ms when it began), 0 is live; a batch never holds events of two. `count` 0 is a mark: no events, but
    `seq` tells where the stream stands.
    """

    source: str
    run: int
    stream: str
    partition: int
    epoch: str
    seq: int
    count: int
    first_ns: int
    sent_ns: int
    feed_ns: int
    body: bytes
    trace: str | None = None  # the W3C traceparent of a batch that was drawn for a trace, its publish the parent
    market: str = ""  # of which all events are, as the vendor calls it; empty = that does not follow from the feed

    def headers(self) -> dict[str, Any]:
        """Return the message headers; with the body they are the whole batch."""
        found = {
            "source": self.source,
            "run": self.run,
            "stream": self.stream,
            "partition": self.partition,
            "epoch": self.epoch,
            "seq": self.seq,
            "count": self.count,
            "first_ns": self.first_ns,
            "sent_ns": self.sent_ns,
            "feed_ns": self.feed_ns,
        }
        if self.trace is not None:
            found[TRACE] = self.trace
        if self.market:
            found[MARKET] = self.market
        return found


def _source(name: Any) -> str:
    if not isinstance(name, str) or not SOURCE.fullmatch(name):
        raise ValueError(f"source {name!r:.40} is no name")
    return name


def new_epoch(wall_ns: int, dice: float) -> str:
    """Return the epoch of a source without a lease: sorts by start time, two of one ms differ by `dice` (in [0, 1))."""
    return f"{wall_ns // 1_000_000:011x}{int(dice * 0x10000):04x}"


def began_ms(epoch: str) -> int:
    """Return when a tenure began by its epoch, 0 when it does not say."""
    try:
        return int(epoch[:-4], 16)
    except ValueError:
        return 0


def leased_epoch(fence: int) -> str:
    """Return the epoch of a tenure of the source's lease; `fence` grows with every tenure and is at least the ms it began."""
    return f"{fence:011x}0000"


def from_message(headers: dict[str, Any], body: bytes) -> Batch:
    """Return the batch of a queue message.  Raises: MalformedBatch."""
    try:
        return Batch(
            _source(headers["source"]), int(headers["run"]), str(headers["stream"]), int(headers["partition"]),
            str(headers["epoch"]), int(headers["seq"]), int(headers["count"]), int(headers["first_ns"]), int(headers["sent_ns"]),
            int(headers["feed_ns"]), body, headers.get(TRACE), str(headers.get(MARKET, "")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedBatch(f"batch headers: {error!r}") from None
