"""Computes from a tape what every symbol's channels must say after it, plainly and without any of the product's code.

Exact decimal arithmetic over the text of the tape; numbers are compared as the floats that JSON readers make of them.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

PRINTS = 200
TRADES, QUOTES = ("T", "XT"), ("Q", "XQ")


def events(tape: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a tape in order, numbers as Decimal or int."""
    with gzip.open(tape, "rt") if tape.suffix == ".gz" else tape.open() as lines:
        for line in lines:
            yield from json.loads(line, parse_float=Decimal)


def expected(tape: Path) -> dict[str, dict[str, Any]]:
    """Return symbol → {quote, prints, minutes} for a tape of one day whose trades carry no special conditions."""
    symbols: dict[str, dict[str, Any]] = {}
    for event in events(tape):
        symbol = event.get("sym") or event.get("pair")
        if event["ev"] in TRADES:
            _trade(symbols.setdefault(symbol, _blank()), event)
        elif event["ev"] in QUOTES:
            symbols.setdefault(symbol, _blank())["book"] = event
    return {symbol: _finish(state) for symbol, state in symbols.items()}


def _blank() -> dict[str, Any]:
    return {"book": None, "trades": [], "minutes": {}}


def _trade(state: dict[str, Any], event: dict[str, Any]) -> None:
    state["trades"].append(event)
    start = event["t"] - event["t"] % 60_000
    state["minutes"].setdefault(start, []).append(event)


def _finish(state: dict[str, Any]) -> dict[str, Any]:
    trades, book = state["trades"], state["book"]
    quote: dict[str, Any] = {"trades": len(trades)}
    if book is not None:
        quote |= {
            "bid": float(book["bp"]),
            "ask": float(book["ap"]),
            "bid_size": float(book["bs"]),
            "ask_size": float(book["as"]),
        }
    if trades:
        quote |= _summary(trades)
        quote["last"] = quote.pop("close")
    prints = [(float(t["p"]), float(t["s"]), t["t"], t["i"]) for t in trades[-PRINTS:]]
    minutes = {start: _summary(some) | {"trades": len(some)} for start, some in state["minutes"].items()}
    return {"quote": quote, "prints": prints, "minutes": minutes}


def _summary(trades: list[dict[str, Any]]) -> dict[str, float]:
    prices = [Decimal(t["p"]) for t in trades]
    volume = sum((Decimal(t["s"]) for t in trades), Decimal(0))
    notional = sum((Decimal(t["p"]) * Decimal(t["s"]) for t in trades), Decimal(0))
    newest = max(range(len(trades)), key=lambda i: (trades[i]["t"], i))
    return {
        "open": float(prices[0]), "high": float(max(prices)), "low": float(min(prices)), "close": float(prices[newest]),
        "volume": float(volume), "vwap": float(notional / volume),
    }  # fmt: skip


def differences(symbol: str, wanted: dict[str, Any], quote: dict[str, Any], prints: list[Any], bars: dict[str, Any]) -> list[str]:
    """Return every field in which the channels of a symbol differ from what the tape says; [] when they agree.

    `quote` and `bars` are the channels' data, `prints` the list of prints. The vwap may differ in the last binary digit.
    """
    found = [
        f"quote.{name}: {quote.get(name)} is not {value}"
        for name, value in wanted["quote"].items()
        if not _same(quote.get(name), value)
    ]
    got = [(p["price"], p["size"], p["ts"], p["id"]) for p in prints]
    if got != wanted["prints"]:
        found.append(f"prints: {got[-3:]} is not {wanted['prints'][-3:]}")
    if wanted["minutes"]:
        found += _bar_differences(wanted["minutes"], bars)
    return [f"{symbol} {fault}" for fault in found]


def _bar_differences(minutes: dict[int, dict[str, float]], bars: dict[str, Any]) -> list[str]:
    names = ("open", "high", "low", "close", "volume", "vwap", "trades")
    rows = {row[0]: dict(zip(names, row[1:], strict=True)) for row in bars["history"]}
    rows[bars["t"]] = {name: bars[name] for name in names}
    if sorted(rows) != sorted(minutes):
        return [f"bars of {len(rows)} minutes, not of {len(minutes)}"]
    return [
        f"bar {start} {name}: {rows[start][name]} is not {value}"
        for start, bar in minutes.items()
        for name, value in bar.items()
        if not _same(rows[start][name], value)
    ]


def _same(got: Any, wanted: float) -> bool:
    return got is not None and (got == wanted or abs(got - wanted) <= 1e-15 * abs(wanted))
