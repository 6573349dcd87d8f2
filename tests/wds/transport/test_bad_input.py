"""Greedy and confused clients over real sockets: each gets a documented answer, and others are served as before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.raw import Raw
from tests.wds.talk import Talk
from wds.server import Server

Token = Callable[..., str]


async def test_twenty_thousand_subscriptions_are_refused_in_few_bytes(serve: Any, publisher: Publisher, token: Token) -> None:
    """200 are joined, each of the others has `limit`; refusals are short, and one who asked in time goes on."""
    wds: Server = await serve(commands_burst=2000)
    await publisher.publish("quote:A", {"last": 1})
    other = await Talk.to(wds.port, token())
    await other.ask(op="sub", ch=["quote:A"], hz="raw")
    talk = await Talk.to(wds.port, token())
    for at in range(0, 20_000, 500):
        await talk.send(id=at, op="sub", ch=[f"quote:S{n:05d}" for n in range(at, at + 500)])
    replies = [await talk.find(20, id=at) for at in range(0, 20_000, 500)]
    outcomes = [one for reply in replies for one in reply["subs"]]
    assert len([one for one in outcomes if "error" not in one]) == 200
    assert {one["error"]["code"] for one in outcomes if "error" in one} == {"limit"}
    assert not any(one["error"]["retry"] for one in outcomes if "error" in one)
    assert len([one for one in replies[-1]["subs"] if one["error"].get("message")]) == 1
    await publisher.publish("quote:A", {"last": 2})
    await other.find(1, t="upd", ch="quote:A")
    for one in (talk, other):
        assert one.code is None
        await one.close()


async def test_a_pattern_that_matches_nothing_waits_for_something(wds: Server, publisher: Publisher, token: Token) -> None:
    """A sub succeeds with `matched` 0 and joins what comes; a get says `unavailable`, retry."""
    talk = await Talk.to(wds.port, token())
    assert (await talk.ask(op="sub", ch=["halts:*"]))["subs"] == [{"ch": "halts:*", "hz": 4, "matched": 0}]
    (line,) = (await talk.ask(op="get", ch=["book:*"]))["snaps"]
    assert (line["ch"], line["error"]["code"], line["error"]["retry"]) == ("book:*", "unavailable", True)
    await publisher.publish("halts:A", {"state": "halted"})
    assert (await talk.find(t="snap", ch="halts:A"))["data"] == {"state": "halted"}
    await talk.close()


async def test_a_token_that_ends_in_mid_command_ends_with_4201(
    wds: Server, publisher: Publisher, token: Token, monkeypatch: Any
) -> None:
    """The command that was being answered gets no reply; the bye says when to come back, and nothing is written after it."""
    stuck = asyncio.Event()

    async def slow(*_: Any) -> None:
        await stuck.wait()

    monkeypatch.setattr(wds.upstream, "fetch", slow)
    raw = await Raw.to(wds.port, 65_536)
    await raw.sign_in(token(ttl_s=2))
    await raw.send(id=7, op="get", ch=["quote:A"])
    await raw.send(id=8, op="sub", ch=["quote:B"])
    bye = await raw.find(8, t="bye")
    assert (bye["code"], bye["after_ms"] < 1000) == (4201, True)
    stuck.set()
    await until(lambda: raw.read() and raw.all(t="close"))
    assert raw.all(t="close")[0]["code"] == 4201
    assert not raw.all(id=7) + raw.all(id=8)
    assert not wds.hub.members
    raw.close()


async def test_gets_of_one_do_not_slow_others_down(serve: Any, publisher: Publisher, token: Token) -> None:
    """100 pipelined gets of 480 KiB each: all are answered, and another client's small ones in between wait for none of them."""
    wds: Server = await serve(subs_max=5000, commands_burst=100_000)
    await publisher.store([f"quote:S{n:05d}" for n in range(3000)], {"last": 1.0, "pad": "x" * 300})
    greedy, other = await Raw.to(wds.port, 65_536), await Talk.to(wds.port, token())
    await greedy.sign_in(token())
    for number in range(1, 101):
        await greedy.send(id=number, op="get", ch=["quote:*"])
    slowest, answered = 0.0, 0
    while answered < 100:
        began = time.monotonic()
        assert (await other.ask(op="get", ch=["quote:S00001"]))["ok"]
        slowest = max(slowest, time.monotonic() - began)
        greedy.read()
        answered = len({one["id"] for one in greedy.all(ok=True) if one["id"]})
    assert slowest < 1.5  # the greedy one parses its 48 MB in the same loop
    greedy.close()
    await other.close()
