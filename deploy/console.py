"""Condenses what the children log, answer and exit with into the few lines a person reads. Pure: times are arguments."""

from __future__ import annotations

from typing import Any

import msgspec

SAME_LINE_S_MIN = 5.0  # a child that waits says so ten times a second; people are told every five
KINDS_KEPT_MAX = 200
LINE_BYTES_MAX = 64 * 1024
ERROR_MARK = "tapeline "


class Lines:
    """Chunks of a child's output in, whole lines out; a line without end is cut at 64 KiB."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[str]:
        """Return the lines completed by `chunk`."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            whole.append(self._rest)
            self._rest = b""
        return [line.decode(errors="replace") for line in whole]


class Story:
    """One child's lines in, what people are told out. News of the same kind is told once in five seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told_s: dict[str, float] = {}
        self.last: list[str] = []  # lines that are no log events: a traceback, or the one error line
        self.refusal: str | None = None  # the operator's line, when the child ended with one

    def read(self, line: str, now_s: float) -> str | None:
        """Return what to print for one line of the child, if anything."""
        event = _event(line)
        if event is None:
            if line.startswith(ERROR_MARK) and ": error: " in line:
                self.refusal = line
            self.last = [*self.last[-19:], line]
            return None
        kind = f"{event.get('component', self._name)}: {event['event']} {event.get('dependency', '')}"
        text = _told(event)
        if text is None or now_s - self._told_s.get(kind, -SAME_LINE_S_MIN) < SAME_LINE_S_MIN:
            return None
        if len(self._told_s) >= KINDS_KEPT_MAX:
            self._told_s.clear()
        self._told_s[kind] = now_s
        return f"{event.get('component', self._name)}: {text}"


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) and "event" in found else None


def _told(event: dict[str, Any]) -> str | None:
    if event["event"] == "waiting_for_dependency":
        return f"waiting for {event.get('dependency')}: {event.get('error')}. {event.get('fix', '')}".rstrip(". ")
    if event.get("level") in ("warning", "error", "critical"):
        hidden = ("event", "level", "timestamp", "component", "exception")
        facts = " ".join(f"{key}={value}" for key, value in event.items() if key not in hidden)
        return f"{event['event'].replace('_', ' ')} {facts}".strip()
    return None


class Readiness:
    """Answers of /readyz in, changes worth telling out: unready twice in a row is news, a single miss is not."""

    def __init__(self) -> None:
        self._missed: dict[str, int] = {}  # answers in a row that were not "ready", by component that was ready once
        self._told: dict[str, str] = {}

    def hear(self, component: str, reasons: list[str]) -> str | None:
        """Take the reasons of one answer (none: ready) and return a line when it is news.

        Before a component was ready for the first time nothing is: starting takes a moment.
        """
        if not reasons:
            self._missed[component] = 0
            return f"{component}: ready again" if self._told.pop(component, None) else None
        if component not in self._missed:
            return None
        self._missed[component] += 1
        text = "; ".join(reasons)
        if self._missed[component] < 2 or self._told.get(component) == text:
            return None
        self._told[component] = text
        return f"{component}: not ready: {text}"


def restart_pause_s(deaths: int) -> float:
    """Return the pause before the start after `deaths` deaths in a row: 0.2 s doubling to 10 s."""
    return float(min(10.0, 0.2 * 2 ** min(max(deaths, 1) - 1, 10)))


def progress(events: int, rate: float, percent: float | None) -> str:
    """Return the replay's progress line."""
    done = "" if percent is None else f" ({percent:.0f} %)"
    return f"replay: {events:,} events{done}, {rate:,.0f} events/s"
