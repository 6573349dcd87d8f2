"""Defines the Prometheus metrics of WDS: the names of everything it reports about itself."""

from __future__ import annotations

from service import metrics

BROADCAST_MS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 1000)

connections = metrics.gauge("wds", "connections", "open WebSocket connections")
subscriptions = metrics.gauge("wds", "subscriptions", "subscriptions of all connections")
channels = metrics.gauge("wds", "channels", "channels watched upstream")
slow_clients = metrics.gauge("wds", "slow_clients", "connections that are conflated or paused because they read too slowly")
buffer_bytes = metrics.gauge("wds", "buffer_bytes", "bytes written and not yet taken by the kernel, all connections")
fresh = metrics.gauge("wds", "fresh", "1 while clients are told live, 0 while stale or closed")
frames = metrics.counter("wds", "frames", "frames written to clients")
conflated = metrics.counter("wds", "conflated", "group frames that slow or paused clients did not get one by one")
lost = metrics.counter("wds", "lost_events", "events of event channels that were declared lost, once a group")
malformed = metrics.counter("wds", "malformed", "documents of the cache that are not what their kind says")
commands = metrics.counter("wds", "client_frames", "frames received from clients")
closes = metrics.counter("wds", "closes", "connections ended, by close code", ["code"])
refused = metrics.counter("wds", "refused", "connections refused before they began", ["why"])
reads_failed = metrics.counter("wds", "reads_failed", "snapshots that could not be read")
broadcast = metrics.histogram("wds", "broadcast_ms", "time to hand one round of frames to all sockets", buckets=BROADCAST_MS)
age = metrics.histogram("wds", "data_age_ms", "source time of a document to its frame handed to the sockets")
