"""Paper trading in the browser on the real exchange with its bots: from a click in the ladder to a fill, and nobody else sees it."""

from __future__ import annotations

import os
import re
import signal

import pytest
from playwright.sync_api import Browser, expect

from tests.live.page.browser import Desk
from tests.live.page.test_access import AXE, GRAVE
from tests.local_run import LocalRun
from tests.signing import another

pytestmark = pytest.mark.live

RUN = {"FEED": "engine", "BOTS_RATE": "20"}
PATIENCE_MS = 60_000


def opened(browser: Browser, run: LocalRun, role: str, scheme: str = "dark") -> Desk:
    """Return the page of somebody with a role, on the contract's ladder."""
    cookie = another(run.port("SCP_PORT"), run.cookies()[0], role)
    desk = Desk(browser, f"http://127.0.0.1:{run.port('SCP_PORT')}/#BTC-PERP", scheme, cookies=[cookie])
    desk.page.set_default_timeout(PATIENCE_MS)
    desk.live(60)
    return desk


def test_from_the_ladder_to_a_fill(run: LocalRun, browser: Browser) -> None:
    """A click fills the ticket and sends nothing; an order rests, is changed and cancelled; another one trades with the bots."""
    desk = opened(browser, run, "trader")
    page = desk.page
    page.click("#add")
    page.click(".widget-kind:has-text('Paper orders')")
    page.click("text=Open a paper account with 1,000,000")
    panel = page.locator("#orders")
    expect(panel.locator(".note")).to_contain_text("Equity 1,000,000.00", timeout=PATIENCE_MS)

    page.locator(".rung.bid:not([data-rung=none])").last.click()
    at = panel.get_by_label("Price", exact=True).input_value()
    assert float(at) > 0
    assert panel.locator("[data-side=Buy][aria-pressed=true]").count() == 1
    expect(panel.locator(".trade-none")).to_be_visible()
    panel.get_by_label("Size", exact=True).fill("0.0105")
    expect(panel.locator("form .go")).to_be_disabled()
    panel.get_by_label("Size", exact=True).fill("0.010")
    panel.locator("form .go").click()
    resting = panel.get_by_role("region", name="Open orders").locator("tbody tr")
    expect(resting).to_have_text(re.compile(r"BTC-PERP\s*Buy\s*0\.010\s*0\.000"), timeout=PATIENCE_MS)

    panel.get_by_label("Change Buy 0.010 BTC-PERP").click()
    panel.get_by_label("Size", exact=True).fill("0.007")
    panel.locator("form .go").click()
    expect(resting).to_contain_text("0.007", timeout=PATIENCE_MS)

    panel.get_by_label("Kind of order").select_option("market")
    panel.get_by_role("button", name="Sell").first.click()
    panel.get_by_label("Size", exact=True).fill("0.002")
    panel.locator("form .go").click()
    expect(panel.get_by_role("region", name="Positions").locator("tbody tr")).to_contain_text("−0.002", timeout=PATIENCE_MS)
    expect(panel.get_by_role("region", name="Fills").locator("tbody tr").first).to_contain_text("Sell", timeout=PATIENCE_MS)
    page.evaluate(AXE.read_text())
    assert page.evaluate(GRAVE) == []

    panel.get_by_label("Cancel Buy 0.007 BTC-PERP").click()
    expect(panel.locator(".trade-none")).to_be_visible(timeout=PATIENCE_MS)
    assert desk.complaints == []
    desk.close()


def test_who_may_not_trade_sees_nothing_of_it(run: LocalRun, browser: Browser) -> None:
    """No widget is offered to a viewer, and the API refuses."""
    desk = opened(browser, run, "viewer")
    desk.page.click("#add")
    desk.page.wait_for_selector(".widget-kind:has-text('Depth')")
    assert desk.page.locator(".widget-kind:has-text('Paper orders')").count() == 0
    assert desk.page.evaluate("fetch('/api/v1/paper').then((answer) => answer.status)") == 403
    desk.close()


def test_an_answer_that_is_lost_makes_no_second_order(run: LocalRun, browser: Browser) -> None:
    """The order arrives, its answer does not: what the page sends again is the same order."""
    desk = opened(browser, run, "trader")
    page, lost = desk.page, []
    page.click("#add")
    page.click(".widget-kind:has-text('Paper orders')")
    page.click("text=Open a paper account with 1,000,000")
    panel = page.locator("#orders")
    expect(panel.locator(".note")).to_contain_text("Equity", timeout=PATIENCE_MS)

    def lose(route: object) -> None:
        if len(lost) < 2:
            lost.append(route.fetch().status)  # type: ignore[attr-defined]
            route.abort()  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    page.route("**/api/v1/paper/orders", lose)
    page.locator(".rung.bid:not([data-rung=none])").last.click()
    panel.get_by_label("Size", exact=True).fill("0.010")
    panel.locator("form .go").click()
    expect(panel.locator(".trade-said")).to_have_text("Buy 0.010 BTC-PERP: open", timeout=PATIENCE_MS)
    assert lost == [200, 200]
    assert page.evaluate("fetch('/api/v1/paper').then((answer) => answer.json()).then((desk) => desk.orders.length)") == 1
    desk.close()


ELSEWHERE = """async ([method, path, body]) => {
  const { csrf } = await (await fetch("/api/v1/me")).json();
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": csrf, "Idempotency-Key": crypto.randomUUID() };
  const answer = await fetch(`/api/v1/paper/${path}`, { method, headers, body: body && JSON.stringify(body) });
  return [answer.status, await answer.json()];
}"""


def test_what_happens_elsewhere_is_pushed_to_the_page(run: LocalRun, browser: Browser) -> None:
    """Another tab of the same person enters orders: they appear, a fill moves the position, without a reload or a question a second.
    The exchange is killed: what is shown looks stale, then goes on."""
    url = f"http://127.0.0.1:{run.port('SCP_PORT')}"
    cookie = another(run.port("SCP_PORT"), run.cookies()[0], "trader")
    desk = Desk(browser, f"{url}/#BTC-PERP", "dark", cookies=[cookie])
    page = desk.page
    page.set_default_timeout(PATIENCE_MS)
    desk.live(60)
    context = browser.new_context()
    context.add_cookies([cookie])
    elsewhere = context.new_page()
    elsewhere.goto(f"{url}/docs")

    def ask(method: str, path: str, body: object = None) -> dict[str, object]:
        status, said = elsewhere.evaluate(ELSEWHERE, [method, path, body])
        assert status == 200, said
        return dict(said)

    ask("POST", "account")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/api/v1/paper") else None)
    page.bring_to_front()
    with page.expect_request("**/api/v1/paper/stream", timeout=PATIENCE_MS):
        page.click("#add")
        page.click(".widget-kind:has-text('Paper orders')")
    panel = page.locator("#orders")
    expect(panel.locator(".note")).to_contain_text("Equity 1,000,000.00", timeout=PATIENCE_MS)
    page.wait_for_timeout(1_500)
    asked.clear()
    mark = page.evaluate("fetch('/api/v1/paper').then((answer) => answer.json()).then((desk) => desk.contracts[0].mark)")
    asked.clear()
    order = ask("POST", "orders", {"symbol": "BTC-PERP", "side": "Buy", "qty": 10, "price": round(mark * 0.95)})
    resting = panel.get_by_role("region", name="Open orders").locator("tbody tr")
    expect(resting).to_have_text(re.compile(r"BTC-PERP\s*Buy\s*0\.010\s*0\.000"), timeout=PATIENCE_MS)
    ask("POST", "orders", {"symbol": "BTC-PERP", "side": "Sell", "qty": 2, "price": None})
    position = panel.get_by_role("region", name="Positions").locator("tbody tr")
    expect(position).to_contain_text("\u22120.002", timeout=PATIENCE_MS)
    assert asked == [], "nothing was asked for: it was pushed"

    os.kill(run.pids()["engine"], signal.SIGKILL)
    expect(panel).to_have_attribute("data-state", "stale", timeout=PATIENCE_MS)
    expect(resting).to_be_visible()
    expect(panel).to_have_attribute("data-state", "live", timeout=PATIENCE_MS)
    ask("DELETE", f"orders/{order['id']}")
    expect(panel.locator(".trade-none")).to_be_visible(timeout=PATIENCE_MS)
    expect(position).to_contain_text("\u22120.002")
    context.close()
    desk.close()
