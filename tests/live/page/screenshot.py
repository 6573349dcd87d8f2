"""Saves a picture of the desk with the simulator's market: `python -m tests.live.page.screenshot OUT.png [dark|light]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.live.page.browser import Desk, chromium
from tests.local_run import LocalRun

BARS_MIN = 60  # a chart worth looking at
PATIENCE_S = 150


def take(out: Path, scheme: str) -> None:
    """Start everything, wait until the chart has some bars, and save the picture; the rate is one that a busy machine carries."""
    with tempfile.TemporaryDirectory() as folder, LocalRun(Path(folder) / "run", SYMBOLS="500", RATE="800") as run:
        run.says("http://127.0.0.1:")
        with chromium() as browser:
            desk = Desk(browser, run, scheme, symbol="BTC-PERP")
            desk.live()
            desk.until(lambda: desk.value(f"tapeline.bars >= {BARS_MIN} && tapeline.prints > 8"), PATIENCE_S, f"{BARS_MIN} bars")
            desk.page.screenshot(path=str(out))
        run.interrupt()
        run.ends()


if __name__ == "__main__":
    take(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "dark")
