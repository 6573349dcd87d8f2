"""Real sockets with small buffers stall and recover at every step of the ladder: each step is left again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.raw import Raw, connection_of
from tests.wds.talk import Talk
from wds.fanout.outbox import Step
from wds.server import Server

Token = Callable[..., str]
CHANNELS = ["quote:A", "trades:A"]


async def stall(wds: Server, publisher: Publisher, raw: Raw, name: str, step: Step) -> None:
    """Publish until the client that does not read stands on this step."""
    connection = connection_of(wds, name)
    assert connection.member is not None
    for n in range(1, 10_000):
        if connection.member.outbox.step is step:
            return
        await publisher.publish("quote:A", {"last": n, "pad": "x" * 2000})
        await publisher.publish("trades:A", {"n": n, "pad": "x" * 2000})
        await asyncio.sleep(0.002)
    raise AssertionError(f"never came to {step.name}")


@pytest.mark.parametrize("step", [Step.CONFLATE, Step.PAUSE])
async def test_each_step_is_left_when_the_socket_has_drained(serve: Any, publisher: Publisher, token: Token, step: Step) -> None:
    """A client that reads again is open within two seconds, gets what it missed and then everything at once."""
    wds = await serve(slow_pause_s=0.3, slow_close_s=60, buffer_high_bytes=16_384, buffer_low_bytes=4096, ping_s=1)
    raw = await Raw.to(wds.port)
    name = await raw.sign_in(token())
    await raw.send(id=1, op="sub", ch=CHANNELS, hz="raw")
    await raw.find(id=1)
    await stall(wds, publisher, raw, name, step)
    member = connection_of(wds, name).member
    assert member is not None
    await until(lambda: raw.read(3000) and member.outbox.step is Step.OPEN, 5, f"{step.name} to be left")
    seq = await publisher.publish("quote:A", {"last": -1})
    upd = await raw.find(2, t="upd", seq=seq)
    assert upd["data"]["last"] == -1
    raw.close()


async def test_a_trickling_client_passes_every_step_and_recovers(serve: Any, publisher: Publisher, token: Token) -> None:
    """It reads a little now and then, then everything: it ends open, live and at the newest state."""
    wds = await serve(slow_pause_s=0.3, slow_close_s=60, buffer_high_bytes=16_384, buffer_low_bytes=4096, ping_s=1)
    raw = await Raw.to(wds.port)
    name = await raw.sign_in(token())
    await raw.send(id=1, op="sub", ch=CHANNELS, hz="raw")
    await raw.find(id=1)
    member = connection_of(wds, name).member
    assert member is not None
    for _ in range(2):
        for step in (Step.CONFLATE, Step.PAUSE):
            await stall(wds, publisher, raw, name, step)
            raw.read(2000)
        await until(lambda: raw.read(3000) and member.ready, 5)
    seq = await publisher.publish("trades:A", {"n": "last"})
    await raw.find(3, t="event", seq=seq)
    raw.close()


async def test_who_recovers_hears_whether_data_is_live(serve: Any, publisher: Publisher, token: Token) -> None:
    """What turned stale, or live again, while a client was stalled is told as soon as it reads again."""
    wds = await serve(slow_pause_s=0.3, slow_close_s=60, buffer_high_bytes=16_384, buffer_low_bytes=4096, ping_s=1)
    await until(lambda: wds.hub.verdict.state == "live")
    raw = await Raw.to(wds.port)
    name = await raw.sign_in(token())
    await raw.send(id=1, op="sub", ch=CHANNELS, hz="raw")
    await raw.find(id=1)
    await stall(wds, publisher, raw, name, Step.PAUSE)
    publisher.start_beat({"sources": {"s": {"state": "refused"}}, "ts": 0}, 0.05)
    await until(lambda: wds.hub.verdict.state == "stale")
    await raw.find(5, t="status", ch="quote:A", state="stale")
    await stall(wds, publisher, raw, name, Step.PAUSE)
    publisher.start_beat(every_s=0.05)
    await until(lambda: wds.hub.verdict.state == "live")
    await raw.find(5, t="status", ch="quote:A", state="live")
    raw.close()


async def test_a_resumed_tab_hears_the_state_of_everything(wds: Server, publisher: Publisher, token: Token) -> None:
    """The reply to `set` says whether the pipeline is live; what is not is told again, whatever was told before."""
    await publisher.publish("quote:A", {"last": 1})
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["quote:A"])
    assert (await talk.ask(op="set", paused=True))["state"] == "live"
    assert (await talk.ask(op="set", paused=False))["state"] == "live"
    publisher.start_beat({"sources": {"s": {"state": "refused"}}, "ts": 0}, 0.05)
    await talk.find(t="status", ch="quote:A", state="stale")
    await talk.ask(op="set", paused=True)
    reply = await talk.ask(op="set", paused=False)
    assert (reply["state"], reply["reason"]) == ("stale", "feed refused")
    assert len(await talk.count(2, t="status", ch="quote:A", state="stale")) == 2
    await talk.close()
