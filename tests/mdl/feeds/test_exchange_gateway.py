"""The exchange's HTTP: the token stays with the server it is meant for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mdl.feeds.exchange_gateway import Gateway
from mdl.feeds.feed import FeedClosed


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def redirecting(heard: list[str]) -> Iterator[str]:
    """The address of a server that sends everybody to another one, which notes the tokens it is shown."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("Authorization", ""))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

    class First(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{other.server_port}/Instrument")
            self.end_headers()

    other, first = ThreadingHTTPServer(("127.0.0.1", 0), Other), ThreadingHTTPServer(("127.0.0.1", 0), First)
    for server in (other, first):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{first.server_port}"
    for server in (other, first):
        server.shutdown()
        server.server_close()


async def test_a_redirect_is_not_followed(redirecting: str, heard: list[str]) -> None:
    """It would take the token along."""
    with pytest.raises(FeedClosed, match="302"):
        await Gateway(redirecting, "secret").instruments()
    assert not heard
