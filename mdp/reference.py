"""Reads the previous closes and average volumes that a feed does not carry from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a symbol before its first event; `avg_volume` in shares a day, `shares` = its float."""

    prev_close: float | None
    avg_volume: float | None
    shares: float | None = None


Reference = Mapping[str, Known]


def read_reference(path: Path | None) -> Reference:
    """Return the rows of a CSV (symbol, prev_close, avg_volume, maybe float); empty without a path.  Raises: OperatorError."""
    if path is None:
        return {}
    try:
        with path.open(newline="") as file:
            return {
                row["symbol"]: Known(_number(row["prev_close"]), _number(row["avg_volume"]), _number(row.get("float") or ""))
                for row in csv.DictReader(file)
            }
    except OSError as error:
        raise OperatorError(f"cannot read MDP_REFERENCE={path}: {error.strerror}", "Give an existing CSV or unset it") from None
    except (KeyError, ValueError, TypeError) as error:
        what = f"MDP_REFERENCE={path} is not a reference file ({error})"
        raise OperatorError(what, "Its header is symbol,prev_close,avg_volume or symbol,prev_close,avg_volume,float") from None


def _number(text: str) -> float | None:
    value = float(text) if text else 0.0
    if not 0 <= value < 1e15:  # also what is no number at all: nan, inf
        raise ValueError(f"{text!r} is not a price or size")
    return value or None
