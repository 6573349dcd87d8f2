"""The original service's browser app over real sockets: what it sends, what it is answered and pushed, and whom it disturbs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from mdc.connect import open_cache
from mdc.revoked import Revoked
from tests.waiting import until
from tests.wds.compat.app import App
from tests.wds.compat.conftest import followed
from tests.wds.compat.test_payloads import ALERT, ARTICLE, BAR, BOARD, QUOTE, QUOTE_PAYLOAD, TS
from tests.wds.publisher import Publisher
from tests.wds.talk import Talk
from wds.server import Server

Key = Callable[..., str]
# feed → (its channel, a document, another one, fields of the push of the other one, fields of the answer to a get of both)
EVERY_FEED: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "scanners:top_gainers": ("board:open_gainers", {"order": [], "rows": {}}, BOARD, {"rank": 1, "symbol": "ABC", "pct_change": 25.0}),
    "scanners:top_gappers": ("board:gainers", {"order": [], "rows": {}}, BOARD, {"rank": 1, "free_float": 1_000_000}),
    "scanners:top_volume": ("board:volume", {"order": [], "rows": {}}, BOARD, {"rank": 1, "accumulated_volume": 5000}),
    "quote:ABC": ("quote:ABC", {**QUOTE, "last": 1.0}, QUOTE, QUOTE_PAYLOAD),
    "daily_range:ABC": ("quote:ABC", {**QUOTE, "last": 1.0}, QUOTE, {**QUOTE_PAYLOAD, "regular_session_high": 112.0, "pre_market_low": None}),
    "daily_range_hod_alert": ("alerts:range", {**ALERT, "kind": "new_low"}, ALERT, {**QUOTE_PAYLOAD, "direction": "high", "timestamp": TS / 1000}),
    "daily_range_lod_alert": ("alerts:range", ALERT, {**ALERT, "kind": "new_low"}, {"direction": "low", "previous": 111.0}),
    "news:feed:latest": ("news:latest", {**ARTICLE, "title": "old"}, ARTICLE, {"title": "ABC rises", "link": "https://example.com/1"}),
    "news:ticker:ABC": ("news:ABC", {**ARTICLE, "title": "old"}, ARTICLE, {"title": "ABC rises", "source": "example.com"}),
    "stocks:luld:ABC": ("halts:ABC", {"ts": 1}, {"high_band": 9.0, "low_band": 7.0, "ts": TS}, {"event_type": "LULD", "high_price": 9.0}),
    "stocks:agg:ABC": ("bars:1s:ABC", {**BAR, "close": 9}, BAR, {"event_type": "A", "close": 2.0, "start_timestamp": TS - 250}),
    "stocks:trades:ABC": ("trades:ABC", {"price": 1.0}, {"price": 2.0, "size": 7, "ts": TS}, {"event_type": "T", "price": 2.0, "size": 7}),
    "stocks:quotes:ABC": ("quote:ABC", {**QUOTE, "bid": 1.0}, QUOTE, {"event_type": "Q", "bid_price": 109.9, "ask_size": 300}),
    "tta:ABC:widget": ("stats:ABC", {"trades_60m": 1}, {"trades_60m": 2, "volume_60m": 5}, {"trade_count": 2, "total_volume": 5}),
}  # fmt: skip


def first(payload: Any) -> dict[str, Any]:
    """Return a payload, or the first of one that is a list."""
    found: dict[str, Any] = payload[0] if isinstance(payload, list) else payload
    return found


@pytest.mark.parametrize("feed", EVERY_FEED)
async def test_every_feed_answers_and_pushes(wds: Server, publisher: Publisher, key: Key, feed: str) -> None:
    """Without waiting, as the app does it: auth, get and subscribe; then a change is pushed as a bare payload."""
    channel, before, after, fields = EVERY_FEED[feed]
    await publisher.publish(channel, before)
    app = await App.to(wds.port, key(), feed=feed, cache=feed)
    assert await app.status("authorized") == {"status": "authorized"}
    old = await app.document(feed)
    assert await app.status("subscribed") == {"status": "subscribed", "feed": feed}
    assert [one.get("status") or "document" for one in app.heard] == ["authorized", "document", "subscribed"]
    await followed(wds, channel)
    await publisher.publish(channel, after)
    push = first(await app.push())
    assert {name: push[name] for name in fields} == fields
    await app.send(action="get", cache=feed)
    document = await app.document(feed, 2)
    assert first(document) == push, "a document has the shape of a push"
    if not old:
        assert feed.startswith("scanners:") or feed.endswith("_alert")
    else:
        assert first(old).keys() == push.keys()
    await app.close()


async def test_the_same_key_opens_the_next_connection(wds: Server, publisher: Publisher, key: Key) -> None:
    """The app reconnects with what it has; several widgets are as many connections."""
    secret = key()
    await publisher.publish("quote:ABC", QUOTE)
    for _ in range(2):
        apps = [await App.to(wds.port, secret, feed="quote:ABC", cache="quote:ABC") for _ in range(3)]
        for app in apps:
            assert await app.document("quote:ABC") == QUOTE_PAYLOAD
        for app in apps:
            await app.close()


async def test_pushes_are_whole_messages_made_once(wds: Server, publisher: Publisher, key: Key) -> None:
    """Of one tick, many changes: each is a message of its own, never an array of frames, the same for every follower."""
    names = [f"S{n}" for n in range(30)]
    apps = [await App.to(wds.port, key()) for _ in range(3)]
    for app in apps:
        await app.send(action="subscribe", feed="quote:*")
        assert (await app.status("subscribed"))["matched"] == 0
    for name in names:
        await publisher.publish(f"quote:{name}", QUOTE)
    await followed(wds, *[f"quote:{name}" for name in names])
    for at in (1.0, 2.0):
        for name in names:
            await publisher.publish(f"quote:{name}", {**QUOTE, "last": at})
    for app in apps:
        await until(lambda app=app: {one["symbol"] for one in app.pushes() if one["close"] == 2.0} == set(names), 10)
        assert all(isinstance(one, dict) for one in app.heard)
        await app.close()
    relay = wds.relay
    assert relay is not None
    await until(lambda: len(relay) == 0 and not relay.channels)


async def test_one_connection_follows_several_feeds_of_one_channel(wds: Server, publisher: Publisher, key: Key) -> None:
    """quote, daily_range and best prices are three payloads of one document; one taken back leaves the others."""
    app = await App.to(wds.port, key())
    for feed in ("quote:ABC", "daily_range:ABC", "stocks:quotes:ABC"):
        await app.send(action="subscribe", feed=feed)
        await app.status("subscribed", feed=feed)
    await followed(wds, "quote:ABC", "bars:5m:ABC")
    await publisher.publish("quote:ABC", QUOTE)
    await app.push(3)
    assert sorted(len(one) for one in app.pushes()) == [13, len(QUOTE_PAYLOAD), len(QUOTE_PAYLOAD) + 6]
    await app.send(action="unsubscribe", feed="daily_range:ABC")
    await app.status("unsubscribed")
    await publisher.publish("quote:ABC", {**QUOTE, "last": 9.0})
    await until(lambda: len([one for one in app.pushes() if one.get("close") == 9.0 or one.get("event_type")]) >= 3)
    assert len([one for one in app.pushes() if "pre_market_high" in one]) == 1
    await app.close()


async def test_the_days_ranges_come_from_its_bars(wds: Server, publisher: Publisher, key: Key) -> None:
    """The pre-market's range is in the push in the middle of the regular session, before and after its bars were watched."""
    early = TS - 250 - 5 * 3_600_000
    await publisher.close_bar("bars:5m:ABC", [early, 95.0, 97.0, 94.0, 96.0, 10, 95.5, 3])
    await publisher.publish("bars:5m:ABC", {**BAR, "t": TS - 250, "high": 111.0, "low": 109.0, "i": 2})
    await publisher.publish("quote:ABC", QUOTE)
    app = await App.to(wds.port, key(), feed="daily_range:ABC", cache="daily_range:ABC")
    document = await app.document("daily_range:ABC")
    assert (document["pre_market_high"], document["pre_market_low"], document["regular_session_high"]) == (97.0, 94.0, 112.0)
    await followed(wds, "quote:ABC", "bars:5m:ABC")
    await publisher.close_bar("bars:5m:ABC", [early + 300_000, 95.0, 99.5, 94.0, 96.0, 10, 95.5, 3])
    late = {**BAR, "t": TS - 250, "high": 111.0, "low": 109.0, "i": 4, "rev": 1}
    await publisher.publish("bars:5m:ABC", late)  # bars were corrected meanwhile: the history is read again
    await until(lambda: app.heard and _republished(publisher))
    for last in range(1, 200):
        await publisher.publish("quote:ABC", {**QUOTE, "last": float(last)})
        await app.push(last)
        if app.pushes()[-1]["pre_market_high"] == 99.5:
            break
    assert app.pushes()[-1]["pre_market_high"] == 99.5
    assert app.pushes()[0]["regular_session_low"] == 99.0
    await app.close()


def _republished(publisher: Publisher) -> bool:
    return publisher.seq["bars:5m:ABC"] == 2


async def test_signing_out_ends_it(wds: Server, cache_url: str, key: Key) -> None:
    """4001 within two seconds, for this sign-in alone; its key opens nothing after."""
    ended, other = await App.to(wds.port, key(sid="s1"), "quote:A"), await App.to(wds.port, key(sid="s2"), "quote:A")
    for app in (ended, other):
        await app.status("subscribed")
    await Revoked(open_cache(cache_url)).tell(["s1"], 86_400_000)
    assert await ended.closed() == 4001
    again = await App.to(wds.port, key(sid="s1"), "quote:A")
    assert (await again.status("invalid key"))["message"] == "this session has ended"
    assert await again.closed() == 4001
    await other.send(action="get", cache="quote:A")
    await other.document("quote:A")
    assert wds.census.connections == 1
    await other.close()


async def test_a_key_ends_by_itself(wds: Server, key: Key) -> None:
    """4201, and no word before it that the app would take for data."""
    app = await App.to(wds.port, key(ttl_s=4), "quote:A")
    assert await app.closed() == 4201
    assert [one["status"] for one in app.heard] == ["authorized", "subscribed"]


async def test_frames_that_are_no_json_stop_nothing(wds: Server, publisher: Publisher, key: Key) -> None:
    """Each is answered, before and after the key; the feeds of this client and of others go on."""
    app = await App.to(wds.port)
    await app.socket.send("hello?")
    await app.status("invalid message")
    await app.send(action="auth", api_key=key())
    await app.send(action="subscribe", feed="quote:ABC")
    for frame in ("{", "[]", '{"action":"sing"}', "\x00", "9" * 400):
        await app.socket.send(frame)
    await app.socket.send(b'{"action":"get","cache":"quote:ABC"}')
    await until(lambda: len(app.all(status="invalid message")) == 6 and app.all(status="invalid action"))
    await followed(wds, "quote:ABC")
    await publisher.publish("quote:ABC", QUOTE)
    assert await app.push() == QUOTE_PAYLOAD
    await app.close()


async def test_a_poisoned_document_disturbs_its_own_feed_alone(wds: Server, publisher: Publisher, key: Key) -> None:
    """A change that cannot be read is counted and passed over; the next one comes."""
    app = await App.to(wds.port, key())
    for feed in ("quote:A", "quote:B"):
        await app.send(action="subscribe", feed=feed)
    await followed(wds, "quote:A", "quote:B")
    await publisher.publish("quote:A", {**QUOTE, "last": "poison"})
    await publisher.publish("quote:B", QUOTE)
    assert (await app.push())["symbol"] == "B"
    await publisher.publish("quote:A", QUOTE)
    assert (await app.push(2))["symbol"] == "A"
    await app.close()


async def test_it_is_served_when_it_is_switched_on(serve: Any, publisher: Publisher, token: Callable[..., str], key: Key) -> None:
    """Off: 404 that says how to switch it on. On: the key is good at /ws alone; a token of scripts is good there, too."""
    off: Server = await serve()
    with pytest.raises(InvalidStatus) as refused:
        await App.to(off.port)
    assert refused.value.response.status_code == 404
    assert b"WDS_COMPAT=true" in (refused.value.response.body or b"")
    on: Server = await serve(compat=True)
    talk = await Talk.to(on.port)
    assert (await talk.ask(op="auth", token=key()))["error"]["code"] == "unauthorized"
    app = await App.to(on.port, token(), feed="quote:A")
    await app.status("subscribed")
    with pytest.raises(InvalidStatus) as refused:
        await App.to(on.port, origin="https://evil.example")
    assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as refused:
        await App.to(on.port, additional_headers={"Upgrade": "nothing"})
    await app.close()


async def test_connections_of_a_person_are_bounded(serve: Any, publisher: Publisher, key: Key) -> None:
    """As everywhere: the newcomer over WDS_PER_USER_MAX ends with 4010, those that are there go on."""
    wds: Server = await serve(compat=True, per_user_max=2)
    apps = [await App.to(wds.port, key()) for _ in range(2)]
    for app in apps:
        await app.status("authorized")
    late = await App.to(wds.port, key())
    assert await late.closed() == 4010
    for app in apps:
        await app.send(action="subscribe", feed="quote:A")
        await app.status("subscribed")
        await app.close()


async def test_operators_see_it(wds: Server, key: Key) -> None:
    """As a client of its own kind, with the number of its feeds."""
    app = await App.to(wds.port, key(sub="ann"), feed="quote:A")
    await app.status("subscribed")
    (seen,) = [connection.describe(wds.now_ns()) for connection in wds.roster]
    assert (seen["transport"], seen["user"], seen["subscriptions"], seen["session"]) == ("compat", "ann", 1, "s1")
    await app.close()


async def test_a_slow_one_delays_nobody_and_gets_the_newest(serve: Any, publisher: Publisher, key: Key, token: Any) -> None:
    """It stops reading while a board of 500 rows changes: others get every change; reading again, it has the newest at once."""
    wds: Server = await serve(compat=True, slow_pause_s=30.0, slow_close_s=60.0)
    rows = {f"S{n:03d}": {"sym": f"S{n:03d}", "last": 1.0, "volume": n} for n in range(500)}
    slow = await App.to(wds.port, key(sub="slow"), max_queue=(1, None))
    quick, talk = await App.to(wds.port, key(sub="quick")), await Talk.to(wds.port, token())
    for app in (slow, quick):
        await app.send(action="subscribe", feed="scanners:top_volume")
        await app.send(action="subscribe", feed="stocks:trades:A")
        await app.status("subscribed", feed="stocks:trades:A")
    await talk.ask(op="sub", ch=["board:volume"], hz="raw")
    await followed(wds, "board:volume", "trades:A")
    slow.pause()
    connection = next(one for one in wds.roster if one.user == "slow")
    for at in range(300):
        rows["S000"] = {"sym": "S000", "last": float(at), "volume": 1}
        await publisher.publish("board:volume", {"order": list(rows), "rows": rows})
        await publisher.publish("trades:A", {"price": float(at), "size": 1, "ts": TS})
        await talk.count(at + 1, t="rows" if at else "snap") if at == 0 else await talk.find(20, t="rows", seq=at + 1)
        assert connection.buffered_bytes < 1_048_576
        if connection.session is not None and connection.session.held and at >= 3:
            break
        await quick.push(at + 1)
    assert connection.session is not None
    assert connection.session.held, "it was never slow"
    await publisher.publish("trades:A", {"price": 1e6, "size": 1, "ts": TS})
    await until(lambda: any(isinstance(one, dict) and one.get("price") == 1e6 for one in quick.pushes()))
    slow.go_on()
    await until(lambda: any(isinstance(one, dict) and one.get("price") == 1e6 for one in slow.pushes()), 20)
    newest = {"close": rows["S000"]["last"]}
    await until(lambda: any(isinstance(one, list) and newest.items() <= one[0].items() for one in slow.pushes()), 20)
    prices = [one["price"] for one in slow.pushes() if isinstance(one, dict)]
    assert prices == sorted(prices), "events come in their order"
    for one in (slow, quick, talk):
        await one.close()


async def test_many_followers_cost_one_translation(wds: Server, publisher: Publisher, key: Key, monkeypatch: Any) -> None:
    """A change is made into a payload once a feed, however many follow it."""
    assert wds.relay is not None
    made: list[str] = []
    payload = wds.relay._payload

    def counted(feed: Any, event: Any) -> Any:
        made.append(feed.name)
        return payload(feed, event)

    monkeypatch.setattr(wds.relay, "_payload", counted)
    apps = [await App.to(wds.port, key(), feed="quote:ABC") for _ in range(10)]
    for app in apps:
        await app.status("subscribed")
    await followed(wds, "quote:ABC")
    await publisher.publish("quote:ABC", QUOTE)
    for app in apps:
        assert await app.push() == QUOTE_PAYLOAD
    assert made == ["quote:ABC"]
    for app in apps:
        await app.close()


async def test_an_emptied_cache_is_followed_on(wds: Server, publisher: Publisher, key: Key) -> None:
    """A new life of the cache: what it says is pushed as before."""
    await publisher.publish("quote:ABC", QUOTE)
    app = await App.to(wds.port, key(), feed="quote:ABC")
    await followed(wds, "quote:ABC")
    await publisher.empty("k2")
    await publisher.publish("quote:ABC", {**QUOTE, "last": 5.0})
    assert (await app.push())["close"] == 5.0
    await app.close()


async def test_a_goodbye_in_the_middle_leaves_nothing_behind(wds: Server, publisher: Publisher, key: Key) -> None:
    """Connections that come, ask and end at once, many times: no feed, no channel, no member stays."""
    await publisher.publish("quote:ABC", QUOTE)
    for _ in range(10):
        apps = await asyncio.gather(*(App.to(wds.port, key(), feed="daily_range:ABC", cache="*") for _ in range(5)))
        for app in apps:
            app.socket.transport.abort()
        await publisher.publish("quote:ABC", {**QUOTE, "last": 2.0})
    relay = wds.relay
    assert relay is not None
    await until(lambda: len(wds.roster) == 0 and len(relay) == 0 and not relay.channels and wds.hub.watched <= 1, 15)
    assert json.dumps(relay.held()) == json.dumps(
        {"following": 0, "owed": 0, "channels": 0, "joining": 0, "ranges": 0, "seen": 0}
    )
