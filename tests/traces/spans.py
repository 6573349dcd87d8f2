"""Keeps the spans of a trace in a list, for tests of what a component tells and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Kept:
    """A span; `end_ns` 0 = it has not ended."""

    name: str
    parent: str | None
    start_ns: int
    context: str
    attributes: dict[str, Any]
    end_ns: int = 0

    def end(self, end_ns: int, **attributes: Any) -> str:
        """End it."""
        self.end_ns = end_ns
        self.attributes |= attributes
        return self.context


@dataclass
class Spans:
    """Takes the place of a tracer: every span that was begun, and which calls of `draws` say yes."""

    every: int = 1
    kept: list[Kept] = field(default_factory=list)
    asked: int = 0

    def draws(self) -> bool:
        """Say yes each `every`-th time, the first time too."""
        self.asked += 1
        return (self.asked - 1) % self.every == 0

    def begin(self, name: str, parent: str | None, start_ns: int, **attributes: Any) -> Kept:
        """Keep a span."""
        made = Kept(name, parent, start_ns, f"00-{1:032x}-{len(self.kept) + 1:016x}-01", attributes)
        self.kept.append(made)
        return made

    def span(self, name: str, parent: str | None, start_ns: int, end_ns: int, **attributes: Any) -> str:
        """Keep a span that is over."""
        return self.begin(name, parent, start_ns, **attributes).end(end_ns)

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.kept]
