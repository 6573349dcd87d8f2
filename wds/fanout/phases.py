"""Decides which phases of a rate are sent together, so that a worker with many clients is not worn out by small writes.

A rate's channels are spread over phases of its period, for a page of thousands of quotes paints better in parts than in lumps.
But every part is a write to every client, and a write is a system call of 3 to 6 µs, whatever it carries: 1,000 pages of 200
quotes at 4 Hz were 20,000 writes a second of 2 KB, and they took half of the worker's time. So phases are joined as soon as a
rate would come to more than WRITES_S_MAX writes a second; one write a period is the least.
"""

from __future__ import annotations

from collections.abc import Mapping

from wds.protocol import PERIOD_S, PHASES, Hz

WRITES_S_MAX = 8000  # of one rate: about 5 % of a core; up to 400 clients at 4 Hz have all five phases, 1,000 have two


def parts(hz: Hz, readers: Mapping[tuple[Hz, int], int]) -> int:
    """Return in how many parts a period of `hz` is sent now; `readers` = how many clients each phase is written to."""
    most = PHASES[hz]
    if hz not in PERIOD_S:
        return most  # raw
    writes_s = sum(readers.get((hz, phase), 0) for phase in range(most)) / PERIOD_S[hz]
    return most if writes_s <= WRITES_S_MAX else max(1, int(most * WRITES_S_MAX / writes_s))


def due(hz: Hz, phase: int, parts: int) -> range:
    """Return the phases that are sent when the time of `phase` has come: none, or all since the last time.

    In each period every phase is in exactly one of them.
    """
    most = PHASES[hz]
    if (phase + 1) * parts // most == phase * parts // most:
        return range(0)
    first = phase
    while first > 0 and first * parts // most == (first - 1) * parts // most:
        first -= 1
    return range(first, phase + 1)
