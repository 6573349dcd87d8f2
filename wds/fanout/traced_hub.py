"""A hub that tells a tracer how long documents of a trace take from their arrival to the first subscribers of their channels.

Used in the place of `Hub` only where traces are made. Times come from `wall_ns`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from mdc.documents import Doc
from wds.fanout.cohort import Cork
from wds.fanout.group import Group
from wds.fanout.hub import Hub
from wds.protocol import Hz

FOLLOWED_MAX = 100  # channels of one trace; its flush may have thousands of documents


class Ending(Protocol):
    """A span that has begun."""

    context: str

    def end(self, end_ns: int, **attributes: Any) -> str:
        """End it at this wall clock."""


class Spans(Protocol):
    """What is needed of a tracer."""

    def begin(self, name: str, parent: str | None, start_ns: int, **attributes: Any) -> Ending:
        """Begin a span."""


class TracedHub(Hub):
    """`wds.fanout` lasts for the call that takes the documents, `wds.push` from a group's flush until its frames are written.

    Of each channel the first group that is flushed is told: raw subscribers at once, those of a rate at its next tick.
    """

    def __init__(self, *args: Any, spans: Spans, wall_ns: Callable[[], int], **more: Any) -> None:
        super().__init__(*args, **more)
        self._spans = spans
        self._wall_ns = wall_ns
        self._followed: dict[str, str] = {}  # channel → context of the fan-out that its next frames belong to
        self._pushes: list[tuple[Ending, Group]] = []

    def on_docs(self, docs: Iterable[Doc], now_ns: int) -> None:
        docs = list(docs)
        drawn = {doc.ch: doc.trace for doc in docs if doc.trace is not None and doc.ch in self._topics}
        if not drawn:
            super().on_docs(docs, now_ns)
            self._end_pushes()
            return
        parent = next(iter(drawn.values()))
        span = self._spans.begin("wds.fanout", parent, self._wall_ns(), documents=len(docs), channels=len(drawn))
        self._followed = dict.fromkeys([name for name, trace in drawn.items() if trace == parent][:FOLLOWED_MAX], span.context)
        super().on_docs(docs, now_ns)
        self._end_pushes()
        span.end(self._wall_ns())

    def tick(self, hz: Hz, phase: int, now_ns: int) -> None:
        super().tick(hz, phase, now_ns)
        self._end_pushes()

    def _flush(self, group: Group, cork: Cork | None = None) -> None:
        parent = self._followed.pop(group.channel.name, None) if self._followed else None
        if parent is not None:
            about = {"channel": group.channel.name, "hz": str(group.hz), "seq": group.channel.seq}
            self._pushes.append((self._spans.begin("wds.push", parent, self._wall_ns(), **about), group))
        super()._flush(group, cork)

    def _end_pushes(self) -> None:
        # Frames of one turn are written together, at its end.
        if self._pushes:
            now_ns = self._wall_ns()
            for span, group in self._pushes:
                span.end(now_ns, subscribers=len(group.fast) + len(group.late))
            self._pushes.clear()
