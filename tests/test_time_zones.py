"""Checks that time zones are there on a machine without a time-zone database, such as a slim container image."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.stack import ROOT

SESSION = """
from datetime import UTC, datetime
from zoneinfo import TZPATH
from service.days.markets import STOCKS
assert TZPATH == (), TZPATH
print(datetime(2026, 7, 1, 13, 30, tzinfo=UTC).astimezone(STOCKS.zone).time())
"""


def test_sessions_know_new_york_without_the_system_s_database() -> None:
    """The processors find the exchange's time zone in a package of their own."""
    env = {**os.environ, "PYTHONTZPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", SESSION], cwd=ROOT, env=env, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.stdout.strip() == "09:30:00", done.stderr
