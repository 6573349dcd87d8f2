"""Replays a recorded exchange through the real processes; checks the ladder on the page and the command line's answers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.exchange_tape import CONTRACTS, write_tape
from tests.live.page.browser import Desk
from tests.local_run import ROOT, LocalRun
from tests.waiting import until_sync

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("no_complaints")]

TAPE_S = 240  # longer than all tests of this file take
RUNGS = """side => [...document.querySelectorAll(`.rung.${side}:not([data-rung=none])`)].map(e => ({
    price: Number(e.children[1].textContent.replace(/,/g, '')),
    size: Number(e.children[side === 'bid' ? 0 : 2].textContent.replace(/,/g, '')),
    bar: parseFloat(e.children[side === 'bid' ? 0 : 2].style.backgroundSize),
    last: e.dataset.rung === 'last' }))"""
Rungs = list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    """Everything on free ports, embedded, with the recorded exchange."""
    folder = tmp_path_factory.mktemp("ladder")
    tape = write_tape(folder / "exchange.ndjson", 3, time.time_ns() // 1_000_000, TAPE_S)
    with LocalRun(folder / "run", FEED="replay", TAPE=str(tape)) as started:
        started.says("http://127.0.0.1:")
        yield started
        started.interrupt()
        started.ends()


@pytest.fixture(scope="module")
def desk(run: LocalRun, browser: Browser) -> Desk:
    """The page with a contract chosen, open and live."""
    opened = Desk(browser, run, symbol="BTC-PERP")
    opened.live()
    opened.until(lambda: rungs(opened)[0], 20, "the ladder")
    return opened


def rungs(desk: Desk) -> tuple[Rungs, Rungs]:
    """Return the shown bids and asks, both from the top of the page down, of one frame."""
    return tuple(desk.page.evaluate(f"() => ['bid', 'ask'].map({RUNGS})"))  # type: ignore[return-value]


def command(run: LocalRun, *words: str) -> subprocess.Popen[str]:
    """Start `python -m wds …` against the run's stream."""
    env = LocalRun.clean_environment() | {"RUN_DIR": str(run.dir), "WDS_URL": f"ws://127.0.0.1:{run.port('WDS_PORT')}"}
    argv = [sys.executable, "-m", "wds", *words]
    return subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_document(data: dict[str, Any]) -> None:
    """Levels are sorted, at most 20 a side, and the rest follows from them."""
    bids, asks = data["bids"], data["asks"]
    assert 0 < len(bids) <= 20
    assert 0 < len(asks) <= 20
    assert [price for price, _ in bids] == sorted({price for price, _ in bids}, reverse=True)
    assert [price for price, _ in asks] == sorted({price for price, _ in asks})
    assert all(size > 0 for _, size in bids + asks)
    assert (data["bid"], data["ask"]) == (bids[0][0], asks[0][0])
    assert data["spread"] == round(data["ask"] - data["bid"], 10) > 0


def test_the_command_line_gets_books(run: LocalRun) -> None:
    """`get` prints one book or all of them; a symbol without one is an error in one line."""
    until_sync(lambda: command(run, "get", "book:BTC-PERP").wait(20) == 0, 30, "a book")
    out, _ = command(run, "get", "book:*").communicate(timeout=20)
    documents = [json.loads(line) for line in out.splitlines()]
    assert sorted(doc["ch"] for doc in documents) == sorted(f"book:{symbol}" for symbol in CONTRACTS)
    for doc in documents:
        check_document(doc["data"])
    missing = command(run, "get", "book:AAPL")
    _, complaint = missing.communicate(timeout=20)
    assert missing.returncode == 1
    assert len(complaint.splitlines()) == 1, complaint


def test_the_command_line_watches_a_book(run: LocalRun) -> None:
    """A snapshot, then what changed: sides whole, put together again they are whole books."""
    watching = command(run, "watch", "book:BTC-PERP", "--hz", "10")
    assert watching.stdout is not None
    state: dict[str, Any] = {}
    seq, updates = 0, 0
    for line in watching.stdout:
        frame = json.loads(line)
        if frame["t"] == "snap":
            state = frame["data"]
        elif frame["t"] == "upd":
            assert frame["prev"] == seq
            assert "ts" in frame["data"]
            state |= frame["data"]
            updates += 1
        else:
            continue
        seq = frame["seq"]
        check_document(state)
        if updates >= 20:
            break
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=60)
    assert updates >= 20


def test_the_ladder_stands_asks_above_bids(desk: Desk) -> None:
    """Prices fall from top to bottom across both sides, each with a size in lots; the spread is between them."""
    for _ in range(5):
        bids, asks = rungs(desk)
        prices = [rung["price"] for rung in asks + bids]
        assert prices == sorted(set(prices), reverse=True)
        assert len(bids) > 8
        assert len(asks) > 8
        assert all(rung["size"] > 0 for rung in bids + asks)
        desk.page.wait_for_timeout(150)
    sizes = desk.texts(".rung.bid:not([data-rung=none]) .cell:nth-child(1)")
    assert all(re.fullmatch(r"[\d,]+\.\d{3}", size) for size in sizes), "decimals are those of the lots"
    assert re.fullmatch(r"Spread \d+\.\d\d · \d+\.\d\d bp", desk.texts("#l-spread")[0])
    shares = [int(re.findall(r"\d+", text)[0]) for text in desk.texts(".balance span")]
    assert sum(shares) == 100


def test_bars_are_proportional_to_sizes(desk: Desk) -> None:
    """The largest size has a whole bar, the others their part of it."""
    bids, asks = rungs(desk)
    most = max(rung["size"] for rung in bids + asks)
    for rung in bids + asks:
        assert abs(rung["bar"] - max(1, 100 * rung["size"] / most)) <= 1, (rung, most)
    before = [rung["bar"] for rung in bids + asks]
    desk.until(lambda: [rung["bar"] for side in rungs(desk) for rung in side] != before, 10, "bars to move")


def test_a_key_sums_the_sizes_up(desk: Desk) -> None:
    """D switches to sums, which grow away from the spread, and back; the switch says so."""
    desk.page.keyboard.press("d")
    desk.until(lambda: desk.page.locator('[data-measure="sum"]').get_attribute("aria-checked") == "true")
    desk.page.wait_for_timeout(50)
    bids, asks = rungs(desk)
    for side in (bids, asks[::-1]):
        sums = [rung["size"] for rung in side]
        assert sums == sorted(sums)
        assert len(set(sums)) > 5
    desk.page.locator('[data-measure="size"]').click()
    assert desk.page.locator('[data-measure="sum"]').get_attribute("aria-checked") == "false"


def test_the_last_price_is_marked(desk: Desk) -> None:
    """The level that was traded at last is marked, at most one, and its price is the ticket's."""
    marks = "[...document.querySelectorAll('[data-rung=last] .cell:nth-child(2)')].map(e => e.textContent)"
    prices = "['#i-last', '#l-last'].map(id => document.querySelector(id).textContent)"
    marked, (last, middle) = desk.until(lambda: desk.value(f"(marks => marks.length && [marks, {prices}])({marks})"), 20)
    assert marked == [last]
    assert middle.removeprefix("▲ ").removeprefix("▼ ") == last


def test_fractional_sizes_everywhere(desk: Desk) -> None:
    """Ticket, prints and grid show contracts times lot size: 0.012, not 0 and not 0.012000000001."""
    desk.until(lambda: len(desk.texts(".prints .roll-row")) > 3, 30, "prints")
    sizes = desk.texts(".prints .roll-row .cell:nth-child(3)")
    assert all(re.fullmatch(r"[\d,]+\.\d{3}", size) for size in sizes), sizes
    assert all(re.fullmatch(r"[\d,]+\.\d{3}", desk.texts(f"#i-{side}_size")[0]) for side in ("bid", "ask"))
    row = desk.page.locator(".grid-row", has_text="BTC-PERP")
    assert re.fullmatch(r"[\d,]{6}\.\d0", row.locator(".cell").nth(1).text_content() or "")
    assert float((row.locator(".cell").nth(8).text_content() or "").replace(",", "")) > 0
    desk.until(lambda: desk.value("tapeline.bars") > 3, 20, "bars")


def test_a_symbol_without_a_book_keeps_its_layout(desk: Desk) -> None:
    """No empty box: the desk is as it was before there were books; and back again at once."""
    width = "document.querySelector('.quotes').offsetWidth"
    narrow = desk.value(width)
    desk.page.evaluate("() => { location.hash = 'AAPL' }")
    desk.until(lambda: desk.texts("#i-symbol") == ["AAPL"])
    assert not desk.page.locator("#depth").is_visible()
    assert desk.value(width) > narrow
    desk.page.wait_for_timeout(600)  # what comes late must not bring it back
    assert not desk.page.locator("#depth").is_visible()
    assert desk.page.locator("#chips .chip", has_text="ETH-PERP").get_attribute("aria-pressed") == "false"
    desk.page.locator("#chips .chip", has_text="ETH-PERP").click()
    assert desk.page.locator("#depth").is_visible(), "its place is free before the book comes"
    desk.until(lambda: rungs(desk)[0] and rungs(desk)[0][0]["price"] < 10_000, 10, "the other book")
    assert desk.page.locator("#ladder").get_attribute("aria-label") == "Order book of ETH-PERP: asks above, bids below"


def test_the_exchanges_symbols_are_found(desk: Desk) -> None:
    """The empty search suggests what has depth; nothing is chosen until somebody does; typing finds them, too."""
    desk.page.keyboard.press("/")
    desk.until(lambda: desk.texts("#found .sym") == list(CONTRACTS))
    assert desk.texts("#found .tag") == ["depth"] * 2
    before = desk.texts("#i-symbol")
    desk.page.keyboard.press("Enter")
    assert desk.texts("#i-symbol") == before
    desk.page.keyboard.press("ArrowDown")
    desk.page.keyboard.press("Enter")
    desk.until(lambda: desk.texts("#i-symbol") == ["BTC-PERP"])
    desk.page.keyboard.press("/")
    desk.page.keyboard.type("eth")
    desk.until(lambda: desk.texts("#found .sym")[:1] == ["ETH-PERP"])
    desk.page.keyboard.press("Escape")


def boxes_fit(desk: Desk, boxes: tuple[str, ...]) -> None:
    """Nothing in these boxes is wider than they are, and they are shown."""
    for box in boxes:
        fits = f"(e => e.scrollWidth <= e.clientWidth + 1 && e.clientWidth > 0)(document.querySelector('{box}'))"
        assert desk.value(fits), f"{box} at {desk.page.viewport_size}"


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_ladder_fits_everywhere(browser: Browser, desk: Desk, scheme: str, tmp_path: Path) -> None:
    """In both themes and on small screens nothing is wider than its box; a picture of each is kept."""
    for view in ((1440, 900), (1200, 760), (1100, 800), (390, 844)):
        other = Desk(browser, desk.page.url.partition("#")[0] + "#BTC-PERP", scheme, view, cookies=desk.page.context.cookies())
        other.live()
        other.tab("chart")
        boxes_fit(other, (".ticket", ".facts"))
        other.tab("depth")
        other.until(lambda other=other: len(rungs(other)[0]) > 5, 20, "the ladder")
        other.page.screenshot(path=str(tmp_path / f"{scheme}-{view[0]}.png"), full_page=view[0] < 1181)
        assert other.value("document.documentElement.scrollWidth <= innerWidth")
        boxes_fit(other, (".depth .head", ".ladder", ".middle", ".balance"))
        bids, asks = rungs(other)
        bottom = other.value("document.querySelector('#ladder').getBoundingClientRect().bottom")
        lowest = other.value("Math.max(...[...document.querySelectorAll('.rung')].map(e => e.getBoundingClientRect().bottom))")
        assert lowest <= bottom + 1, f"a rung is cut at {view}"
        assert len(bids) == len(asks) or min(len(bids), len(asks)) > 5
        assert other.complaints == []
        other.close()


# Last in the file: it takes the stream away.
def test_a_stale_ladder_says_so(run: LocalRun, desk: Desk) -> None:
    """Without the stream the ladder is grey and called stale; then it lives again by itself."""
    os.kill(run.pids()["wds"], signal.SIGKILL)
    desk.until(lambda: desk.value("document.documentElement.dataset.feed") == "stale", 20, "stale")
    style = "getComputedStyle(document.querySelector('#ladder')).filter"
    assert desk.value(style) == "grayscale(1)"
    assert desk.value("getComputedStyle(document.querySelector('.depth .head'), '::after').content") == '"stale"'
    desk.live(60)
    before = rungs(desk)
    desk.until(lambda: rungs(desk) != before, 30, "the ladder to move again")
    desk.until(lambda: desk.value(style) == "none", 10, "its colours")
