"""Checks that the simulated market is plausible, and that the same seed gives the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

import pytest

from mdl.simulation.market import HALT_EVERY_MS, HALTED, RESUMED, Simulator, session_share
from mdl.simulation.universe import reference_csv, universe

BEGIN_MS = 1_767_623_400_000  # Monday 2026-01-05, 9:30 in New York


def played(simulator: Simulator, frames: int, events: int = 100, step_ms: int = 10) -> list[dict[str, Any]]:
    return [event for n in range(frames) for event in json.loads(simulator.frame(BEGIN_MS + n * step_ms, events))]


def test_the_same_seed_gives_the_same_bytes() -> None:
    """The hash is fixed: a change of the simulator shows here, and benchmarks must be compared anew."""
    simulator = Simulator(300, seed=7)
    digest = hashlib.sha256()
    for number in range(400):
        digest.update(simulator.frame(BEGIN_MS + number * 10, 50))
    assert digest.hexdigest()[:16] == "a84cfe55b610ac9b"
    assert Simulator(300, seed=8).frame(BEGIN_MS, 50) != Simulator(300, seed=7).frame(BEGIN_MS, 50)


def test_a_frame_has_exactly_the_events_asked_for() -> None:
    """Also at the turn of a second, when aggregates wait."""
    simulator = Simulator(50, seed=1)
    assert [len(json.loads(simulator.frame(BEGIN_MS + n * 500, size))) for n, size in enumerate((0, 1, 2, 7, 100))] == [
        0,
        1,
        2,
        7,
        100,
    ]


def test_the_mix_is_that_of_a_stock_market() -> None:
    """70 % quotes, aggregates of what traded, odd lots, a few late trades, activity by rank."""
    events = played(Simulator(500, seed=3), frames=1000)
    kinds = Counter(event["ev"] for event in events)
    assert 0.6 < kinds["Q"] / len(events) < 0.72
    assert kinds["A"] > 1000
    assert kinds["LULD"] > 10
    trades = [event for event in events if event["ev"] == "T"]
    conditions = Counter(code for trade in trades for code in trade["c"])
    assert 0.4 < conditions[37] / len(trades) < 0.6
    assert all(trade["s"] < 100 for trade in trades if 37 in trade["c"])
    assert 0 < conditions[32] < len(trades) / 200
    assert all(BEGIN_MS + 10_000 - trade["t"] > 2_000 for trade in trades if 32 in trade["c"])
    busiest = Counter(trade["sym"] for trade in trades).most_common(1)[0]
    assert busiest[0] == "NVDA"
    assert 0.1 < busiest[1] / len(trades) < 0.2


def test_quotes_stand_around_a_price_that_walks_within_reason() -> None:
    """Bid below ask, spread of a few ticks, no runaway."""
    simulator = Simulator(20, seed=5)
    closes = dict(zip(simulator.listed.symbols, simulator.listed.closes_cents, strict=True))
    for event in played(simulator, frames=2000):
        if event["ev"] == "Q":
            assert 0 < event["bp"] < event["ap"] <= event["bp"] * 1.02
            assert 0.5 < event["bp"] * 100 / closes[event["sym"]] < 1.6


def test_aggregates_add_up_to_the_trades() -> None:
    """Volume, open, high, low and close of each second, late trades not counted."""
    by_second: dict[tuple[str, int], list[dict[str, Any]]] = {}
    bars: dict[tuple[str, int], dict[str, Any]] = {}
    for event in played(Simulator(5, seed=2), frames=300):
        if event["ev"] == "T" and 32 not in event["c"]:
            by_second.setdefault((event["sym"], event["t"] // 1000 * 1000), []).append(event)
        elif event["ev"] == "A":
            bars[event["sym"], event["s"]] = event
    assert len(bars) == 10  # two complete seconds
    for key, bar in bars.items():
        trades = by_second[key]
        prices = [trade["p"] for trade in trades]
        assert bar["v"] == sum(trade["s"] for trade in trades)
        assert (bar["o"], bar["h"], bar["l"], bar["c"]) == (prices[0], max(prices), min(prices), prices[-1])
        assert bar["e"] == bar["s"] + 1000
        assert bar["l"] - 0.01 <= bar["vw"] <= bar["h"] + 0.01


def test_a_halted_stock_does_not_trade_until_it_resumes() -> None:
    """Indicator 17 halts, 18 resumes."""
    halted: set[str] = set()
    seen = Counter[int]()
    for event in played(Simulator(40, seed=4), frames=HALT_EVERY_MS // 100 * 2, events=20, step_ms=100):
        if event["ev"] == "LULD":
            seen.update(event["i"])
            if HALTED in event["i"]:
                halted.add(event["T"])
            elif RESUMED in event["i"]:
                halted.discard(event["T"])
        elif event["ev"] in ("T", "Q"):
            assert event["sym"] not in halted
    assert seen[HALTED] >= 2
    assert seen[RESUMED] >= 1


@pytest.mark.parametrize(
    ("hours_after_open", "share", "extended"),
    [(-8, 0.0, True), (-2, 0.1, True), (0, 2.0, False), (2, 1.0, False), (8, 0.1, True)],
)
def test_the_clock_session_follows_new_york(hours_after_open: int, share: float, extended: bool) -> None:
    """Busy at the open, quiet before and after, nothing at night."""
    assert session_share(BEGIN_MS + hours_after_open * 3_600_000) == (share, extended)


def test_extended_hours_trades_carry_form_t() -> None:
    """Condition 12, so that the processors keep them out of the day's bars."""
    simulator = Simulator(10, seed=1, session="clock")
    trades = [e for e in json.loads(simulator.frame(BEGIN_MS - 3_600_000, 400)) if e["ev"] == "T"]
    assert all(12 in trade["c"] for trade in trades if 32 not in trade["c"])


def test_a_larger_universe_begins_with_the_smaller_one() -> None:
    """Symbols are unique and look like tickers; weights add up."""
    small, large = universe(300, 7), universe(20_000, 7)
    assert large.symbols[:300] == small.symbols
    assert large.closes_cents[:300] == small.closes_cents
    assert len(set(large.symbols)) == 20_000
    assert all(symbol.isalpha() and symbol.isupper() and len(symbol) <= 5 for symbol in large.symbols)
    assert sum(large.weights) == pytest.approx(1)


def test_the_reference_table_matches_the_universe() -> None:
    """One line a symbol, as the processors read it."""
    header, *lines = reference_csv(universe(3, 7)).splitlines()
    assert header.startswith("symbol,prev_close,avg_volume,float,prev_open,prev_high,prev_low")
    assert len(lines) == 3
    symbol, close, volume, _, first, high, low, *_ = lines[0].split(",")
    assert (symbol, float(close) > 0, int(volume) > 0) == ("NVDA", True, True)
    assert float(low) <= min(float(first), float(close)) <= max(float(first), float(close)) <= float(high)


def test_every_symbol_of_a_large_universe_can_trade() -> None:
    """Rare ones too: each stands in the table of draws."""
    assert len(set(Simulator(10_000, seed=1)._draws)) == 10_000
