"""Turns sampled stacks into each function's share of the time. Pure.

Invariant: the own shares of all functions add up to 100 %; a function that is on a stack twice counts once in its total.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """`own_pct`: the function itself and the C code it calls. `total_pct`: with the Python functions it calls."""

    function: str
    own_pct: float
    total_pct: float


def shares(lines: Iterable[str]) -> list[Share]:
    """Return the functions of `outer;inner;innermost 17` lines, the largest own share first."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if not stack or not count.isdigit():
            continue
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        for frame in set(frames):
            total[frame] += int(count)
    samples = own.total()
    percent = {name: (100 * own[name] / samples, 100 * total[name] / samples) for name in total}
    ranked = sorted(percent, key=lambda name: (-percent[name][0], -percent[name][1], name))
    return [Share(name, round(percent[name][0], 1), round(percent[name][1], 1)) for name in ranked]
