"""Reads what a feed does not say of symbols, such as previous closes and average volumes, from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from service.errors import OperatorError


class Known(Struct, frozen=True, array_like=True, gc=False):
    """What is known of a symbol for a trading day; null = not known.

    `prev_*` are the regular values of the trading day before, in shares and prices of this one (splits are worked in);
    `avg_volume` in shares a day; `shares` = its float.
    """

    prev_close: float | None = None
    avg_volume: int | float | None = None
    shares: int | float | None = None
    prev_open: float | None = None
    prev_high: float | None = None
    prev_low: float | None = None
    prev_volume: int | float | None = None
    prev_vwap: float | None = None


Reference = Mapping[str, Known]
NEEDED = ("prev_close", "avg_volume")
MORE = {"float": "shares"} | {name: name for name in ("prev_open", "prev_high", "prev_low", "prev_volume", "prev_vwap")}


def read_reference(path: Path | None) -> Reference:
    """Return the rows of a CSV (symbol, prev_close, avg_volume, maybe `MORE`); empty without a path.  Raises: OperatorError."""
    if path is None:
        return {}
    try:
        with path.open(newline="") as file:
            return {row["symbol"]: _known(row) for row in csv.DictReader(file)}
    except OSError as error:
        raise OperatorError(f"cannot read MDP_REFERENCE={path}: {error.strerror}", "Give an existing CSV or unset it") from None
    except (KeyError, ValueError, TypeError) as error:
        what = f"MDP_REFERENCE={path} is not a reference file ({error})"
        fix = f"Its header is symbol,prev_close,avg_volume and any of {', '.join(MORE)}"
        raise OperatorError(what, fix) from None


def _known(row: Mapping[str, str]) -> Known:
    needed = {name: _number(row[name]) for name in NEEDED}
    return Known(**needed, **{field: _number(row.get(column) or "") for column, field in MORE.items()})


def _number(text: str) -> int | float | None:
    value = float(text) if text else 0.0
    if not 0 <= value < 1e15:  # also what is no number at all: nan, inf
        raise ValueError(f"{text!r} is not a price or size")
    return whole(value) or None


def whole(value: float) -> int | float:
    """Return a size as an integer when it is one."""
    return int(value) if value == int(value) else value
