"""Works out from a tape what every channel must say after it, without any of the product's code; rules are those of mdp/README.md."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal, getcontext
from pathlib import Path
from typing import Any
from zlib import crc32

from tests.days.alerts import Alert, Gaps, Halts, Ranges, Volumes
from tests.days.boards import boards
from tests.days.calendar import TradingDay, day_of
from tests.days.conditions import Rule, rule_of
from tests.days.quote import Quote
from tests.days.windows import KEEPS, SLICE_MS, Bars, Windows, number, row, widened

getcontext().prec = 60
PARTITIONS, PRINTS = 8, 200
LATE_MS = 3_000


class Symbol:
    """Everything of one symbol."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.quote = Quote(known)
        self.windows = Windows()
        self.seconds, self.minutes = Bars(1_000, 10), Bars(60_000, 5)
        self.prints: list[dict[str, Any]] = []

    def histories(self) -> dict[str, list[list[Any]]]:
        """Return width → rows of the closed bars that are kept, and of the one in the making."""
        seconds, minutes = self.seconds.made(), self.minutes.made()
        fives = widened(minutes, lambda ts: ts - ts % 300_000)
        hours = widened(fives, lambda ts: ts - ts % 3_600_000)
        made = {
            "1s": seconds, "5s": widened(seconds, lambda ts: ts - ts % 5_000), "1m": minutes, "5m": fives, "1h": hours,
            "1d": widened(hours, lambda ts: day_of(ts).start),
        }  # fmt: skip
        return {width: [row(bar) for bar in bars[-KEEPS[width] - 1 :]] for width, bars in made.items()}


class Partition:
    """What the trades of the symbols of one partition have in common: the day, and the order of their alerts."""

    def __init__(self) -> None:
        self.alerts: dict[str, list[Alert]] = defaultdict(list)
        self.newest_ms = 0
        self.ranges, self.gaps, self.volumes, self.halts = (kind(self._tell) for kind in (Ranges, Gaps, Volumes, Halts))

    def _tell(self, channel: str, alert: Alert) -> None:
        self.alerts[channel].append(alert)

    def time(self, ts: int) -> TradingDay:
        """A trade has come; return the trading day."""
        self.newest_ms = max(self.newest_ms, ts)
        self.ranges.time(ts)
        return day_of(self.newest_ms)


class Oracle:
    """Goes over a tape once. `reference` = the operator's file."""

    def __init__(self, tape: Path, reference: Path) -> None:
        self._known = dict(_rows(reference))
        self.symbols: dict[str, Symbol] = {}
        self.partitions = [Partition() for _ in range(PARTITIONS)]
        self.earlier_day = 0
        self.end_ms = 0
        for line in tape.open():
            self._frame(json.loads(line, parse_float=Decimal))
        for partition in self.partitions:
            partition.ranges.end()
        for symbol in self.symbols.values():
            symbol.quote.move(day_of(self.end_ms))

    def _frame(self, line: dict[str, Any]) -> None:
        self.end_ms = line["received_ns"] // 1_000_000
        for event in line["frame"]:
            partition = self.partitions[crc32((event.get("sym") or event["T"]).encode()) % PARTITIONS]
            if event["ev"] == "LULD":
                partition.halts.take(event)
                continue
            symbol = self.symbols.get(event["sym"])
            if symbol is None:
                symbol = self.symbols[event["sym"]] = Symbol(self._known.get(event["sym"], {}))
            if event["ev"] == "Q":
                symbol.quote.move(day_of(self.end_ms))
                symbol.quote.take_book(event)
            else:
                self._trade(partition, symbol, event)

    def _trade(self, partition: Partition, symbol: Symbol, event: dict[str, Any]) -> None:
        rule, ts, price = rule_of(event), event["t"], Decimal(event["p"])
        size = Decimal(event["ds"]) if "ds" in event else Decimal(event["s"])
        day = partition.time(ts)
        symbol.quote.move(day)
        if ts >= day.start:
            symbol.quote.take(event | {"p": price}, rule, size)
        else:
            self.earlier_day += 1
        symbol.prints.append({
            "price": float(price), "size": number(size), "ts": ts, "exchange": event["x"], "conditions": event.get("c"), "id": event["i"]
        })  # fmt: skip
        if not rule.nothing:
            symbol.seconds.add(rule, ts, price, size)
            symbol.minutes.add(rule, ts, price, size)
        self._alert(partition, symbol, event, rule, day, price, size)

    def _alert(
        self, partition: Partition, symbol: Symbol, event: dict[str, Any], rule: Rule, day: TradingDay, price: Decimal, size: Decimal
    ) -> None:  # fmt: skip
        said = symbol.quote.told(partition.newest_ms)
        if event["t"] >= day.start:
            partition.gaps.take(event, rule, day, said)
        if rule.volume:
            first = symbol.windows.add(event["t"], size, price * size, _side(symbol, price))
            partition.volumes.take(event, first, symbol.windows, symbol.quote, day, said)
        partition.ranges.take(event, rule, day, said)

    def quotes(self) -> dict[str, dict[str, Any]]:
        """Return symbol → its quote at the end."""
        return {name: symbol.quote.with_book(self.end_ms) for name, symbol in self.symbols.items()}

    @property
    def slice_ms(self) -> int:
        """The slice to which every window has moved at the end."""
        return (self.end_ms - LATE_MS) // SLICE_MS * SLICE_MS

    def boards(self) -> dict[str, tuple[list[str], dict[str, Any]]]:
        """Return board → its order and its rows."""
        since = {name: ms for partition in self.partitions for name, ms in partition.halts.since.items()}
        windows = {name: symbol.windows for name, symbol in self.symbols.items()}
        return boards(self.quotes(), windows, since, self.slice_ms)

    def last_prints(self, name: str) -> list[dict[str, Any]]:
        """Return the prints of a symbol that are kept."""
        return self.symbols[name].prints[-PRINTS:]


def _side(symbol: Symbol, price: Decimal) -> int:
    book = symbol.quote.book
    if book is None:
        return 0
    twice, middle = 2 * price, Decimal(book["bp"]) + Decimal(book["ap"])
    return (twice > middle) - (twice < middle)


def _rows(reference: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with reference.open(newline="") as file:
        for line in csv.DictReader(file):
            found = {name: number(Decimal(line[name])) for name in ("prev_close", "avg_volume", "float") if line[name]}
            yield line["symbol"], found
