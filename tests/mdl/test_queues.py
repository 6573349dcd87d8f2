"""Checks what the listener shows of the queues, how it knows ages, and that a purge is a loss that the consumer counts."""

from __future__ import annotations

from mdl.queues import Ages
from mdq.topology import Queue
from tests.mdl.rig import PARTITIONS, Start, call
from tests.waiting import until

QUEUE = Queue("trades", 3, ttl_ms=5_000)
MS = 1_000_000


def test_the_age_of_the_oldest_that_waits() -> None:
    """The n-th last one published is the oldest of n; who waits longer than we remember is as old as may be."""
    ages = Ages([QUEUE])
    for at_ms, total in ((0, 10), (100, 20), (200, 30), (300, 30)):
        ages.sample({("trades", 3): total}, at_ms * MS)
    assert ages.age_ms(QUEUE, 0, 30, 400 * MS) == 0
    assert ages.age_ms(QUEUE, 1, 30, 400 * MS) == 200
    assert ages.age_ms(QUEUE, 11, 30, 400 * MS) == 300
    assert ages.age_ms(QUEUE, 30, 30, 400 * MS) == 400
    assert ages.age_ms(QUEUE, 40, 30, 400 * MS) == 400, "more than we published: others' are younger than our first"
    ages.sample({("trades", 3): 31}, 20_000 * MS)
    assert ages.age_ms(QUEUE, 1, 31, 20_100 * MS) == 100
    assert ages.age_ms(QUEUE, 1, 40, 20_100 * MS) == 5_000, "what was never sampled is as old as it may be"
    assert ages.age_ms(Queue("quotes", 0), 1, 1, 0) == 5_000


async def test_queues_are_shown_and_purged(start: Start, name: str) -> None:
    """Depth and age grow while nobody reads; a purge empties one queue; names that are none are a 404."""
    listener = await start(f"memory://{name}", rate=2_000, symbols=50)

    async def found() -> dict[str, dict[str, float]]:
        answer = await call(listener, "GET", "/queues")
        return {queue["name"]: queue for queue in answer.json()["queues"]}

    async def waiting() -> bool:
        queue = (await found())["md.quotes.1"]
        return queue["depth"] > 3 and queue["age_ms"] > 0

    await until(waiting, 10)
    queues = await found()
    assert len(queues) == 6 * PARTITIONS + 2
    assert (queues["md.quotes.1"]["consumers"], queues["md.quotes.1"]["ttl_ms"]) == (0, 5_000)
    assert queues["md.quotes.1"]["age_ms"] <= 5_000
    assert (await call(listener, "GET", "/queues", token="wrong")).status_code == 401
    assert (await call(listener, "DELETE", "/queues/md.quotes.1", token="wrong")).status_code == 401
    await call(listener, "POST", "/feed/stop")
    before = (await found())["md.quotes.1"]["depth"]
    purged = (await call(listener, "DELETE", "/queues/md.quotes.1")).json()
    assert 0 < purged["purged_batches"] <= before
    assert (await call(listener, "DELETE", "/queues/md.nothing.0")).status_code == 404
    listener.broker.hub.stop()  # type: ignore[attr-defined]  # the embedded one
    for method, path in (("GET", "/queues"), ("DELETE", "/queues/md.quotes.1")):
        assert (await call(listener, method, path)).status_code == 503
    listener.broker.hub.start()  # type: ignore[attr-defined]


async def test_a_configuration_is_asked_and_taken_whole(start: Start, name: str) -> None:
    """A dry run changes nothing; with `replace` what is not named is as at the start; a change past it forgets the version."""
    listener = await start(f"memory://{name}", rate=100, symbols=30)
    assert (await call(listener, "POST", "/feed?dry_run=true", {"rate": 7})).status_code == 200
    assert (await call(listener, "POST", "/feed?dry_run=true", {"rate": -7})).status_code == 400
    assert (await call(listener, "POST", "/feed?dry_run=true", {"feed": "replay", "tape": "/no/such"})).status_code == 400
    assert listener.settings.rate == 100
    assert (await call(listener, "POST", "/feed?replace=true&version=mdl/1", {"rate": 7})).json()["configuration"] == "mdl/1"
    assert (listener.settings.rate, listener.settings.symbols) == (7, 30)
    await call(listener, "POST", "/feed?replace=true&version=mdl/2", {"symbols": 20})
    assert (listener.settings.rate, listener.settings.symbols, listener.configuration) == (100, 20, "mdl/2")
    assert listener.vitals().more["configuration"] == "mdl/2"
    await call(listener, "POST", "/feed", {"rate": 9})
    assert listener.configuration == ""
