"""Checks the protocol over real sockets: one worker, an in-process cache, the websockets package as the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.replica import Replica
from tests.wds.talk import Talk
from wds import meter
from wds.server import Server

Token = Callable[..., str]
QUOTE = {"last": 1.0, "bid": 0.9, "ask": 1.1}


async def test_a_subscriber_gets_reply_snap_and_changed_fields(wds: Server, publisher: Publisher, token: Token) -> None:
    """The reply comes first, then a snap, then only the fields that changed, in one unbroken chain."""
    await publisher.publish("quote:AAPL", QUOTE)
    talk = await Talk.to(wds.port, token())
    reply = await talk.ask(op="sub", ch=["quote:AAPL"], hz="raw")
    assert reply["subs"] == [{"ch": "quote:AAPL", "hz": "raw"}]
    snap = await talk.find(t="snap")
    assert snap["data"] == QUOTE
    assert snap["seq"] == 1
    assert talk.heard.index(reply) < talk.heard.index(snap)
    await publisher.publish("quote:AAPL", {**QUOTE, "last": 1.5})
    upd = await talk.find(t="upd")
    assert (upd["prev"], upd["seq"], upd["data"]) == (1, 2, {"last": 1.5})
    assert not talk.all(t="status"), "a fresh channel needs no status"
    await talk.close()


async def test_hello_tells_version_and_limits(wds: Server) -> None:
    """The first frame names version, connection, ping period and limits."""
    talk = await Talk.to(wds.port)
    hello = await talk.find(t="hello")
    assert hello["v"] == 1
    assert hello["limits"] == {
        "subs": 200, "bytes": 16384, "commands_s": 20, "burst": 100, "channels": 500, "channels_per_cost": 50,
    }  # fmt: skip
    assert hello["ping_s"] == 20
    await talk.close()


async def test_everything_may_be_sent_in_one_go(wds: Server, publisher: Publisher, token: Token) -> None:
    """auth, sub and get pipelined without waiting are answered in order."""
    await publisher.publish("quote:A", QUOTE)
    talk = await Talk.to(wds.port)
    await talk.send(id="a", op="auth", token=token())
    await talk.socket.send(json.dumps([{"id": 2, "op": "sub", "ch": ["quote:A"]}, {"id": 3, "op": "get", "ch": ["quote:A"]}]))
    assert (await talk.find(id=3))["snaps"][0]["data"] == QUOTE
    assert [item["id"] for item in talk.heard if "id" in item] == ["a", 2, 3]
    await talk.close()


async def test_a_channel_without_data_is_subscribed_and_snaps_later(wds: Server, publisher: Publisher, token: Token) -> None:
    """A subscription to a silent channel succeeds; its first document comes as a snap; get says unavailable."""
    talk = await Talk.to(wds.port, token())
    assert (await talk.ask(op="sub", ch=["quote:NEW"]))["subs"] == [{"ch": "quote:NEW", "hz": 4}]
    answer = await talk.ask(op="get", ch=["quote:NEW", "quote:OTHER", "nonsense:X"])
    codes = [(snap["error"]["code"], snap["error"]["retry"]) for snap in answer["snaps"]]
    assert codes == [("unavailable", True), ("unavailable", True), ("unknown_channel", False)]
    await publisher.publish("quote:NEW", QUOTE)
    assert (await talk.find(t="snap"))["data"] == QUOTE
    await talk.close()


async def test_each_channel_has_its_own_outcome(wds: Server, publisher: Publisher, token: Token) -> None:
    """Forbidden, unknown, doubled and bad channels fail alone."""
    talk = await Talk.to(wds.port, token("quote:*"))
    await talk.ask(op="sub", ch=["quote:A"])
    reply = await talk.ask(op="sub", ch=["quote:A", "board:gainers", "what:ever", "quote:B", "quote:*?"])
    codes = [outcome.get("error", {}).get("code") for outcome in reply["subs"]]
    assert codes == ["already_subscribed", "forbidden", "unknown_channel", None, "unknown_channel"]
    reply = await talk.ask(op="sub", ch=["quote:C"], fields=["last", "nope"])
    assert reply["subs"][0]["error"]["code"] == "bad_request"
    reply = await talk.ask(op="unsub", ch=["quote:B", "quote:Z"])
    assert [outcome.get("error", {}).get("code") for outcome in reply["subs"]] == [None, "unknown_channel"]
    assert not (await talk.ask(op="sub", ch=["quote:D"], hz=3))["ok"]
    await talk.close()


async def test_fields_filter_sends_only_them(wds: Server, publisher: Publisher, token: Token) -> None:
    """With `fields`, snap and updates hold only these, and other changes send nothing."""
    await publisher.publish("quote:A", QUOTE)
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["quote:A"], hz="raw", fields=["last"])
    assert (await talk.find(t="snap"))["data"] == {"last": 1.0}
    await publisher.publish("quote:A", {**QUOTE, "bid": 0.5}, {**QUOTE, "bid": 0.5, "last": 2.0})
    assert (await talk.find(t="upd"))["data"] == {"last": 2.0}
    assert len(talk.all(t="upd")) == 1
    await talk.close()


async def test_boards_send_row_changes(wds: Server, publisher: Publisher, token: Token) -> None:
    """A board sends changed rows, deleted rows, and the order only when it changed."""
    rows = {"A": {"sym": "A", "last": 1}, "B": {"sym": "B", "last": 2}}
    await publisher.publish("board:gainers", {"order": ["A", "B"], "rows": rows})
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["board:gainers"], hz="raw")
    await talk.find(t="snap")
    await publisher.publish("board:gainers", {"order": ["A", "B"], "rows": {**rows, "A": {"sym": "A", "last": 9}}})
    first = await talk.find(t="rows")
    assert first["set"] == {"A": {"sym": "A", "last": 9}}
    assert "order" not in first
    assert "del" not in first
    await publisher.publish("board:gainers", {"order": ["B"], "rows": {"B": rows["B"]}})
    second = (await talk.count(2, t="rows"))[1]
    assert (second["set"], second["del"], second["order"]) == ({}, ["A"], ["B"])
    limited = await talk.ask(op="get", ch=["board:volume", "board:gainers"], limit=1)
    assert limited["snaps"][1]["data"]["order"] == ["B"]
    await talk.close()


async def test_bars_bring_history(wds: Server, publisher: Publisher, token: Token) -> None:
    """A bars snap and a get hold closed bars, oldest first; `limit` takes the newest."""
    await publisher.close_bar("bars:1m:A", [1, 1], [2, 2], [3, 3])
    await publisher.publish("bars:1m:A", {"t": 4, "close": 4, "i": 4, "prev": [3, 3], "rev": 0})
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["bars:1m:A"], hz="raw")
    assert (await talk.find(t="snap"))["data"]["history"] == [[1, 1], [2, 2], [3, 3]]
    await publisher.publish("bars:1m:A", {"t": 4, "close": 5, "i": 4, "prev": [3, 3], "rev": 0})
    assert (await talk.find(t="upd"))["data"] == {"close": 5}
    got = (await talk.ask(op="get", ch=["bars:1m:A"], limit=2))["snaps"][0]
    assert got["data"]["history"] == [[2, 2], [3, 3]]
    assert got["data"]["close"] == 5
    second = await Talk.to(wds.port, token())
    await second.ask(op="sub", ch=["bars:1m:A"], hz="raw")
    assert len((await second.find(t="snap"))["data"]["history"]) == 3, "also on a warm channel"
    await talk.close()
    await second.close()


async def test_events_come_all_and_in_order(wds: Server, publisher: Publisher, token: Token) -> None:
    """At a slow tier events are coalesced in one frame, none is dropped, the snap holds the recent ones."""
    await publisher.publish("trades:A", *({"price": n} for n in range(210)))
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["trades:A"], hz=4)
    snap = await talk.find(t="snap")
    assert [event["price"] for event in snap["data"]] == list(range(10, 210))
    await publisher.publish("trades:A", *({"price": n} for n in range(210, 550)))
    events = await talk.count(340, t="event")
    assert [event["data"]["price"] for event in events] == list(range(210, 550))
    assert [event["prev"] for event in events] == list(range(210, 550))
    await talk.close()


async def test_wildcards_expand_over_allowed_channels_and_grow(wds: Server, publisher: Publisher, token: Token) -> None:
    """`kind:*` joins the known channels the token covers, and new ones within two seconds; unsub leaves them all."""
    for sym in ("A", "B", "X1"):
        await publisher.publish(f"quote:{sym}", QUOTE)
    talk = await Talk.to(wds.port, token("quote:A*", "quote:B*"))
    reply = await talk.ask(op="sub", ch=["quote:*", "board:*"])
    assert [outcome["ch"] for outcome in reply["subs"] if "error" not in outcome] == ["quote:A", "quote:B", "quote:*"]
    assert reply["subs"][2]["matched"] == 2
    assert reply["subs"][3]["error"]["code"] == "forbidden"
    await publisher.publish("quote:AZ", QUOTE)
    await talk.find(t="snap", ch="quote:AZ")
    await talk.ask(op="unsub", ch=["quote:*"])
    (member,) = wds.hub.members
    assert not member.groups
    await talk.close()


async def test_subscriptions_are_capped(serve: Any, publisher: Publisher, token: Token) -> None:
    """Beyond the cap single channels and wildcards report `limit`; what fits is subscribed."""
    wds = await serve(subs_max=3)
    for n in range(5):
        await publisher.publish(f"quote:S{n}", QUOTE)
    talk = await Talk.to(wds.port, token())
    reply = await talk.ask(op="sub", ch=["quote:*", "quote:Z"])
    assert [("error" in outcome, outcome["ch"]) for outcome in reply["subs"]] == [
        (False, "quote:S0"), (False, "quote:S1"), (False, "quote:S2"), (True, "quote:*"), (True, "quote:Z"),
    ]  # fmt: skip
    assert {outcome["error"]["code"] for outcome in reply["subs"] if "error" in outcome} == {"limit"}
    await talk.close()


async def test_a_client_resumes_on_another_worker(serve: Any, publisher: Publisher, token: Token) -> None:
    """With `since`, another worker continues the chain: nothing, a bridge, the missed events, or a snap of a new life."""
    await publisher.publish("quote:A", QUOTE)
    await publisher.publish("trades:A", {"n": 1}, {"n": 2}, {"n": 3})
    other = await serve()
    talk = await Talk.to(other.port, token())
    since = {"quote:A": {"epoch": "k1", "seq": 1}, "trades:A": {"epoch": "k1", "seq": 1}, "quote:B": {"epoch": "k0", "seq": 4}}
    reply = await talk.ask(op="sub", ch=["quote:A", "trades:A", "quote:B"], hz="raw", since=since)
    assert [outcome["recovered"] for outcome in reply["subs"]] == [True, True, False]
    events = await talk.count(2, t="event")
    assert [(event["prev"], event["data"]["n"]) for event in events] == [(1, 2), (2, 3)]
    assert not talk.all(t="snap")
    await publisher.publish("quote:A", {**QUOTE, "last": 7})
    assert (await talk.find(t="upd"))["prev"] == 1
    late = await Talk.to(other.port, token())
    reply = await late.ask(op="sub", ch=["quote:A", "trades:A"], hz="raw", since={
        "quote:A": {"epoch": "k1", "seq": 1}, "trades:A": {"epoch": "gone", "seq": 1},
    })  # fmt: skip
    assert [outcome["recovered"] for outcome in reply["subs"]] == [True, False]
    bridge = await late.find(t="upd")
    assert (bridge["prev"], bridge["seq"], bridge["data"]["last"]) == (1, 2, 7)
    assert (await late.find(t="snap"))["seq"] == 3
    await talk.close()
    await late.close()


async def test_a_hidden_tab_is_paused_and_catches_up(wds: Server, publisher: Publisher, token: Token) -> None:
    """`paused` stops pushes; going on brings one update per channel and all events still held."""
    talk = await Talk.to(wds.port, token())
    replica = Replica()
    await publisher.publish("quote:A", QUOTE)
    await publisher.publish("trades:A", {"n": 1})
    await talk.ask(op="sub", ch=["quote:A", "trades:A"], hz="raw")
    await talk.count(2, t="snap")
    await talk.ask(op="set", paused=True)
    for n in range(5):
        await publisher.publish("quote:A", {**QUOTE, "last": n})
        await publisher.publish("trades:A", {"n": n + 2})
    await until(lambda: wds.hub._topics["trades:A"].channel.seq == 6)
    assert not talk.all(t="upd")
    await talk.ask(op="set", paused=False, hz=10)
    await talk.count(5, t="event")
    await talk.find(t="upd")
    for item in talk.heard:
        if item.get("t") in ("snap", "upd", "event"):
            replica.take(json.dumps(item).encode())
    assert replica.state["quote:A"]["last"] == 4
    assert len(talk.all(t="upd")) == 1
    await talk.close()


async def test_staleness_is_told_and_taken_back(wds: Server, publisher: Publisher, token: Token) -> None:
    """A feed that is not live makes every channel stale, newcomers included; a finished replay closes them."""
    await publisher.publish("quote:A", QUOTE)
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["quote:A"])
    publisher.start_beat({"sources": {"s": {"state": "refused"}}, "ts": 0}, 0.05)
    assert (await talk.find(t="status", ch="quote:A"))["reason"] == "feed refused"
    second = await Talk.to(wds.port, token())
    await second.ask(op="sub", ch=["quote:A"])
    assert (await second.find(t="status"))["state"] == "stale"
    publisher.start_beat(every_s=0.05)
    assert (await talk.find(t="status", state="live"))["ch"] == "quote:A"
    publisher.start_beat({"sources": {"s": {"state": "ended"}}, "ts": 0}, 0.05)
    assert (await talk.find(t="status", state="closed"))["reason"] == "replay ended"
    assert wds.ready() == []
    await talk.close()
    await second.close()


async def test_silence_of_the_processors_is_staleness(serve: Any, publisher: Publisher, token: Token) -> None:
    """No status:pipeline for the silence period means stale, and not ready."""
    wds = await serve(silence_s=0.5)
    talk = await Talk.to(wds.port, token())
    await until(lambda: wds.hub.verdict.state == "live")
    await talk.ask(op="sub", ch=["quote:A"])
    publisher.stop_beat()
    assert (await talk.find(t="status", state="stale"))["reason"] == "processors silent"
    assert wds.ready() == ["processors silent"]
    await talk.close()


async def test_unused_channels_are_let_go(wds: Server, publisher: Publisher, token: Token) -> None:
    """A channel without subscribers is unwatched after its linger."""
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["quote:A", "trades:A"])
    assert wds.hub.watched == 3
    await talk.close()
    await until(lambda: wds.hub.watched == 1)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/", 404, "the stream is at /v1/stream"),
        ("/healthz", 200, "ok"),
        ("/v1/stream", 426, "WebSocket"),
        ("/v1/stream?token=abc", 400, "never put a token in the URL"),
        ("/static/tapeline.js", 200, "export"),
    ],
)
async def test_plain_http_is_answered(wds: Server, path: str, status: int, text: str) -> None:
    """Plain GETs get a page: health, the browser client, or what is wrong."""
    reader, writer = await asyncio.open_connection("127.0.0.1", wds.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = (await reader.read()).decode()
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert text in answer
    writer.close()


@pytest.mark.parametrize(("origin", "allowed"), [
    ("http://127.0.0.1:8000", True), ("http://localhost:5173", True), ("https://evil.example", False), ("null", False),
])  # fmt: skip
async def test_foreign_origins_are_refused(wds: Server, origin: str, allowed: bool) -> None:
    """A browser page may connect from this host and localhost only, unless WDS_ORIGINS says otherwise."""
    opening = connect(f"ws://127.0.0.1:{wds.port}/v1/stream", origin=origin)  # type: ignore[arg-type]
    if allowed:
        async with opening:
            pass
    else:
        with pytest.raises(InvalidStatus, match="403"):
            await opening


async def test_the_subprotocol_is_optional(wds: Server) -> None:
    """wds.v1.json is agreed on when offered."""
    async with connect(f"ws://127.0.0.1:{wds.port}/v1/stream", subprotocols=["x", "wds.v1.json"]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "wds.v1.json"


async def test_the_drain_sends_everybody_off(wds: Server, publisher: Publisher, token: Token) -> None:
    """Draining says bye 4200 with a spread after_ms, closes everybody and takes nobody new."""
    talks = [await Talk.to(wds.port, token()) for _ in range(10)]
    await wds.drain()
    assert [await talk.closed() for talk in talks] == [4200] * 10
    pauses = {talk.all(t="bye", code=4200)[0]["after_ms"] for talk in talks}
    assert len(pauses) > 3
    with pytest.raises(OSError):
        await Talk.to(wds.port)
    assert wds.ready() == ["draining"]


async def test_metrics_count_what_happens(wds: Server, publisher: Publisher, token: Token) -> None:
    """Frames, connections, closes and data age are on /metrics."""
    from service.metrics import exposition

    await publisher.publish("quote:A", QUOTE)
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["quote:A"], hz="raw")
    await publisher.publish("quote:A", {**QUOTE, "last": 3})
    await talk.find(t="upd")
    wds._timers.gauge()
    text = exposition().decode()
    assert meter.connections._value.get() == 1
    assert "tapeline_wds_subscriptions 1.0" in text
    assert "tapeline_wds_data_age_ms_bucket" in text
    assert "tapeline_wds_broadcast_ms_bucket" in text
    await talk.close()
    await until(lambda: 'tapeline_wds_closes_total{code="1000"}' in exposition().decode())


async def test_a_poisoned_document_harms_only_its_channel(wds: Server, publisher: Publisher, token: Token) -> None:
    """Data that is not what its kind says is counted; other channels, and the next good document, go on."""
    await publisher.publish("quote:A", QUOTE)
    talk = await Talk.to(wds.port, token())
    await talk.ask(op="sub", ch=["quote:A", "quote:B"], hz="raw")
    await talk.find(t="snap", ch="quote:A")
    before = meter.malformed._value.get()
    await publisher.publish("quote:A", [1, 2])
    await publisher.publish("quote:B", 7)
    await publisher.publish("quote:A", {**QUOTE, "last": 8})
    assert (await talk.find(t="upd"))["data"] == {"last": 8}
    assert meter.malformed._value.get() >= before + 2
    second = await Talk.to(wds.port, token())
    assert (await second.ask(op="sub", ch=["quote:B"], hz=10))["ok"]
    await publisher.publish("quote:B", QUOTE)
    for one in (talk, second):
        assert (await one.find(t="snap", ch="quote:B"))["data"] == QUOTE
    await second.close()
    assert not wds.failed.done()
    await talk.close()
