"""Writes a tape of simulated frames to disk; the same arguments give the same bytes before compression."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from mdl.simulation.market import Simulator
from service.errors import OperatorError

BEGIN_MS = 1_767_623_400_000  # Monday 2026-01-05, 9:30 in New York
FRAME_EVENTS = 100
FRAME_MS = 5  # 20,000 events/s at recorded speed


def write_tape(out: Path, symbols: int, seed: int, events: int, quotes: float = 0.7) -> None:
    """Write `events` events of a simulated market, 100 a frame and line.  Raises: OperatorError when it cannot be written."""
    simulator = Simulator(symbols, seed, quotes)
    try:
        with _create(out) as file:
            for number in range(0, events, FRAME_EVENTS):
                now_ms = BEGIN_MS + number // FRAME_EVENTS * FRAME_MS
                file.write(simulator.frame(now_ms, min(FRAME_EVENTS, events - number)) + b"\n")
    except OSError as error:
        raise OperatorError(f"cannot write the tape {out}: {error.strerror or error}", "Choose a writable path") from None


def _create(out: Path) -> BinaryIO:
    if out.name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(out, "wb", compresslevel=6))
    if out.name.endswith(".zst"):
        return cast(BinaryIO, zstandard.open(out, "wb"))
    return out.open("wb")
