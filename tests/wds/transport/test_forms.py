"""Checks over real sockets how a client gets the compact form or compression, and what it hears when it cannot."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as websocket_serve
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.talk import Talk
from wds.client import Client
from wds.client.compact import Expander

Token = Callable[..., str]
DEFLATE = [ClientPerMessageDeflateFactory(server_no_context_takeover=True)]


async def test_the_reply_says_which_form_is_in_force(wds: Any, token: Token) -> None:
    """Nothing asked: nothing said. An unknown form: objects, and it says so. Compact: with what it takes to read it."""
    talk = await Talk.to(wds.port)
    assert "form" not in await talk.ask(op="auth", token=token())
    assert (await talk.ask(op="auth", token=token(), form="cbor.v9"))["form"] == "json"
    reply = await talk.ask(op="auth", token=token(), form="compact")
    assert (reply["form"], reply["kinds"]["quote"]["t"]) == ("compact", "upd")
    assert isinstance(reply["base_ms"], int)
    assert (await talk.ask(op="auth", token=token(), form="json"))["form"] == "compact", "there is no way back"
    await talk.close()


async def test_who_asks_after_subscribing_stays_with_objects(wds: Any, publisher: Publisher, token: Token) -> None:
    """Chains that have begun go on as they began, and the reply says so."""
    await publisher.publish("quote:A", {"last": 1})
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["quote:A"], hz="raw")
    assert (await talk.ask(op="auth", token=token(), form="compact"))["form"] == "json"
    await publisher.publish("quote:A", {"last": 2})
    assert (await talk.find(t="upd"))["data"] == {"last": 2}
    await talk.close()


async def test_both_forms_of_the_python_client_see_the_same(wds: Any, publisher: Publisher, token: Token) -> None:
    """Snap, update, rows and event: the same frames but for the number in the snap."""
    await publisher.publish("quote:A", {"last": 1, "bid": 1})
    await publisher.publish("board:gainers", {"order": ["A"], "rows": {"A": {"sym": "A", "last": 1}}})
    await publisher.publish("trades:A", {"price": 1, "id": "a"})
    url = f"ws://127.0.0.1:{wds.port}"
    async with Client(url, token()) as plain, Client(url, token(), form="compact") as compact:
        for client in (plain, compact):
            await client.subscribe("quote:A", "board:gainers", "trades:A", hz="raw")
            await until(lambda client=client: len(client.follower.copies) == 3)
        await publisher.publish("quote:A", {"last": 2, "bid": 1})
        await publisher.publish("board:gainers", {"order": ["B", "A"], "rows": {s: {"sym": s, "last": 2} for s in "AB"}})
        await publisher.publish("trades:A", {"price": 2, "id": "b"}, {"price": 3, "id": "c"})
        heard = []
        for client in (plain, compact):
            frames: list[Any] = []
            async for push in client:
                frames.append({name: value for name, value in push.frame.items() if name != "n"})
                if push.kind == "event" and push.frame["data"]["id"] == "c":
                    break
            heard.append(sorted(frames, key=lambda frame: (frame["ch"], frame["seq"])))
        assert heard[0] == heard[1]
        assert plain.follower.copies == compact.follower.copies


async def test_a_server_without_the_form_answers_with_objects(token: Token) -> None:
    """A server from before the form ignores the word: its reply says nothing of a form, and the client reads objects."""

    async def older(socket: Any) -> None:
        await socket.send('{"t":"hello","v":1,"conn":"c","ping_s":20,"limits":{}}')
        await socket.recv()
        await socket.send('{"id":0,"ok":true,"expires_s":60}')
        await socket.recv()
        await socket.send('{"id":1,"ok":true,"subs":[{"ch":"quote:A","hz":4}]}')
        await socket.send('{"t":"snap","ch":"quote:A","epoch":"e","seq":1,"ts":1,"data":{"last":1}}')
        await socket.send('[{"t":"upd","ch":"quote:A","prev":1,"seq":2,"ts":1,"data":{"last":2}}]')
        await socket.wait_closed()

    async with websocket_serve(older, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with Client(f"ws://127.0.0.1:{port}", token(), form="compact") as client:
            await client.subscribe("quote:A")
            await until(lambda: client.follower.copies.get("quote:A") and client.follower.copies["quote:A"].seq == 2)


async def test_a_client_that_resumes_hears_the_number_again(wds: Any, publisher: Publisher, token: Token) -> None:
    """Nothing changed meanwhile, so there is no snap: the number comes by itself, and the next item is read by it."""
    seq = await publisher.publish("quote:A", {"last": 1})
    talk = await Talk.to(wds.port)
    reply = await talk.ask(op="auth", token=token(), form="compact")
    since = {"quote:A": {"epoch": publisher.epoch, "seq": seq}}
    assert (await talk.ask(op="sub", ch=["quote:A"], hz="raw", since=since))["subs"][0]["recovered"] is True
    num = await talk.find(t="num")
    await publisher.publish("quote:A", {"last": 2})
    item = await until(lambda: next((one for one in talk.heard if isinstance(one, list)), None))
    expander = Expander()
    expander.learn(reply)
    expander.frames(num)
    (frame,) = expander.frames(item)
    assert (frame["ch"], frame["prev"], frame["data"]) == ("quote:A", seq, {"last": 2})
    await talk.close()


@pytest.mark.parametrize(("query", "extensions", "agreed"), [("", DEFLATE, True), ("?deflate=1", [ClientPerMessageDeflateFactory()], True), ("", [ClientPerMessageDeflateFactory()], False), ("?deflate=1", None, False)])  # fmt: skip
async def test_compression_is_for_those_who_ask(
    wds: Any, publisher: Publisher, token: Token, query: str, extensions: Any, agreed: bool
) -> None:
    """An offer alone (browsers always make it) changes nothing; no context taken over, or `?deflate=1`, asks for it."""
    state = {f"f{n}": n for n in range(100)}
    await publisher.publish("quote:A", state)
    url = f"ws://127.0.0.1:{wds.port}/v1/stream{query}"
    async with connect(url, extensions=extensions, compression=None) as socket:
        assert ("permessage-deflate" in socket.response.headers.get("Sec-WebSocket-Extensions", "")) is agreed
    talk = await Talk.to(wds.port, token(), query=query, extensions=extensions)
    await talk.ask(op="sub", ch=["quote:A"], hz="raw")
    assert (await talk.find(t="snap"))["data"] == state
    await publisher.publish("quote:A", {name: value + 1 for name, value in state.items()})
    assert len((await talk.find(t="upd"))["data"]) == 100
    await talk.close()


async def test_a_compressed_blob_is_made_once_for_all(wds: Any, publisher: Publisher, token: Token, monkeypatch: Any) -> None:
    """Clients of the same channels share the compressed bytes as they share the plain ones."""
    await publisher.publish("quote:A", {"last": 1})
    talks = [await Talk.to(wds.port, token(), extensions=DEFLATE) for _ in range(5)]
    for talk in talks:
        await talk.ask(op="sub", ch=["quote:A"], hz="raw")
    made = []
    real = zlib.compressobj
    monkeypatch.setattr(zlib, "compressobj", lambda *given: made.append(given) or real(*given))
    await publisher.publish("quote:A", {"last": "x" * 400})
    for talk in talks:
        await talk.find(t="upd")
    monkeypatch.undo()
    assert len([given for given in made if given and given[0] == 1]) == 1
    for talk in talks:
        await talk.close()
