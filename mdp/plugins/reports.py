"""Writes what plug-ins report, `ownlog:NAME:SYMBOL`: each report once, in the order of the events. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mdc.writer import Flush
from mdp.analyzer import Analyzer, Outlet

REPORTS_MAX = 10_000  # of a partition, between two flushes
TS_MAX = 2**53  # what a browser reads exactly


class Unusable(Exception):
    """What a plug-in gave cannot be used."""


class Reports(Analyzer):
    """Holds the reports of one plug-in until their symbol's next flush. It hears no events."""

    def __init__(self, plugin: str) -> None:
        super().__init__()
        self.name = f"ownlog:{plugin}"
        self.outlet = self._out = Outlet(self.name)
        self._waiting: dict[str, list[tuple[int, bytes]]] = {}
        self._count = 0

    def add(self, symbol: str, ts: int, body: bytes) -> None:
        """Take a report.  Raises: Unusable when there are too many, or its time is none."""
        if not 0 <= ts < TS_MAX:
            raise Unusable(f"a report at {ts} ms")
        if self._count >= REPORTS_MAX:
            raise Unusable(f"more than {REPORTS_MAX} reports between two flushes")
        self._waiting.setdefault(symbol, []).append((ts, body))
        self._count += 1

    def drop(self) -> None:
        """Forget what is not in a flush: the state that has made it is gone."""
        self._waiting.clear()
        self._count = 0

    def collect(self, flush: Flush) -> None:
        if not (self._waiting or self._out.announce):
            return
        write = self._out.begin(flush)
        for symbol in flush.chosen(self._waiting.keys()):
            reports = self._waiting.pop(symbol)
            self._count -= len(reports)
            for ts, body in reports:
                write(symbol, ts, body)
            flush.checkpoint += (f"{self.name}:{symbol}", self._out.seq(symbol))

    def restore(self, cells: Iterable[tuple[str, bytes]]) -> None:
        for symbol, seq in cells:
            self._out.restore(symbol, int(seq))

    def resume(self, symbol: str, seq: int) -> None:
        self._out.restore(symbol, seq)

    def rewrite(self) -> None:
        self._out.announce = True

    def forget(self, symbol: str) -> None:
        self._count -= len(self._waiting.pop(symbol, ()))

    def restart(self, symbol: str) -> None:
        self.forget(symbol)
