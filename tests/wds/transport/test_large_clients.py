"""Clients of thousands of channels, over real sockets: they hear everything, within bounds, and stop nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.raw import Raw, connection_of
from tests.wds.talk import Talk

Token = Callable[..., str]
LARGE = {"subs_max": 12_000, "commands_burst": 100_000, "read_timeout_s": 20.0}


def long_names(count: int) -> list[str]:
    """Return channel names of 70 characters."""
    return [f"quote:{'N' * 56}{n:08d}" for n in range(count)]


def told_stale(raw: Raw) -> set[str]:
    """Return the channels of which the last word was not `live`."""
    return {ch for ch, state in {one["ch"]: one["state"] for one in raw.all(t="status")}.items() if state != "live"}


async def subscribe(talk: Any, names: list[str]) -> None:
    """Subscribe in commands that fit the frame limit."""
    for at in range(0, len(names), 180):
        await talk.send(id=at, op="sub", ch=names[at : at + 180])


async def test_ten_thousand_long_names_outlive_an_outage_of_the_cache(serve: Any, publisher: Publisher, token: Token) -> None:
    """A client that does not read while 10,000 channels turn stale is not closed for it, and all others are told as ever."""
    wds = await serve(**LARGE)
    await until(lambda: wds.hub.verdict.state == "live")
    small = await Talk.to(wds.port, token())
    assert (await small.ask(op="sub", ch=["quote:A"]))["ok"]
    large = await Raw.to(wds.port, 65_536)
    name = await large.sign_in(token())
    names = long_names(10_000)
    await subscribe(large, names)
    connection = connection_of(wds, name)
    await until(lambda: large.read() and connection.member and len(connection.member.groups) == 10_000, 30)
    most = 0
    for up in (False, True):
        wds.upstream._on_state(up, "" if up else "gone")
        await until(lambda: not wds.hub.chores)  # it is told in slices: an outage shorter than that is told to nobody
        most = max(most, connection.buffered_bytes)
    assert (await small.find(t="status", ch="quote:A", state="stale"))["reason"].startswith("cache unavailable")
    await small.find(t="status", ch="quote:A", state="live")
    assert most < 256 * 1024
    await until(lambda: large.read() and told_stale(large) == set(), 20)
    assert large.all(t="status", state="stale")
    assert not large.ended
    assert not wds.failed.done()
    await publisher.publish("quote:A", {"last": 7})
    assert (await small.find(t="snap", ch="quote:A"))["data"] == {"last": 7}
    large.close()
    await small.close()


async def test_a_get_of_seven_thousand_closes_nobody(serve: Any, publisher: Publisher, token: Token) -> None:
    """What fits is answered, what does not is said in one line; only what is answered is read; the client stays."""
    wds = await serve(**LARGE)
    names = [f"quote:S{n:05d}" for n in range(7000)]
    await publisher.store(names, {"last": 1.0, "pad": "x" * 2000})
    talk = await Talk.to(wds.port, token())
    for number in range(3):
        await talk.send(id=number, op="get", ch=["quote:*"])
    for number in range(3):
        reply = await talk.find(30, id=number)
        good = [snap for snap in reply["snaps"] if "error" not in snap]
        bad = [snap for snap in reply["snaps"] if "error" in snap]
        assert len(good) > 50
        assert [(snap["ch"], snap["error"]["code"], snap["matched"]) for snap in bad] == [("quote:*", "limit", 7000)]
        assert str(7000 - len(good)) in bad[0]["error"]["message"]
    assert talk.code is None
    await talk.close()


async def test_a_pattern_over_5572_quotes_gets_them_all(serve: Any, publisher: Publisher, token: Token) -> None:
    """A page with small buffers that reads in fits and starts sees every quote, and the next change of each."""
    wds = await serve(**LARGE, slow_pause_s=0.2)
    names = [f"quote:S{n:05d}" for n in range(5572)]
    await publisher.store(names, {"last": 1.0, "pad": "x" * 300})
    raw = await Raw.to(wds.port, 8192)
    await raw.sign_in(token())
    await raw.send(id=1, op="sub", ch=["quote:*"])
    reply = await raw.find(30, id=1)
    assert next(one for one in reply["subs"] if one["ch"] == "quote:*")["matched"] == 5572
    for _ in range(40):  # slowly at first: it passes conflate and pause
        raw.read(16_384)
        await asyncio.sleep(0.02)
    await until(lambda: raw.read() and len({one["ch"] for one in raw.all(t="snap")}) == 5572, 30)
    for name in names[:50]:
        await publisher.publish(name, {"last": 2.0})
    await until(lambda: raw.read() and len({one["ch"] for one in raw.all(t="upd")} & set(names[:50])) == 50, 10)
    raw.close()


async def test_a_hundred_pipelined_gets_wait_for_a_client_that_does_not_read(
    serve: Any, publisher: Publisher, token: Token
) -> None:
    """Replies count against the ladder: they are made as the client reads, never piled up in memory."""
    wds = await serve(**LARGE)
    names = [f"quote:S{n:05d}" for n in range(300)]
    await publisher.store(names, {"last": 1.0, "pad": "x" * 1000})
    raw = await Raw.to(wds.port, 8192)
    name = await raw.sign_in(token())
    connection = connection_of(wds, name)
    other = await Talk.to(wds.port, token())
    most = 0
    for number in range(1, 101):
        await raw.send(id=number, op="get", ch=["quote:*"])
    for _ in range(50):
        assert (await other.ask(op="get", ch=["quote:S00001"]))["ok"]
        most = max(most, connection.buffered_bytes)
    assert most < 700_000, "one reply, and what the ladder lets pass"
    await until(lambda: raw.read() and len({one["id"] for one in raw.all(ok=True)}) == 101, 30)
    assert not raw.ended
    raw.close()
    await other.close()
