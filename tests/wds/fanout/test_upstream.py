"""Checks what clients are told when a real Redis stops, restarts empty or hangs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.servers import Redis
from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.talk import Talk

pytestmark = pytest.mark.live
Token = Callable[..., str]


@pytest.fixture
def cache_url(redis_server: Redis) -> str:
    """A private Redis: it is stopped here."""
    return str(redis_server.url)


@pytest.fixture
async def publisher(cache_url: str) -> AsyncIterator[Publisher]:
    publisher = Publisher(cache_url)
    await publisher.empty("k1")
    publisher.start_beat()
    yield publisher
    await publisher.close()


async def test_documents_flow_from_redis_to_a_client(wds: Any, publisher: Publisher, token: Token) -> None:
    """Snap, updates, history and lists work against the real server as against the in-process one."""
    await publisher.publish("quote:A", {"last": 1})
    await publisher.close_bar("bars:1m:A", [1], [2])
    await publisher.publish("bars:1m:A", {"t": 3, "i": 3})
    await publisher.publish("trades:A", {"n": 1}, {"n": 2})
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["quote:*", "bars:1m:*", "trades:A"], hz="raw")
    snaps = await talk.count(3, t="snap")
    assert [snap["seq"] for snap in snaps] == [1, 1, 2]
    assert snaps[1]["data"]["history"] == [[1], [2]]
    await publisher.publish("quote:A", {"last": 2})
    assert (await talk.find(t="upd"))["data"] == {"last": 2}
    await talk.close()


async def test_an_outage_is_told_and_ends_in_fresh_snaps(
    serve: Any, publisher: Publisher, token: Token, redis_server: Redis
) -> None:
    """Redis gone: stale, get unavailable, subscriptions still accepted, not ready. Back and empty: live, snaps of a new epoch."""
    wds = await serve()
    await until(lambda: wds.hub.verdict.state == "live")
    await publisher.publish("quote:A", {"last": 1})
    await publisher.publish("trades:A", {"n": 1})
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["quote:A", "trades:A"], hz="raw")
    await talk.count(2, t="snap")
    publisher.stop_beat()
    redis_server.stop()
    stale = await talk.find(t="status", ch="quote:A", state="stale")
    assert stale["reason"].startswith("cache unavailable")
    assert wds.ready()
    assert (await talk.ask(op="get", ch=["quote:Z"]))["snaps"][0]["error"]["code"] == "unavailable"
    assert "error" not in (await talk.ask(op="sub", ch=["quote:B"], hz="raw"))["subs"][0]
    redis_server.start()
    back = Publisher(redis_server.url, epoch="k2")
    await until(lambda: wds.upstream.up, seconds=10)
    back.start_beat()
    await talk.find(t="status", ch="quote:A", state="live", seconds=10)
    for channel in ("quote:A", "quote:B"):
        await back.publish(channel, {"last": 5})
        snap = await talk.find(t="snap", ch=channel, epoch="k2")
        assert (snap["seq"], snap["data"]) == (1, {"last": 5})
    await back.publish("trades:A", {"n": 9})
    assert (await talk.find(t="snap", ch="trades:A", epoch="k2"))["data"] == [{"n": 9}]
    await back.close()
    await talk.close()


async def test_events_during_a_short_break_are_replayed(
    serve: Any, publisher: Publisher, token: Token, redis_server: Redis
) -> None:
    """When only our connections break, what was missed is read from the list; what the list lost is declared."""
    wds = await serve()
    await publisher.publish("trades:A", {"n": 1})
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["trades:A"], hz="raw")
    await talk.find(t="snap")
    await wds.upstream._reader._redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await publisher.publish("trades:A", *({"n": n} for n in range(2, 61)))
    await talk.find(t="event", seq=60, seconds=10)
    events = talk.all(t="event")
    lost = sum(item["n"] for item in talk.all(t="lost"))
    assert len(events) + lost == 59
    assert [event["data"]["n"] for event in events] == list(range(61 - len(events), 61))
    await talk.close()


async def test_a_frozen_redis_never_holds_a_reply_for_long(
    serve: Any, publisher: Publisher, token: Token, redis_server: Redis
) -> None:
    """A Redis that hangs makes get unavailable within the read deadline, and subscriptions stale."""
    wds = await serve(read_timeout_s=0.3, silence_s=0.5)
    await until(lambda: wds.hub.verdict.state == "live")
    talk = await Talk.to(wds.port, token())
    redis_server.freeze()
    try:
        assert (await talk.ask(op="get", ch=["quote:A"]))["snaps"][0]["error"]["code"] == "unavailable"
        assert (await talk.ask(op="sub", ch=["quote:A"]))["ok"]
        await talk.find(t="status", ch="quote:A", state="stale")
    finally:
        redis_server.thaw()
    await talk.find(t="status", ch="quote:A", state="live", seconds=10)
    await talk.close()
