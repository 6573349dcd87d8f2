"""Finds a recorded tape by its name; recordings are not part of the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


def tape(name: str) -> Path:
    """Return the recording `name`, for example `es-2023-12-25.ndjson.gz` or `matching/normal-seed7.bin.gz`.

    Looks in TAPELINE_DATA, else in ../shared/data next to the checkout. Absent: the test is skipped; in CI it fails.
    """
    folder = Path(os.environ.get("TAPELINE_DATA") or CHECKOUT.parent / "shared" / "data")
    path = folder / name
    if not path.is_file():
        absent(f"recorded tape {name} is not in {folder}: set TAPELINE_DATA to the folder that holds it")
    return path


def absent(what: str) -> None:
    """Skip the test because something it needs is not on this machine; in CI nothing may be missing, so fail there."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"{what} (CI runs every test)", pytrace=False)
    pytest.skip(what)
