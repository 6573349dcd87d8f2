"""Creates metrics named `tapeline_<component>_<what>_<unit>` (durations are histograms) and exports them for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY_MS = (1, 2, 5, 10, 20, 40, 60, 80, 100, 150, 200, 300, 500, 1000, 2000, 5000)


def counter(component: str, what: str, help_: str, labels: Sequence[str] = ()) -> Counter:
    """Return the process-wide counter `tapeline_<component>_<what>_total`, made on first use."""
    made: Counter = _once(Counter, f"tapeline_{component}_{what}", help_, labels)
    return made


def gauge(component: str, what: str, help_: str, labels: Sequence[str] = ()) -> Gauge:
    """Return the process-wide gauge `tapeline_<component>_<what>`, made on first use."""
    made: Gauge = _once(Gauge, f"tapeline_{component}_{what}", help_, labels)
    return made


def histogram(
    component: str, what: str, help_: str, labels: Sequence[str] = (), buckets: Sequence[float] = LATENCY_MS
) -> Histogram:
    """Return the process-wide histogram `tapeline_<component>_<what>`, made on first use."""
    made: Histogram = _once(Histogram, f"tapeline_{component}_{what}", help_, labels, buckets=buckets)
    return made


_made: dict[str, Any] = {}


def _once(kind: Any, name: str, help_: str, labels: Sequence[str], **more: Any) -> Any:
    # Components are built more than once in one process (tests, the embedded runner); Prometheus allows a name once.
    if name not in _made:
        _made[name] = kind(name, help_, labels, **more)
    return _made[name]


def exposition(registry: CollectorRegistry = REGISTRY) -> bytes:
    """Return all metrics of this process in the Prometheus text format."""
    return generate_latest(registry)


def total(counter: Counter) -> float:
    """Return what a counter has counted, over all its labels."""
    return float(sum(sample.value for metric in counter.collect() for sample in metric.samples if sample.name.endswith("_total")))
