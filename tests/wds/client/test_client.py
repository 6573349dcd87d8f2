"""The Python client against a real worker: it resumes, repairs and obeys; its pushes are whole states."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.server import serve as websocket_serve

from tests.waiting import until
from tests.wds.publisher import Publisher
from wds.client import Client, WdsError, stream_url
from wds.client.follow import Push

Token = Callable[..., str]


async def until_push(client: Client, wanted: Callable[[Push], bool]) -> Push:
    async with asyncio.timeout(10):
        async for push in client:
            if wanted(push):
                return push
    raise AssertionError("the pushes ended")


async def test_pushes_carry_the_whole_state(wds: Any, publisher: Publisher, token: Token) -> None:
    """Each push shows the channel's copy after it."""
    await publisher.publish("quote:A", {"last": 1, "bid": 1})
    async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
        assert (await client.subscribe("quote:A", hz="raw"))[0]["hz"] == "raw"
        await until_push(client, lambda push: push.kind == "snap")
        await publisher.publish("quote:A", {"last": 2, "bid": 1})
        push = await until_push(client, lambda push: push.kind == "upd")
        assert push.copy is not None
        assert push.copy.data == {"last": 2, "bid": 1}
        assert (await client.get("quote:A"))[0]["seq"] == 2
        with pytest.raises(WdsError, match="bad_request"):
            await client.subscribe("quote:A", hz=3)


async def test_it_moves_to_another_worker_without_a_gap(serve: Any, publisher: Publisher, token: Token) -> None:
    """When its worker drains, it comes back after after_ms on another one and goes on where it stood."""
    await publisher.publish("trades:A", {"n": 1})
    first = await serve()
    async with Client(f"ws://127.0.0.1:{first.port}", lambda: token()) as client:
        await client.subscribe("trades:A", hz="raw")
        await until_push(client, lambda push: push.kind == "snap")
        second = await serve()
        client.url = stream_url(f"ws://127.0.0.1:{second.port}")
        await first.drain()
        for n in range(2, 6):
            await publisher.publish("trades:A", {"n": n})
        await asyncio.sleep(0.001)  # the clients share this loop
        push = await until_push(client, lambda push: push.kind == "event" and push.frame["data"]["n"] == 5)
        assert push.copy is not None
        assert [event["n"] for event in push.copy.data] == [1, 2, 3, 4, 5]


async def test_a_broken_chain_is_mended_by_get(wds: Any, publisher: Publisher, token: Token) -> None:
    """A copy that does not fit the next frame is replaced by a snapshot."""
    await publisher.publish("quote:A", {"last": 1})
    async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
        await client.subscribe("quote:A", hz="raw")
        await until_push(client, lambda push: push.kind == "snap")
        client.follower.copies["quote:A"].seq = 77
        await publisher.publish("quote:A", {"last": 2})
        push = await until_push(client, lambda push: push.kind == "snap")
        assert push.copy is not None
        assert (push.copy.seq, push.copy.data) == (2, {"last": 2})


async def test_a_final_close_code_ends_the_iteration(serve: Any, token: Token) -> None:
    """After 4003, or 4001 without `after_ms`, it does not reconnect."""
    wds = await serve()
    with pytest.raises(WdsError, match="unauthorized"):
        async with Client(f"ws://127.0.0.1:{wds.port}", "bad"):
            pass
    async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
        await until(lambda: wds.hub.members)
        for connection in wds.roster:
            connection.bye(4003)
        with pytest.raises(WdsError, match="4003"):
            await until_push(client, lambda _: False)


async def _publish_until(publisher: Publisher, enough: asyncio.Event) -> None:
    n = 0
    while not enough.is_set():
        n += 1
        await publisher.publish("trades:A", {"n": n})
        await asyncio.sleep(0.001)  # the clients share this loop


async def test_it_closes_at_any_moment(serve: Any, publisher: Publisher, token: Token) -> None:
    """Closed 60 times in mid-stream, it ends each time at once, and the server has nobody left."""
    wds, dice, enough = await serve(), random.Random(11), asyncio.Event()
    publishing = asyncio.create_task(_publish_until(publisher, enough))
    try:
        for _ in range(60):
            async with asyncio.timeout(5):
                async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
                    await client.subscribe("trades:A", hz="raw")
                    await asyncio.sleep(dice.random() * 0.02)
    finally:
        enough.set()  # not cancelled: redis-py swallows that now and then
        await publishing
    await until(lambda: not wds.hub.members)


async def test_overlapping_subscriptions_never_freeze_each_other(wds: Any, publisher: Publisher, token: Token) -> None:
    """A pattern and a name with other fields and rates come and go: what is still asked for moves, with all that is asked."""
    await publisher.publish("quote:A", {"last": 1, "bid": 1})
    await publisher.publish("quote:B", {"last": 1, "bid": 1})
    async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
        copies = client.follower.copies
        await client.subscribe("quote:*", hz=1, fields=["last"])
        await client.subscribe("quote:A", hz="raw", fields=["bid"])
        await publisher.publish("quote:A", {"last": 2, "bid": 2})
        await until(lambda: copies["quote:A"].data == {"last": 2, "bid": 2})
        await client.unsubscribe("quote:*")
        await publisher.publish("quote:A", {"last": 3, "bid": 3})
        await until(lambda: copies["quote:A"].data == {"bid": 3})
        assert list(copies) == ["quote:A"]
        await client.subscribe("quote:*", hz=10)
        await client.unsubscribe("quote:A")
        await publisher.publish("quote:A", {"last": 4, "bid": 4})
        await until(lambda: all(copies[ch].data == {"last": n, "bid": n} for ch, n in (("quote:A", 4), ("quote:B", 1))))


@pytest.mark.parametrize("seed", range(4))
async def test_random_subscriptions_follow_a_plain_model(wds: Any, publisher: Publisher, token: Token, seed: int) -> None:
    """Whatever overlaps and comes and goes: what is asked for reaches the newest state, and nothing else is followed."""
    dice = random.Random(seed)
    symbols = [f"quote:S{n}" for n in range(5)]
    model: set[str] = set()
    for symbol in symbols:
        await publisher.publish(symbol, {"last": 0, "bid": 0})
    async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
        for turn in range(1, 25):
            names = dice.sample([*symbols, "quote:*"], dice.randint(1, 3))
            if dice.random() < 0.6:
                await client.subscribe(*names, hz=dice.choice(["raw", 10]), fields=dice.choice([None, ["last"], ["last", "bid"]]))
                model.update(names)
            else:
                await client.unsubscribe(*names)
                model.difference_update(names)
            for symbol in symbols:
                await publisher.publish(symbol, {"last": turn, "bid": turn})
            followed = set(symbols) if "quote:*" in model else model
            newest = dict.fromkeys(followed, turn)
            await until(lambda newest=newest: {ch: copy.data["last"] for ch, copy in client.follower.copies.items()} == newest, 3)


async def test_it_keeps_to_the_limits_by_itself(serve: Any, publisher: Publisher, token: Token) -> None:
    """Hundreds of commands at once arrive as the server allows: none is refused, none is a violation, all are answered."""
    wds = await serve(commands_s=200, commands_burst=100, violations_max=3, subs_max=1000)
    async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
        outcomes = await client.subscribe(*(f"quote:S{n}" for n in range(900)))
        assert len(outcomes) == 900
        assert not any("error" in one for one in outcomes)
        async with asyncio.timeout(10):
            await asyncio.gather(*(client.command({"op": "set"}) for _ in range(200)))


async def test_what_is_refused_for_now_is_asked_for_again(
    wds: Any, publisher: Publisher, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern that could not be listed joins when it can be, without anybody asking."""
    await publisher.publish("quote:A", {"last": 1})
    known = wds.upstream.known

    async def unknown(_: Any) -> None:
        return None

    async with Client(f"ws://127.0.0.1:{wds.port}", token()) as client:
        monkeypatch.setattr(wds.upstream, "known", unknown)
        (outcome,) = await client.subscribe("quote:*")
        assert outcome["error"]["code"] == "unavailable"
        monkeypatch.setattr(wds.upstream, "known", known)
        await until(lambda: "quote:A" in client.follower.copies)


async def test_a_token_source_that_fails_once_costs_nothing(wds: Any, publisher: Publisher, token: Token) -> None:
    """When the token nears its end and the first new one cannot be had, the second is taken and the stream goes on."""
    tries = 0

    async def source() -> str:
        nonlocal tries
        tries += 1
        if tries == 2:
            raise RuntimeError("the desk is away")
        return token(ttl_s=4 if tries == 1 else 60)

    async with Client(f"ws://127.0.0.1:{wds.port}", source) as client:
        await client.subscribe("quote:A", hz="raw")
        (member,) = wds.hub.members
        await until(lambda: tries >= 3, 4)
        await asyncio.sleep(0)
        (connection,) = [one for one in wds.roster if one.member is member]
        await until(lambda: connection.session._expires_ns - wds.now_ns() > 30e9, 5)
        assert list(wds.hub.members) == [member]


async def test_unavailable_keys_are_waited_for(serve: Any, publisher: Publisher, token: Token) -> None:
    """A first sign-in while the keys cannot be had goes on until they can; a refused token ends it at once."""
    import http.server
    import threading

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from wds.access.tokens import jwks_of, mint

    key = Ed25519PrivateKey.generate()
    answers: list[int] = [503, 503, 200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.end_headers()
            self.wfile.write(jwks_of(key.public_key()))

        def log_message(self, *_: object) -> None:
            pass

    plane = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=plane.serve_forever, daemon=True).start()
    wds = await serve(jwks_url=f"http://127.0.0.1:{plane.server_port}/jwks.json")
    try:
        async with asyncio.timeout(30):
            async with Client(f"ws://127.0.0.1:{wds.port}", mint(key, "u", ["*"], 60, time.time(), "j")) as client:
                assert (await client.command({"op": "set"}))["ok"]
    finally:
        plane.shutdown()
        plane.server_close()


@pytest.mark.parametrize("handshake", [False, True])
async def test_a_server_that_falls_silent_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch, handshake: bool) -> None:
    """Neither the handshake nor the answer to the token is waited for without end."""
    monkeypatch.setattr("wds.client.client.CONNECT_S_MAX", 0.2)
    monkeypatch.setattr("wds.client.client.SIGN_IN_S_MAX", 0.2)
    monkeypatch.setattr("wds.client.client.CLOSE_S_MAX", 0.2)
    ended = asyncio.Event()

    async def silent(*_: Any) -> None:
        await ended.wait()

    if handshake:
        listening: Any = await websocket_serve(silent, "127.0.0.1", 0, close_timeout=0.2)
        port = next(iter(listening.sockets)).getsockname()[1]
    else:
        listening = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            async with Client(f"ws://127.0.0.1:{port}", "token"):
                pass
    ended.set()
    listening.close()
