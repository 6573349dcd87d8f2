"""Layouts of the desk in a real browser: kept by a real control plane, on a stand-in's stream. Everybody here is a viewer."""

from __future__ import annotations

import gzip
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from scp import build
from tests.live.page.browser import Desk
from tests.live.page.test_access import AXE, GRAVE
from tests.local_run import ROOT
from tests.scp.conftest import Person, ScpProcess
from tests.scp.stand_in import HALTED
from tests.servers import free_port

pytestmark = pytest.mark.live

KINDS = ("watchlist", "quote", "candles", "depth", "prints", "board", "alerts", "news", "halts", "pipeline")
WILD = "<img src=x onerror=alert(1)>"
PLACES = "Object.fromEntries(tapeline.layout.widgets.map(({ id, x, y, w, h }) => [id, [x, y, w, h]]))"
OVERLAPS = """(() => { const boxes = [...document.querySelectorAll('.panel')].filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect());
  return boxes.flatMap((a, n) => boxes.slice(n + 1).filter(b =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)).length; })()"""


class Plane:
    """A control plane on a port that it keeps over restarts, with a stream that a stand-in makes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port, stream = folder, free_port(), free_port()
        self._given = {"SCP_PORT": str(self._port), "WDS_PORT": str(stream)}
        self.stream = subprocess.Popen([sys.executable, "-m", "tests.scp.stand_in", str(stream), "60", "200"], cwd=ROOT)
        self.scp = ScpProcess(folder, **self._given)
        assert self.scp.admin

    def restart(self) -> None:
        """Begin again after `scp.end()`, with the same database."""
        admin = self.scp.admin
        self.scp = ScpProcess(self._folder, **self._given)
        self.scp.admin = admin  # the same session: it is in the database
        assert self.scp.port == self._port

    def end(self) -> None:
        """End what runs."""
        if self.scp.process.poll() is None:
            self.scp.end()
        self.stream.terminate()
        self.stream.wait(10)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One for the file."""
    started = Plane(tmp_path_factory.mktemp("layouts") / "run")
    yield started
    started.end()


@pytest.fixture
def person(plane: Plane) -> Person:
    """Somebody without layouts."""
    return plane.scp.person("viewer")


Open = Callable[..., Desk]


@pytest.fixture
def opened(plane: Plane, browser: Browser, person: Person) -> Iterator[Open]:
    """Opens pages of the person; at the end none of them has complained of anything but what the test had away."""
    desks: list[Desk] = []

    def open_desk(symbol: str = "BTC-PERP", **more: Any) -> Desk:
        url = f"http://127.0.0.1:{plane.scp.port}/"
        cookie = {"name": f"tapeline-{plane.scp.port}", "value": person.secret, "url": url}
        desks.append(Desk(browser, f"{url}#{symbol}", cookies=[cookie], **more))
        desks[-1].live()
        desks[-1].until(lambda: desks[-1].page.locator(".panel").count() > 0, 10, "widgets")
        return desks[-1]

    yield open_desk
    for desk in desks:
        complaints = [one for one in desk.complaints if "the server responded with a status of 412" not in one]
        desk.close()
        assert complaints == []


def saved(desk: Desk, seconds: float = 20) -> dict[str, Any]:
    """Wait until the page's layout is kept; return its id and revision."""
    desk.until(lambda: desk.value("tapeline.saving.id !== '' && tapeline.saving.state === 'saved'"), seconds, "a saved layout")
    found: dict[str, Any] = desk.value("tapeline.saving")
    return found


def drag(desk: Desk, what: str, dx: float, dy: float, drop: bool = True) -> None:
    """Take hold of an element and move it, as a hand does: in steps."""
    box = desk.page.locator(what).bounding_box()
    assert box is not None
    x, y = box["x"] + min(box["width"], 40) / 2, box["y"] + box["height"] / 2
    desk.page.mouse.move(x, y)
    desk.page.mouse.down()
    for step in range(1, 6):
        desk.page.mouse.move(x + dx * step / 5, y + dy * step / 5)
    if drop:
        desk.page.mouse.up()


def menu(desk: Desk, widget: str, item: str) -> None:
    """Choose from a widget's menu."""
    desk.page.locator(f'[data-widget="{widget}"] .more').click()
    desk.page.get_by_role("menuitem", name=re.compile(f"^{item}")).click()


def command(desk: Desk, words: str) -> None:
    """Type into the command palette."""
    desk.page.keyboard.press("Control+k")
    expect(desk.page.locator("dialog.palette")).to_be_visible()
    desk.page.keyboard.type(words)


def settings(desk: Desk, widget: str) -> Page:
    """Open a widget's settings; return the page."""
    menu(desk, widget, "Settings")
    expect(desk.page.get_by_role("dialog")).to_be_visible()
    return desk.page


# Moving about, and finding it again


def test_what_was_dragged_is_found_again_after_a_restart(plane: Plane, opened: Open) -> None:
    """By pointer: others go aside, nothing overlaps, and it is there after the control plane and the page began anew."""
    desk = opened()
    before = desk.value(PLACES)
    drag(desk, "#h-alerts", -1300, -300)
    after = desk.value(PLACES)
    assert after["alerts"][0] == 0
    assert after["alerts"][1] < before["alerts"][1]
    drag(desk, "#h-gainers", 60, 0, drop=False)
    desk.page.keyboard.press("Escape")
    desk.page.mouse.up()
    assert desk.value(PLACES) == after, "Escape takes it back"
    desk.page.hover("#prints-note")
    drag(desk, '[data-widget="prints"] .grip', 90, 60)
    places = desk.value(PLACES)
    assert places["prints"][2] > before["prints"][2]
    assert places["prints"][3] > before["prints"][3]
    desk.page.wait_for_timeout(200)  # the others glide
    assert desk.value(OVERLAPS) == 0
    saved(desk)
    plane.scp.end()
    plane.restart()
    desk.page.reload()
    desk.live()
    desk.until(lambda: desk.value(PLACES) == places, 10, "the same places")


def test_widgets_are_moved_and_resized_by_keys(opened: Open) -> None:
    """From its menu: arrows move, Shift resizes, each step is told; Enter keeps it, Escape takes it back."""
    desk = opened()
    before = desk.value(PLACES)
    desk.page.focus('[data-widget="losers"] .more')
    desk.page.keyboard.press("Enter")
    for _ in range(12):
        if desk.value("document.activeElement.textContent").startswith("Move"):
            break
        desk.page.keyboard.press("ArrowDown")
    desk.page.keyboard.press("Enter")
    for key in ("ArrowUp", "ArrowLeft", "Shift+ArrowRight", "Shift+ArrowDown"):
        places = desk.value(PLACES)
        desk.page.keyboard.press(key)
        assert desk.value(PLACES)["losers"] != places["losers"], key
        assert desk.texts(".spoken")[0].startswith("Column ")
    desk.page.keyboard.press("Enter")
    kept = desk.value(PLACES)
    assert desk.value("document.activeElement.className") == "more"
    menu(desk, "losers", "Move")
    desk.page.keyboard.press("ArrowUp")
    assert desk.value(PLACES) != kept
    desk.page.keyboard.press("Escape")
    assert desk.value(PLACES) == kept != before
    assert desk.value(OVERLAPS) == 0
    saved(desk)


def test_a_locked_layout_stays_as_it_is(opened: Open) -> None:
    """Neither pointer nor menu moves anything, and the lock is kept."""
    desk = opened()
    command(desk, "lock this")
    desk.page.keyboard.press("Enter")
    places = desk.value(PLACES)
    drag(desk, "#h-alerts", -600, -300)
    assert desk.value(PLACES) == places
    desk.page.locator('[data-widget="alerts"] .more').click()
    assert not [text for text in desk.texts("[role=menuitem]") if "Move" in text]
    desk.page.keyboard.press("Escape")
    saved(desk)
    desk.page.reload()
    desk.live()
    desk.until(lambda: desk.value("tapeline.layout.locked"), 10, "the lock")


# Links


def test_widgets_of_one_colour_follow_one_symbol(opened: Open, person: Person) -> None:
    """A second pair in green has a symbol of its own; the search goes where the focus is; all of it is kept."""
    widgets = [
        {"id": "list", "kind": "watchlist", "x": 0, "y": 0, "w": 24, "h": 10, "link": "green", "settings": {"symbols": ["NVDA"]}},
        {"id": "sales", "kind": "prints", "x": 0, "y": 10, "w": 24, "h": 10, "link": "blue"},
        {"id": "chart", "kind": "candles", "x": 24, "y": 0, "w": 24, "h": 20, "link": "blue"},
        {"id": "alone", "kind": "quote", "x": 0, "y": 20, "w": 24, "h": 4, "link": "", "settings": {"symbol": "MSFT"}},
    ]
    person.change("POST", "/api/v1/layouts", {"name": "Two", "content": {"format": 1, "widgets": widgets}})
    desk = opened("AAPL")
    sales, alone = (desk.page.locator(f'[data-widget="{name}"]') for name in ("sales", "alone"))
    expect(sales.locator(".note")).to_have_text("AAPL")
    sales.locator(".link-dot").click()
    desk.page.get_by_role("menuitemradio", name="green").click()
    desk.page.locator('[data-widget="list"] .grid-row:has-text("NVDA")').click()
    expect(sales.locator(".note")).to_have_text("NVDA")
    expect(alone.locator("h2")).to_have_text("MSFT")
    assert desk.page.url.endswith("#AAPL")
    desk.page.focus('[data-widget="sales"] .more')
    command(desk, "tsla")
    desk.page.keyboard.press("Enter")
    expect(sales.locator(".note")).to_have_text("TSLA")
    assert desk.texts('[data-widget="chart"] h2') == ["AAPL"]
    saved(desk)
    desk.page.reload()
    desk.live()
    expect(sales.locator(".note")).to_have_text("TSLA")
    expect(alone.locator("h2")).to_have_text("MSFT")
    assert desk.texts('[data-widget="chart"] h2') == ["AAPL"]


# Two windows, a server that is away


def test_two_windows_never_overwrite_each_other_unseen(opened: Open, person: Person) -> None:
    """Who saves second is told, chooses, and both versions are kept when they like."""
    first = opened()
    menu(first, "gappers", "Remove")
    begun = saved(first)
    second = opened()
    assert second.value("tapeline.saving.id") == begun["id"]
    menu(first, "losers", "Remove")
    assert saved(first)["revision"] == begun["revision"] + 1
    menu(second, "alerts", "Remove")
    expect(second.page.locator(".notice")).to_contain_text("changed in another window")
    second.page.reload()
    second.live()
    expect(second.page.locator(".notice")).to_contain_text("could not be saved when this page was closed")
    second.page.get_by_role("button", name="Keep them as a copy").click()
    second.until(lambda: second.value("tapeline.layout.name").endswith("(recovered)"), 10, "the copy")
    found = {one["name"]: one["id"] for one in person.get("/api/v1/layouts").body}
    kinds = {
        name: {one["id"] for one in person.get(f"/api/v1/layouts/{key}").body["content"]["widgets"]}
        for name, key in found.items()
    }
    assert "losers" not in kinds["Desk"]
    assert "alerts" in kinds["Desk"]
    assert "losers" in kinds["Desk (recovered)"]
    assert "alerts" not in kinds["Desk (recovered)"]
    third = opened()
    menu(first, "volume", "Remove")
    saved(first)
    menu(third, "prints", "Remove")
    third.page.get_by_role("button", name="Replace theirs").click()
    saved(third)
    assert first.value("tapeline.saving.id") == third.value("tapeline.saving.id")


def test_a_control_plane_that_is_away_is_waited_for(plane: Plane, opened: Open, person: Person) -> None:
    """The line at the foot says so; what was changed meanwhile is kept once it is back, by itself."""
    desk = opened()
    menu(desk, "gappers", "Remove")
    saved(desk)
    plane.scp.end()
    menu(desk, "losers", "Remove")
    expect(desk.page.locator(".notice")).to_contain_text("Not saved yet", timeout=15_000)
    menu(desk, "alerts", "Remove")
    plane.restart()
    saved(desk, 45)
    expect(desk.page.locator(".notice")).to_be_hidden()
    key = desk.value("tapeline.saving.id")
    kept = {one["id"] for one in person.get(f"/api/v1/layouts/{key}").body["content"]["widgets"]}
    assert kept.isdisjoint({"gappers", "losers", "alerts"})
    desk.complaints[:] = [one for one in desk.complaints if "ERR_" not in one]


# Settings, files, names


def test_settings_change_what_a_widget_shows(opened: Open) -> None:
    """A list of one's own symbols with few columns; a board with a filter and heat; a name that is markup is text."""
    desk = opened()
    page = settings(desk, "quotes")
    page.get_by_label("Name").fill(WILD)
    page.get_by_role("textbox", name=re.compile("^Symbols")).fill("aapl, MSFT NVDA NOBODY.X")
    for label in ("Change since the previous close", "Best bid"):
        page.get_by_label(label, exact=True).uncheck()
    page.get_by_role("button", name="Apply").click()
    desk.until(lambda: len(desk.texts("#grid .grid-row:not([hidden])")) == 3, 10, "three rows")
    assert desk.texts("#h-quotes") == [WILD]
    assert "1 not quoted" in desk.texts("#quotes-note")[0]
    assert "Bid" not in desk.texts("#grid .grid-head button")
    page = settings(desk, "volume")
    page.get_by_label("Last price from").fill("400")
    page.get_by_label("Rows are the warmer").check()
    page.get_by_role("button", name="Apply").click()
    prices = '[data-board="volume"] li:not([hidden]) .cell:nth-child(2)'
    desk.until(lambda: desk.texts(prices), 10, "rows")
    assert all(float(text.replace(",", "")) >= 400 for text in desk.texts(prices))
    desk.until(lambda: desk.page.locator('[data-board="volume"] [data-heat]').count() > 0, 10, "heat")
    assert desk.page.locator("img").count() == 0
    saved(desk)


def test_layouts_are_named_copied_made_default_and_removed(opened: Open, person: Person) -> None:
    """In the dialog; a name that is markup is text everywhere."""
    desk = opened()
    desk.page.click("#layouts")
    page = desk.page.get_by_role("dialog")
    page.get_by_label("Name").fill(WILD)
    page.get_by_role("button", name="Rename").click()
    expect(page.locator("tbody th, tbody td").first).to_have_text(WILD)
    page.get_by_role("button", name="Copy of this one").click()
    desk.until(lambda: desk.value("tapeline.layout.name") == f"{WILD} (copy)", 10, "the copy")
    assert desk.texts("#layouts span") == [f"{WILD} (copy)"]
    desk.page.click("#layouts")
    page.get_by_role("button", name="Make it the default").click()
    desk.until(lambda: [one["default"] for one in person.get("/api/v1/layouts").body] == [False, True], 10, "the default")
    page.get_by_role("button", name="Remove").first.click()
    page.get_by_role("button", name="Really remove?").click()
    desk.until(lambda: len(person.get("/api/v1/layouts").body) == 1, 10, "one layout less")
    assert desk.page.locator("img").count() == 0
    assert desk.value("document.querySelector('[onerror]')") is None


def test_a_layout_travels_as_a_file(opened: Open, tmp_path: Path) -> None:
    """Exported and imported it is the same; what is no layout is refused in words, and nothing changes."""
    desk = opened()
    menu(desk, "gappers", "Remove")
    saved(desk)
    places = desk.value(PLACES)
    desk.page.click("#layouts")
    with desk.page.expect_download() as waiting:
        desk.page.get_by_role("button", name="Export this one").click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert path.name == "Desk.tapeline.json"
    chooser = desk.page.get_by_label("A layout's file")
    said = desk.page.get_by_role("dialog").locator(".pane > .said")
    good = json.loads(path.read_text())
    later = good | {"content": good["content"] | {"format": 99}}
    for text, words in (
        ("{", "not JSON"),
        ('{"widgets": []}', "no layout of Tapeline"),
        (json.dumps(later), "another version"),
        ("x" * 70_000, "too large"),
        (json.dumps(good | {"content": {"format": 1, "widgets": [{"id": WILD}]}}), "no id"),
    ):
        chooser.set_input_files({"name": "x.json", "mimeType": "application/json", "buffer": text.encode()})
        expect(said).to_contain_text(words)
    assert desk.value(PLACES) == places
    chooser.set_input_files(
        {"name": "x.json", "mimeType": "application/json", "buffer": json.dumps(good | {"name": "Got"}).encode()}
    )
    desk.until(lambda: desk.value("tapeline.layout.name") == "Got", 10, "the imported layout")
    assert desk.value(PLACES) == places


def test_a_widget_that_this_page_does_not_know_is_kept(opened: Open, person: Person) -> None:
    """A layout of a later version: its place says what it is, and saving the layout does not lose it."""
    widget = {"id": "future", "kind": "hologram", "x": 0, "y": 0, "w": 24, "h": 6, "settings": {"depth": 3}}
    made = person.change("POST", "/api/v1/layouts", {"name": "Later", "content": {"format": 1, "widgets": [widget]}})
    desk = opened()
    expect(desk.page.locator('[data-widget="future"]')).to_contain_text("knows no widget “hologram”")
    desk.page.click("#add")
    desk.page.get_by_role("button", name="Pipeline").click()
    desk.until(lambda: saved(desk)["revision"] == 2, 20, "the second revision")
    kept = person.get(f"/api/v1/layouts/{made.body['id']}").body["content"]["widgets"]
    assert kept[0]["settings"] == {"depth": 3}


# Everybody


def every_kind(person: Person) -> None:
    """Give somebody a layout that has every kind."""
    widgets = [
        {
            "id": kind,
            "kind": kind,
            "x": n % 3 * 16,
            "y": n // 3 * 9,
            "w": 16,
            "h": 9,
            "link": "blue",
            "settings": {"always": True},
        }
        for n, kind in enumerate(KINDS)
    ]
    body = {"name": "Everything", "default": True, "content": {"format": 1, "widgets": widgets}}
    assert person.change("POST", "/api/v1/layouts", body).status == 201


def test_news_are_text_and_lead_to_symbols_and_their_source(opened: Open) -> None:
    """Whatever a source writes: only http(s) is a link, which gives the other page no hand on this one; chips choose symbols."""
    desk = opened("BTC-PERP")
    news = desk.page.locator('[data-widget="news"]')
    desk.until(lambda: news.locator(".news-row").count() > 3, 15, "an article that has just come")
    first = news.locator("a.news-title").first
    assert (first.get_attribute("href"), first.get_attribute("rel")) == ("https://news.example.com/1", "noopener noreferrer")
    assert first.get_attribute("target") == "_blank"
    assert "<img src=x onerror=" in first.inner_text()
    assert news.locator("img, script, b").count() == 0
    assert {link.get_attribute("href") for link in news.locator("a").all()} == {"https://news.example.com/1"}
    ages = desk.texts('[data-widget="news"] .news-age')
    assert ages[0] == "now"
    assert ages[-2:] == ["1 h", "2 h"]
    chip = news.locator(".chip").nth(1)
    symbol = chip.inner_text()
    chip.click()
    desk.until(lambda: desk.value("document.querySelector('#i-symbol').textContent") == symbol, 10, "the chip's symbol")
    menu(desk, "news", "Settings")
    desk.page.get_by_role("combobox", name="Show").select_option("chosen")
    desk.page.get_by_role("button", name="Apply").click()
    desk.until(
        lambda: any(f"> {symbol} rises" in title for title in desk.texts('[data-widget="news"] .news-title')), 15, "its news"
    )


@pytest.mark.parametrize("scheme", ["dark", pytest.param("light", marks=pytest.mark.faults)])
def test_axe_finds_nothing_grave_in_what_is_new(opened: Open, person: Person, scheme: str) -> None:
    """Every kind of widget, and every dialog; also in the colours for whoever cannot tell red from green."""
    every_kind(person)
    desk = opened("AAPL", scheme=scheme)
    desk.until(lambda: desk.texts(".halts tbody tr:not([hidden])"), 20, "a halt")
    assert desk.texts(".halts tbody th") == [HALTED]
    desk.page.evaluate(AXE.read_text())
    assert desk.page.evaluate(GRAVE) == [], "all widgets"
    for name, commands in (("layouts", "Layouts"), ("widgets", "Add a widget"), ("settings", "Settings of Quotes")):
        command(desk, commands)
        assert desk.page.evaluate(GRAVE) == [], "the palette"
        desk.page.keyboard.press("Enter")
        expect(desk.page.locator("dialog.account")).to_be_visible()
        assert desk.page.evaluate(GRAVE) == [], name
        desk.page.keyboard.press("Escape")
    desk.page.locator(".more").first.click()
    assert desk.page.evaluate(GRAVE) == [], "a menu"
    desk.page.keyboard.press("Escape")
    command(desk, "blue and orange")
    desk.page.keyboard.press("Enter")
    assert desk.page.evaluate(GRAVE) == [], "blue and orange"


def test_a_phone_shows_every_kind(opened: Open, person: Person) -> None:
    """In tabs; nothing is wider than the screen, and nothing of a desk's tools is in the way."""
    every_kind(person)
    desk = opened("BTC-PERP", view=(390, 844), has_touch=True)
    desk.until(lambda: desk.page.locator(".tabs button:visible").count() == 6, 10, "six tabs")
    seen = set()
    for tab in ("quotes", "chart", "depth", "boards", "alerts", "more"):
        desk.page.tap(f'.tabs [data-tab="{tab}"]')
        seen.update(
            desk.value("[...document.querySelectorAll('.panel')].filter(e => e.checkVisibility()).map(e => e.dataset.widget)")
        )
        assert desk.value("document.documentElement.scrollWidth <= innerWidth"), tab
        assert desk.value(OVERLAPS) == 0, tab
    assert seen == set(KINDS)


def test_stale_looks_stale_in_every_widget(plane: Plane, opened: Open, person: Person) -> None:
    """Without the stream every panel says so and loses its colours."""
    every_kind(person)
    desk = opened("BTC-PERP")
    plane.stream.send_signal(signal.SIGSTOP)
    try:
        desk.until(lambda: desk.value("document.documentElement.dataset.feed") == "stale", 30, "stale")
        said = "[...document.querySelectorAll('.panel')].map(e => [e.dataset.widget, ['.head', '.chart-head', '.who'].some(s => e.querySelector(s) && getComputedStyle(e.querySelector(s), '::after').content === '\"stale\"')])"
        assert dict(desk.value(said)) == dict.fromkeys(KINDS, True)
        grey = "(s => s.getPropertyValue('--up') === s.getPropertyValue('--dim'))(getComputedStyle(e))"
        assert all(desk.value(f"[...document.querySelectorAll('.panel')].map(e => {grey})"))
    finally:
        plane.stream.send_signal(signal.SIGCONT)
    desk.live(40)


def test_the_first_view_is_small(opened: Open) -> None:
    """Without dialogs and chart: what a browser loads before anything else is at most 150 kB compressed, with its font."""
    page = (build.OUT / "index.html").read_text()
    first = set(re.findall(r'/static/app/(assets/[^"]+)"', page))
    styles = "".join((build.OUT / name).read_text() for name in first if name.endswith(".css"))
    first |= {f"assets/{name}" for name in re.findall(r"([\w-]+-[\w-]+\.woff2)", styles)}
    sizes = {name: len(gzip.compress((build.OUT / name).read_bytes())) for name in first}
    assert len(sizes) >= 3
    assert sum(sizes.values()) + len(gzip.compress(page.encode())) <= 150_000, sizes
    opened()
