"""The page of the API, in a browser: it shows every route, and tries them as whoever is signed in."""

from __future__ import annotations

import pytest

from tests.live.page.browser import chromium
from tests.scp.conftest import ScpProcess


@pytest.mark.live
def test_the_api_can_be_tried_on_its_page(scp: ScpProcess) -> None:
    """A change carries the page's word; nothing is refused by the page's own policy."""
    complaints: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.context.add_cookies([scp.admin])  # type: ignore[list-item]
        page.goto(f"http://127.0.0.1:{scp.port}/docs#/users/invite")
        page.click("text=Try it out")
        page.fill("textarea", '{"username": "made-on-docs", "role": "viewer"}')
        page.click("button.execute")
        page.wait_for_selector(".live-responses-table >> text=made-on-docs")
    assert complaints == []
