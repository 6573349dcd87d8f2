"""Attacks a running exchange from web pages in a real Chromium: another local port, a rebound name, a form, a WebSocket."""

from __future__ import annotations

import functools
import http.server
import json
import signal
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine_process import OPERATOR, EngineProcess
from tests.live.page.browser import chromium

pytestmark = pytest.mark.live

# What a page tries; each attempt tells whether it got anything.
ATTACKS = """async (engine) => {
  const tried = async (what) => { try { return await what(); } catch (error) { return "nothing"; } };
  const post = (type, mode) => fetch(`${engine}/Account/1/Withdraw`, {
    method: "POST", mode, headers: type ? { "Content-Type": type } : {}, body: JSON.stringify({ amount: 1000 }) });
  const read = async (response) => response.type === "opaque" || !response.ok ? "nothing" : await response.text();
  return {
    form: await tried(async () => read(await post("text/plain", "no-cors"))),
    plain: await tried(async () => read(await post("text/plain", "cors"))),
    json: await tried(async () => read(await post("application/json", "cors"))),
    book: await tried(async () => read(await fetch(`${engine}/Account/1`))),
    suspend: await tried(async () => read(await fetch(`${engine}/ExchangeWideControls/SuspendTrading`, { method: "PUT" }))),
    joined: await new Promise((done) => {
      const socket = new WebSocket(engine.replace("http", "ws") + "/joined?storeId=audit&lastSeen=0");
      socket.onmessage = (event) => done(event.data);
      socket.onclose = () => done("nothing");
    }),
  };
}"""
NOTHING = dict.fromkeys(("form", "plain", "json", "book", "suspend", "joined"), "nothing")


@contextmanager
def page_server(folder: Path) -> Iterator[int]:
    """Serve an empty page on a port of its own."""
    (folder / "index.html").write_text("<!doctype html><title>a page</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def ask(engine: EngineProcess, method: str, path: str, body: Any = None) -> Any:
    """Ask as a program does."""
    data = None if body is None else json.dumps(body).encode()
    headers = OPERATOR | ({"Content-Type": "application/json"} if body is not None else {})
    request = urllib.request.Request(f"{engine.url}{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    """An exchange with a rich account and a message store."""
    started = EngineProcess(tmp_path)
    started.start()
    started.ready()
    ask(started, "PUT", "/MessageStore?storeId=audit")
    ask(started, "POST", "/Account/1/Deposit", {"amount": 1_000_000})
    yield started
    assert started.end(signal.SIGTERM) == 0


def test_a_page_gets_nothing_from_the_exchange(engine: EngineProcess, tmp_path: Path) -> None:
    """Served by another local port, or reaching the exchange by a public name that points here: no money, no order, no message."""
    pages = tmp_path / "pages"
    pages.mkdir()
    with page_server(pages) as port, chromium("--host-resolver-rules=MAP rebound.example 127.0.0.1") as browser:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        assert page.evaluate(ATTACKS, engine.url) == NOTHING
        rebound = f"http://rebound.example:{engine.port}"
        answer = page.goto(f"{rebound}/docs/")  # the page is of the attacker's own origin now, and so is the exchange
        assert answer is not None
        assert answer.status == 421
        assert page.evaluate(ATTACKS, rebound) == NOTHING
        admin = page.goto(f"http://rebound.example:{engine.admin_port}/metrics")
        assert admin is not None
        assert admin.status == 421
    account = ask(engine, "GET", "/Account/1")
    assert account["balance"] == 1_000_000
    assert ask(engine, "GET", "/ExchangeWideControls")["suspended"] in (False, [])


def test_the_exchanges_own_documentation_works_in_a_browser(engine: EngineProcess) -> None:
    """Its page may try the routes that it describes, with a key: it is of the same origin."""
    with chromium() as browser:
        page = browser.new_page()
        answer = page.goto(f"{engine.url}/docs/")
        assert answer is not None
        assert answer.status == 200
        ask = "async (headers) => (await (await fetch('/Account/1', { headers })).json()).balance"
        assert page.evaluate(ask, {}) is None, "the page itself has no key"
        balance = page.evaluate(ask, OPERATOR)
        assert balance == 1_000_000
