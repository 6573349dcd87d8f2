"""Turns the numbers of a source's status event into Prometheus metrics."""

from __future__ import annotations

from typing import Any

from service import metrics

STATES = ("connecting", "live", "refused", "stopped", "standby", "ended")
BY = ["source"]
COUNTED = {
    name: metrics.counter("mdl", what, help_, BY)
    for name, what, help_ in (
        ("received_frames", "received_frames", "frames that arrived from the feed"),
        ("received_events", "received_events", "events in those frames"),
        ("dropped_events", "dropped_events", "events given up: too old, or no room while the broker was slow"),
        (
            "feed_dropped_frames",
            "feed_dropped_frames",
            "frames the feed gave up itself, holes in what the exchange kept",
        ),
        ("malformed", "malformed_events", "frames, events and tape lines that could not be read"),
        ("reconnects", "reconnects", "connections to the vendor tried again"),
        ("published_events", "published_events", "events the broker has confirmed"),
    )
}
MEASURED = {
    "buffer_bytes": metrics.gauge("mdl", "buffer_bytes", "frames waiting to be routed", BY),
    "buffer_age_ms": metrics.gauge("mdl", "buffer_age_ms", "age of the oldest of them", BY),
    "recording": metrics.gauge("mdl", "recording", "1 while frames are recorded", BY),
}
feed_state = metrics.gauge("mdl", "feed_state", "1 for the state the feed is in", [*BY, "state"])


class Pulse:
    """Turns totals since the start into increments, since a process may hold more than one listener over time."""

    def __init__(self, source: str) -> None:
        self.state = ""
        self._source = source
        self._before = dict.fromkeys(COUNTED, 0)

    def beat(self, facts: dict[str, Any]) -> None:
        """Bring the metrics up to the facts of one status event."""
        for name, counter in COUNTED.items():
            counter.labels(self._source).inc(max(0, facts[name] - self._before[name]))
            self._before[name] = facts[name]
        for name, gauge in MEASURED.items():
            gauge.labels(self._source).set(facts[name])
        self.state = facts["state"]
        for state in STATES:
            feed_state.labels(self._source, state).set(state == self.state)
