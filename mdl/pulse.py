"""The status event's numbers in, Prometheus metrics out."""

from __future__ import annotations

from typing import Any

from service import metrics

STATES = ("connecting", "live", "refused", "stopped", "standby", "ended")
COUNTED = {
    "received_frames": metrics.counter("mdl", "received_frames", "frames that arrived from the feed"),
    "received_events": metrics.counter("mdl", "received_events", "events in those frames"),
    "dropped_events": metrics.counter("mdl", "dropped_events", "events given up: too old, or no room while the broker was slow"),
    "feed_dropped_frames": metrics.counter(
        "mdl", "feed_dropped_frames", "frames the feed itself gave up, and holes in the messages the exchange kept for it"
    ),
    "malformed": metrics.counter("mdl", "malformed_events", "frames, events and tape lines that could not be read"),
    "reconnects": metrics.counter("mdl", "reconnects", "connections to the vendor tried again"),
    "published_events": metrics.counter("mdl", "published_events", "events the broker has confirmed"),
}
MEASURED = {
    "buffer_bytes": metrics.gauge("mdl", "buffer_bytes", "frames waiting to be routed"),
    "buffer_age_ms": metrics.gauge("mdl", "buffer_age_ms", "age of the oldest of them"),
    "recording": metrics.gauge("mdl", "recording", "1 while frames are recorded"),
}
feed_state = metrics.gauge("mdl", "feed_state", "1 for the state the feed is in", ["state"])


class Pulse:
    """Turns totals since the start into increments, since a process may hold more than one listener over time."""

    def __init__(self) -> None:
        self.state = ""
        self._before = dict.fromkeys(COUNTED, 0)

    def beat(self, facts: dict[str, Any]) -> None:
        """Bring the metrics up to the facts of one status event."""
        for name, counter in COUNTED.items():
            counter.inc(max(0, facts[name] - self._before[name]))
            self._before[name] = facts[name]
        for name, gauge in MEASURED.items():
            gauge.set(facts[name])
        self.state = facts["state"]
        for state in STATES:
            feed_state.labels(state).set(state == self.state)
