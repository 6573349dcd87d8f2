"""Plays with the page at random from a seed, as people and machines do, and looks whether it still tells the truth.

Invariant: whatever it did, its log and its seed say how to do it again.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from redis import Redis

from mdc import keys
from mdc.documents import state_snapshot
from tests.live.page.browser import Desk
from tests.local_run import LocalRun
from tests.waiting import until_sync

VIEWS = ((1440, 900), (1920, 1080), (1366, 620), (1100, 800), (390, 844))
KEYS = ("1", "m", "d", "t", "/", "Escape", "Tab", "Enter", "PageDown", "PageUp", "ArrowDown", "ArrowUp", "Home", "End")
LIVE_ROWS = """[...document.querySelectorAll('.grid-row:not([hidden])')].filter(e => (e.dataset.state ?? 'live') === 'live'
  && document.documentElement.dataset.feed === 'live').map(e => [e.children[0].textContent, Number(e.children[12].textContent.replace(/,/g, ''))])"""
GREY_ROWS = "[...document.querySelectorAll('.grid-row:not([hidden])')].some(e => (e.dataset.state ?? 'live') !== 'live')"
VISIBLE = """(hidden => {
  for (const [name, value] of [['hidden', hidden], ['visibilityState', hidden ? 'hidden' : 'visible']])
    Object.defineProperty(document, name, { value, configurable: true });
  document.dispatchEvent(new Event('visibilitychange')); })"""
FRAMES = """(() => { window.gaps = []; let before = 0; const frame = (now) => {
  if (before && !document.hidden && gaps.length < 1e5) gaps.push(now - before);
  before = now; requestAnimationFrame(frame); }; requestAnimationFrame(frame); })()"""
# Layouts are test_layouts.py's subject: a monkey that takes the grid away has nothing left to look at.
HANDS_OFF = """(() => { document.querySelectorAll('dialog[open]').forEach(e => e.close());
  if (document.activeElement?.closest('.tools, .menu, dialog, #layouts, #add')) document.activeElement.blur(); })()"""
AGREE_S_MAX = 60.0  # all faults are over: connected, caught up, and every row in view is seen to be the cache's


class Monkey:
    """One seeded player on one page. `marker` is a word of the browser's command line, by which its processes are known."""

    def __init__(self, run: LocalRun, desk: Desk, marker: str, seed: int) -> None:
        self.log: list[str] = []
        self._run = run
        self._desk = desk
        self._dice = random.Random(seed)
        self._marker = marker
        self._cache = Redis(port=run.port("MDC_EMBEDDED_PORT"))
        self._cdp = desk.page.context.new_cdp_session(desk.page)
        self._cdp.send("Performance.enable")
        desk.page.evaluate(FRAMES)
        self._often: list[Callable[[], None]] = [
            self._hold, self._hammer, self._wheel, self._search, self._theme, self._resize, self._sort, self._press,
        ]  # fmt: skip
        self._seldom: list[Callable[[], None]] = [self._hide, self._offline, self._sleep, self._restart]

    def play(self, seconds: float, seldom: float = 0.25) -> None:
        """Do one thing after the other; `seldom` is the share of the rough ones."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            action = self._dice.choice(self._seldom if self._dice.random() < seldom else self._often)
            self.log.append(action.__name__.strip("_"))
            action()

    def every_rough_one(self) -> None:
        """Do each of the rough things once: a short game must not leave one out by chance."""
        for action in self._dice.sample(self._seldom, len(self._seldom)):
            self.log.append(action.__name__.strip("_"))
            action()

    # What is looked at

    def agree(self) -> None:
        """Wait until the page is live, and every row in view that looks live was seen to show what the cache holds.

        The number of trades only rises: it must lie between what the cache held before the look and after it.
        """
        desk = self._desk
        desk.page.set_viewport_size({"width": 1440, "height": 900})
        desk.live(AGREE_S_MAX)
        desk.until(lambda: not desk.value(GREY_ROWS), AGREE_S_MAX, "live rows in view")
        seen: dict[str, float] = {}
        pending: set[str] = set()

        def compared() -> bool:
            rows = dict(desk.value(LIVE_ROWS))
            before = self._trades(list(rows))
            time.sleep(0.3)  # a row is sent at most four times a second: what the cache holds now is on the page by then
            now = dict(desk.value(LIVE_ROWS))
            after = self._trades(list(now))
            for name, trades in now.items():
                if name in before and before[name] <= trades <= after[name]:
                    seen[name] = trades
            pending.clear()
            pending.update(name for name in now if name not in seen)
            return len(now) > 5 and not pending

        until_sync(compared, 20, "rows that are the cache's", every_s=0.1)

    def _trades(self, symbols: list[str]) -> dict[str, float]:
        bodies = self._cache.mget([keys.document(f"quote:{symbol}") for symbol in symbols]) if symbols else []
        assert isinstance(bodies, list)
        found = {symbol: orjson.loads(state_snapshot(body).data) for symbol, body in zip(symbols, bodies, strict=True) if body}
        return {symbol: float(quote.get("trades") or 0) for symbol, quote in found.items()}

    def weigh(self) -> dict[str, float]:
        """Return the page's heap in bytes, after a collection, and its number of nodes."""
        self._cdp.send("HeapProfiler.collectGarbage")
        found = {one["name"]: one["value"] for one in self._cdp.send("Performance.getMetrics")["metrics"]}
        return {"heap": found["JSHeapUsedSize"], "nodes": found["Nodes"]}

    def frame_ms(self, share: float) -> float:
        """Return the length of a frame that this share of all frames so far did not exceed, in milliseconds."""
        return float(self._desk.page.evaluate("share => gaps.toSorted((a, b) => a - b)[Math.floor(gaps.length * share)]", share))

    # What hands do

    def _hold(self) -> None:
        self._desk.page.focus("#grid")
        key = self._dice.choice(("ArrowDown", "ArrowUp", "PageDown", "PageUp"))
        for _ in range(self._dice.randrange(10, 45)):
            self._desk.page.keyboard.down(key)
            self._desk.page.wait_for_timeout(33)
        self._desk.page.keyboard.up(key)

    def _hammer(self) -> None:
        for _ in range(self._dice.randrange(5, 25)):
            self._desk.page.keyboard.press(self._dice.choice(KEYS))
            self._desk.page.evaluate(HANDS_OFF)

    def _wheel(self) -> None:
        self._desk.page.mouse.move(self._dice.randrange(50, 380), self._dice.randrange(200, 600))
        for _ in range(self._dice.randrange(5, 40)):
            self._desk.page.mouse.wheel(self._dice.choice((0, 0, 0, 120)), self._dice.choice((-900, -200, 200, 200, 900)))
            self._desk.page.wait_for_timeout(25)

    def _search(self) -> None:
        self._desk.page.focus("#find")
        self._desk.page.keyboard.type(self._dice.choice(("a", "zz", "q", "no such symbol", "b/", "é")))
        self._desk.page.keyboard.press(self._dice.choice(("Enter", "Escape", "ArrowDown")))
        self._desk.page.keyboard.press("Enter")
        self._desk.page.evaluate(HANDS_OFF)

    def _theme(self) -> None:
        self._desk.page.locator("#theme").click()

    def _resize(self) -> None:
        width, height = self._dice.choice(VIEWS)
        self._desk.page.set_viewport_size({"width": width, "height": height})

    def _sort(self) -> None:
        heads = self._desk.page.locator(".grid-head button")
        heads.nth(self._dice.randrange(heads.count())).dispatch_event("click")

    def _press(self) -> None:
        buttons = self._desk.page.locator(
            ".board-row:visible, .alerts .roll-row:visible, .tabs button:visible, #chart-as:visible"
        )
        if buttons.count():
            buttons.nth(self._dice.randrange(buttons.count())).dispatch_event("click")

    def _hide(self) -> None:
        self._desk.page.evaluate(f"{VISIBLE}(true)")
        self._desk.page.wait_for_timeout(self._dice.randrange(500, 4000))
        self._desk.page.evaluate(f"{VISIBLE}(false)")

    def _offline(self) -> None:
        self._desk.page.context.set_offline(True)
        self._desk.page.wait_for_timeout(self._dice.randrange(500, 4000))
        self._desk.page.context.set_offline(False)

    def _sleep(self) -> None:
        """Stop the browser with all its processes, as a laptop's lid does."""
        found = family(self._marker)
        assert len(found) > 1
        for pid in found:
            os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(self._dice.uniform(1, 8))  # the fault itself: nobody is waited for
        finally:
            for pid in reversed(found):
                os.kill(pid, signal.SIGCONT)

    def _restart(self) -> None:
        pid = self._run.pids().get("wds")
        if pid is not None:
            os.kill(pid, self._dice.choice((signal.SIGTERM, signal.SIGKILL)))


def family(marker: str) -> list[int]:
    """Return the process whose command line has the word `marker`, and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    root = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        words, parent = _process(entry)
        children.setdefault(parent, []).append(int(entry.name))
        if marker in words and not any(word.startswith("--type=") for word in words):
            root = int(entry.name)
    found = [root] if root else []
    for pid in found:
        found += children.get(pid, [])
    return found


def _process(entry: Path) -> tuple[list[str], int]:
    try:
        words: list[str] = (entry / "cmdline").read_text().split("\0")
        stat: Any = (entry / "stat").read_text().rpartition(")")[2].split()
        return words, int(stat[1])
    except (OSError, ValueError):
        return [], -1
