"""One browser a file, one run a file with the market that the file names, and pages on them.

A file says in `RUN` with which variables its market runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.live.page.browser import MARKER, Desk, chromium
from tests.local_run import LocalRun


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    """Everything on free ports, embedded, with what the file says in `RUN`."""
    with LocalRun(tmp_path_factory.mktemp("page") / "run", **request.module.RUN) as started:
        started.says("http://127.0.0.1:")
        yield started
        started.interrupt()
        started.ends()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the whole file, whose processes can be told from others."""
    with chromium(MARKER) as started:
        yield started


@pytest.fixture
def desk(request: pytest.FixtureRequest, run: LocalRun, browser: Browser) -> Iterator[Desk]:
    """A page of the test's own, open and live with a chart, that has not complained at the end.

    A file that has `NOTES`, a script, has it run on the page before anything else. A file whose tests share a page has another.
    """
    opened = Desk(browser, run, script=getattr(request.module, "NOTES", ""))
    opened.live()
    opened.until(lambda: opened.value("tapeline.bars > 0"), 30, "a chart")
    yield opened
    opened.close()
    assert opened.complaints == []


@pytest.fixture
def no_complaints(desk: Desk) -> Iterator[None]:
    """No test leaves an error or a breach of the security policy on the console of the page that the tests share."""
    yield
    assert desk.complaints == []
