"""Checks the cheap clients of the container drills against a worker: what they report has to be what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.containers.crowd import Place, Viewer
from tests.containers.upgrade import spread
from tests.waiting import until
from tests.wds.publisher import Publisher
from wds.server import Server

CHANNEL = "trades:AAPL"
Serve = Callable[..., Any]


@pytest.fixture
async def viewers(
    serve: Serve, publisher: Publisher, token: Callable[..., str]
) -> AsyncIterator[tuple[Server, Place, list[Viewer]]]:
    """Three clients of one channel that has begun."""
    await publisher.publish(CHANNEL, {"p": 1})
    server = await serve()
    place = Place("127.0.0.1", server.port, token())
    some = [Viewer(place, CHANNEL) for _ in range(3)]
    for one in some:
        place.start(one.connect())
    await until(lambda: all(one.arrived.is_set() for one in some))
    await until(lambda: all(one.kinds.get("snap") for one in some))
    yield server, place, some
    place.open = False


async def test_a_client_that_is_sent_off_resumes_at_another_worker(viewers: Any, serve: Serve, publisher: Publisher) -> None:
    """With the code, the steps of its way back, and every print once, those of the time between too."""
    server, place, some = viewers
    await publisher.publish(CHANNEL, {"p": 2}, {"p": 3})
    await until(lambda: all(one.kinds.get("event") == 2 for one in some))
    place.port = (await serve()).port
    await server.drain()
    await publisher.publish(CHANNEL, {"p": 4})
    await until(lambda: all(one.losses and one.away is None and one.kinds["event"] == 3 for one in some), 10)
    told = spread([[vars(loss) for loss in one.losses] for one in some])
    assert (told["lost"], told["twice"], told["refused"]) == ({4200: 3}, 0, {})
    assert 0.2 <= told["told_s"][0] <= told["away_s"][1] <= told["told_s"][1] + 2
    assert [(one.kinds, one.skipped, one.declared) for one in some] == [({"snap": 1, "event": 3}, 0, 0)] * 3


async def test_a_server_that_is_gone_is_tried_again_and_the_tries_are_told(viewers: Any, serve: Serve) -> None:
    """Nobody listens for a while; the client says so, and comes back."""
    server, place, some = viewers
    for connection in list(server.roster):
        connection.cut()
    await server.stop()
    await until(lambda: all(one.losses and one.losses[0].refusals for one in some), 10)
    place.port = (await serve()).port
    await until(lambda: all(one.away is None for one in some), 20)
    assert {loss.code for one in some for loss in one.losses} == {1006}


async def test_a_step_in_the_numbers_is_counted(viewers: Any) -> None:
    """A frame that does not follow the one before is a gap; what the server declares lost is none."""
    _, _, (one, *_) = viewers
    seq = one._since["seq"]
    one._hear({"t": "event", "ch": CHANNEL, "prev": seq, "seq": seq + 1})
    one._hear({"t": "lost", "ch": CHANNEL, "n": 4})
    one._hear({"t": "event", "ch": CHANNEL, "prev": seq + 5, "seq": seq + 6})
    assert (one.skipped, one.declared) == (0, 4)
    one._hear({"t": "event", "ch": CHANNEL, "prev": seq + 7, "seq": seq + 8})
    assert (one.skipped, one.declared) == (1, 4)
