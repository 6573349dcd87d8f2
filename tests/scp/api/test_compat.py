"""The original service's app and its key: who gets one, what it opens, and that it ends with the sign-in it belongs to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from scp.settings import ScpSettings
from tests.scp.conftest import Person, ScpProcess
from tests.servers import Redis
from tests.waiting import until
from tests.wds.compat.app import App
from wds.access.tokens import COMPAT_AUDIENCE, KeyRing, TokenRefused
from wds.server import Server
from wds.settings import WdsSettings

WEEK_S = 604_800


@pytest.fixture(scope="module")
def cache() -> Iterator[Redis]:
    """A Redis that the control plane and the data service share."""
    with Redis() as started:
        yield started


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, cache: Redis) -> Iterator[ScpProcess]:
    """A control plane that serves the original's app."""
    started = ScpProcess(tmp_path_factory.mktemp("compat"), WDS_PORT="8444", WDS_COMPAT="true", MDC_URL=cache.url)
    assert started.admin
    yield started
    started.end()


def keys_of(plane: ScpProcess) -> KeyRing:
    ring = KeyRing()
    ring.install(plane.ask("/jwks.json").text.encode())  # type: ignore[attr-defined]
    return ring


def test_whoever_is_signed_in_gets_a_key(plane: ScpProcess) -> None:
    """As long as the sign-in may last, for its channels, good for the app's own path alone; no key of a vendor goes out."""
    ann = plane.person("viewer")
    answer = ann.get("/api/get_config")
    assert answer.status == 200
    assert answer.raw.getheader("Cache-Control") == "no-store"
    config = answer.body
    assert config.keys() == {"api_key", "ws_endpoint", "massive_api_key", "finlight_api_key", "app_version"}
    assert (config["ws_endpoint"], config["massive_api_key"], config["finlight_api_key"]) == (
        "ws://127.0.0.1:8444/ws",
        None,
        None,
    )
    claims = keys_of(plane).verify(config["api_key"], time.time(), (COMPAT_AUDIENCE,))
    (session,) = ann.get("/api/v1/me/sessions").body
    assert (claims.sub, claims.sid, claims.exp_s) == (ann.name, session["id"], session["ends_ms"] // 1000)
    assert WEEK_S - 120 < claims.exp_s - time.time() <= WEEK_S
    assert claims.allows("quote:A")
    with pytest.raises(TokenRefused):
        keys_of(plane).verify(config["api_key"], time.time())


def test_nobody_else_does(plane: ScpProcess, scp: ScpProcess) -> None:
    """Not signed in, another site's page, a token of a script; and where it is switched off, nobody."""
    ann = plane.person("viewer")
    assert plane.api("GET", "/api/get_config").status == 401
    assert ann.get("/api/get_config", Origin="https://evil.example").status == 403
    made = ann.change("POST", "/api/v1/me/tokens", {"name": "t", "scopes": ["view"], "days": 1})
    by_token = plane.api("GET", "/api/get_config", token=made.body["token"])
    assert (by_token.status, by_token.body["code"]) == (403, "session_needed")
    off = Person(scp, scp.admin["value"]).get("/api/get_config")
    assert (off.status, off.body["code"]) == (404, "compat_off")
    assert "WDS_COMPAT=true" in off.body["detail"]


@pytest.mark.parametrize(
    ("stream", "path"),
    [
        ("", "ws://127.0.0.1:8400/ws"), ("wss://data.example.com/v1/stream", "wss://data.example.com/ws"),
        ("wss://desk.example.com/feed/v1/stream/", "wss://desk.example.com/feed/ws"), ("ws://other:1", "ws://other:1/ws"),
    ],
)  # fmt: skip
def test_the_path_is_beside_the_stream(stream: str, path: str) -> None:
    """Wherever browsers find WDS."""
    assert ScpSettings(compat=True, wds_public_url=stream).compat_url == path
    assert ScpSettings(wds_public_url=stream).compat_url == ""


def test_what_is_signed_for_long_is_remembered_for_long() -> None:
    """Keys that signed, and sessions that ended, are told as long as such a key may be good; switched off, as short as before."""
    assert ScpSettings(compat=True).longest_s == WEEK_S
    assert ScpSettings().longest_s == 120


Ending = Callable[[ScpProcess, Person], Any]
WAYS: dict[str, Ending] = {
    "sign-out": lambda _, ann: ann.change("POST", "/api/v1/sign-out"),
    "other role": lambda plane, ann: boss(plane).change("PATCH", f"/api/v1/users/{ann.id}", {"role": "operator"}),
    "disabled": lambda plane, ann: boss(plane).change("PATCH", f"/api/v1/users/{ann.id}", {"disabled": True}),
}


def boss(plane: ScpProcess) -> Person:
    return Person(plane, plane.admin["value"])


async def test_it_ends_with_the_sign_in(plane: ScpProcess, cache: Redis, tmp_path: Path) -> None:
    """Sign-out, another role, disabled: 4001 within two seconds, the key opens nothing after, and that is told for a week."""
    settings = {"mdc_url": cache.url, "run_dir": tmp_path, "port": 0, "compat": True, "local_keys": False}
    server = Server(WdsSettings(**settings, jwks_url=f"http://127.0.0.1:{plane.port}/jwks.json"))
    await server.start()
    try:
        await until(lambda: server.upstream.up)
        for end in WAYS.values():
            ann = await asyncio.to_thread(plane.person, "viewer")
            key = (await asyncio.to_thread(ann.get, "/api/get_config")).body["api_key"]
            app = await App.to(server.port, key, feed="quote:A")
            await app.status("subscribed")
            done = await asyncio.to_thread(end, plane, ann)
            assert done.status in (200, 204), done.body
            assert await app.closed(6) == 4001
            again = await App.to(server.port, key, feed="quote:A")
            assert await again.closed() == 4001
            assert again.heard[0]["status"] == "invalid key"
    finally:
        await server.stop()
    left_ms = redis.Redis.from_url(cache.url).pttl("scp:revoked")
    assert left_ms > 6 * 86_400_000, json.dumps(left_ms)
