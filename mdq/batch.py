"""Vendor events in, one queue message out and back: the body is a JSON array of the events with their bytes untouched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EVENTS_MAX = 500
EVENTS_GROWN_MAX = 2_000  # while the broker is slow or away batches grow up to this instead of becoming more
LINGER_NS = 5_000_000


class MalformedBatch(ValueError):
    """A queue message that is not a batch; the consumer counts it and goes on."""


@dataclass(slots=True)
class Batch:
    """Consecutive events of one (stream, partition).

    `seq` is the index of the first event, counted in events from 0 within the publisher's `epoch`, so that
    `next.seq - (seq + count)` is exactly the number of events lost between two batches. `first_ns` is when the oldest
    event was received, `sent_ns` when the batch was closed (wall clock, ns). `count` 0 is a mark: no events, but `seq`
    tells where the stream stands.
    """

    stream: str
    partition: int
    epoch: str
    seq: int
    count: int
    first_ns: int
    sent_ns: int
    body: bytes

    def headers(self) -> dict[str, Any]:
        """Return the message headers; with the body they are the whole batch."""
        return {
            "stream": self.stream,
            "partition": self.partition,
            "epoch": self.epoch,
            "seq": self.seq,
            "count": self.count,
            "first_ns": self.first_ns,
            "sent_ns": self.sent_ns,
        }


def new_epoch(wall_ns: int, dice: float) -> str:
    """Return a publisher's epoch: sorts by start time, two starts in one ms differ by `dice` (uniform in [0, 1))."""
    return f"{wall_ns // 1_000_000:011x}{int(dice * 0x10000):04x}"


def from_message(headers: dict[str, Any], body: bytes) -> Batch:
    """Return the batch of a queue message.  Raises: MalformedBatch."""
    try:
        return Batch(
            str(headers["stream"]), int(headers["partition"]), str(headers["epoch"]), int(headers["seq"]),
            int(headers["count"]), int(headers["first_ns"]), int(headers["sent_ns"]), body,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedBatch(f"batch headers: {error!r}") from None
