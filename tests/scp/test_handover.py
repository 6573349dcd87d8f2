"""A connection that was handed over is let go when its page does not read, and gives its place back exactly once."""

from __future__ import annotations

import asyncio
import socket

from scp.fleet.paper_streams import PER_PERSON_MAX, Page, PaperStreams, Place
from scp.handover import FIRST, UNREAD_BYTES_MAX, Handed, Stream
from scp.problems import Problem
from tests.waiting import until


class Streams(PaperStreams):
    """The places and pages, without an exchange behind them."""

    def __init__(self) -> None:
        super().__init__(None, 0, lambda known: known)  # type: ignore[arg-type]  # nobody is followed here
        self.pages: list[Page] = []

    def join(self, page: Page, account: int) -> None:
        self.pages.append(page)

    def part(self, page: Page, account: int) -> None:
        self.pages.remove(page)


def free(streams: Streams) -> int:
    """Return how many places a person has left."""
    taken = []
    try:
        while True:
            taken.append(Place(streams, 1, "s", 7))
    except Problem:
        return len(taken)
    finally:
        for place in taken:
            place.leave()


async def test_a_page_that_does_not_read_is_let_go() -> None:
    """What lies before it is bounded; gunicorn's own end of the connection is a dead one from the hand-over on."""
    streams = Streams()
    given, page = socket.socketpair()
    place = Place(streams, 1, "s", 7)
    begun: list[asyncio.Task[None]] = []
    environ = {"gunicorn.socket": given, "SERVER_PROTOCOL": "HTTP/1.1"}
    body = Handed(environ, place, lambda work: begun.append(asyncio.ensure_future(work)))
    assert list(body) == [FIRST]
    given.sendall(b"0\r\n\r\n")
    given.shutdown(socket.SHUT_WR)
    body.close()
    given.close()
    await until(lambda: streams.pages, 5)
    (stream,) = streams.pages
    assert isinstance(stream, Stream)
    stream.send(b"event: x\n\n")
    page.setblocking(False)
    await asyncio.sleep(0)  # what is written to an empty socket is there at once
    assert page.recv(100) == b"a\r\nevent: x\n\n\r\n", "nothing of what gunicorn wrote, and no end"
    assert free(streams) == PER_PERSON_MAX - 1
    for _ in range(3 * UNREAD_BYTES_MAX // 10_000 + 100):
        stream.send(b"x" * 10_000)
    await until(lambda: not streams.pages, 5, "it is let go")
    assert free(streams) == PER_PERSON_MAX
    await asyncio.gather(*begun)
    page.close()


async def test_a_page_that_goes_before_the_first_bytes_gives_its_place_back() -> None:
    """The answer is never begun, or ends at its first bytes."""
    streams = Streams()
    given, page = socket.socketpair()
    for begins in (False, True):
        body = Handed({"gunicorn.socket": given, "SERVER_PROTOCOL": "HTTP/1.1"}, Place(streams, 1, "s", 7), None)
        if begins:
            next(iter(body))
        body.close()
        body.close()
        assert free(streams) == PER_PERSON_MAX
    given.close()
    page.close()
