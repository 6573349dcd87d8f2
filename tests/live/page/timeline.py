"""Records what a page's main thread does, as the browser's own tracing tells it, and sums it up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page

from tests.waiting import until_sync

CATEGORIES = ["devtools.timeline", "disabled-by-default-devtools.timeline", "blink"]
SCRIPT = ("FunctionCall", "EvaluateScript", "FireAnimationFrame", "TimerFire")
LAYERS = "PaintArtifactCompositor::Update"  # the page is cut into layers anew


class Timeline:
    """The complete events of one recording: of the thread that ran the page's scripts."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []

    def take(self, events: list[dict[str, Any]]) -> None:
        """Add what the browser sends."""
        self._events += events

    @property
    def main(self) -> list[dict[str, Any]]:
        """Return the main thread's events by their start: `name`, `ts`, `dur` and the thread's own time `tdur`, in µs."""
        threads: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
        for event in self._events:
            if event.get("ph") == "X":
                threads[event["pid"], event["tid"]].append(event)
        busiest = max(threads.values(), key=lambda events: sum(event["name"] == "FunctionCall" for event in events))
        return sorted(busiest, key=lambda event: event["ts"])

    def cpu_ms(self, *names: str) -> float:
        """Return the processor time of these events, in milliseconds. They must not lie in each other."""
        return float(sum(event.get("tdur", event.get("dur", 0)) for event in self.main if event["name"] in names)) / 1000

    def count(self, name: str) -> int:
        return sum(event["name"] == name for event in self.main)

    def forced_layouts(self) -> int:
        """Count the layouts that a script waited for: those that began while one was running."""
        end, forced = 0.0, 0
        for event in self.main:
            if event["name"] in SCRIPT:
                end = max(end, event["ts"] + event.get("dur", 0))
            elif event["name"] == "Layout":
                forced += event["ts"] < end
        return forced


@contextmanager
def recorded(browser: Browser, page: Page) -> Iterator[Timeline]:
    """Record while the block runs; the timeline is complete afterwards."""
    timeline, done = Timeline(), list[bool]()
    session = browser.new_browser_cdp_session()
    session.on("Tracing.dataCollected", lambda sent: timeline.take(sent["value"]))
    session.on("Tracing.tracingComplete", lambda _: done.append(True))
    session.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": {"includedCategories": CATEGORIES}})
    yield timeline
    session.send("Tracing.end")
    until_sync(lambda: page.wait_for_timeout(50) or done, 20, "the recording")
    session.detach()
