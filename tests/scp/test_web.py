"""scp/web: its types hold, its pure parts do what their own tests say, and nothing of it names a foreign host."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from scp import build
from service.errors import OperatorError
from tests.tapes import absent

DEADLINE_S = 240


@pytest.fixture(scope="module")
def node() -> build.Node:
    """Node.js with the page's packages installed."""
    try:
        build.build()
        return build.find_node()
    except OperatorError as error:
        absent(f"the page cannot be built here: {error}")
        raise


def npm(node: build.Node, script: str) -> None:
    """Run an npm script; its output is the failure's message."""
    environment = build.node_environment(node)
    command = [*node.npm, "run", script]
    done = subprocess.run(command, cwd=build.WEB, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_the_types_hold(node: build.Node) -> None:
    """tsc in its strict mode has nothing to say."""
    npm(node, "check")


def test_the_pure_parts_pass_their_own_tests(node: build.Node) -> None:
    """Formatting, quote table, order, search, bars, freshness."""
    npm(node, "test")


def test_the_built_page_asks_no_other_host(node: build.Node) -> None:
    """Every file it loads is our own; the only foreign address is the chart library's credit, a link."""
    page = (build.OUT / "index.html").read_text()
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert [url for url in loaded if not url.startswith("/static/app/")] == ["https://www.tradingview.com/"]
    for url in (url for url in loaded if url.startswith("/static/app/")):
        assert (build.OUT / url.removeprefix("/static/app/")).is_file()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|style=", page), "the security policy forbids inline code"
    styles = "".join(path.read_text() for path in build.OUT.glob("assets/*.css"))
    assert not re.search(r"https?:|data:|@import", styles)


def test_the_lock_names_no_registry() -> None:
    """Whoever clones this installs from his own registry; every package is pinned by its hash."""
    packages = json.loads((build.WEB / "package-lock.json").read_text())["packages"]
    assert not [name for name, entry in packages.items() if "resolved" in entry]
    assert not [name for name, entry in packages.items() if name and "integrity" not in entry]
