"""The admin port: the feed and the recording changed at runtime, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from mdl.control import Change, changed
from mdl.feeds.replay import read_all
from mdl.settings import MdlSettings
from mdl.tapes.generator import write_tape
from mdl.vendor.protocol import status
from service.errors import OperatorError
from tests.mdl.rig import Start, call, only
from tests.waiting import until


def test_a_change_keeps_what_it_does_not_name() -> None:
    """Checked as at start-up; the subscriptions of another market are forgotten."""
    settings = MdlSettings(symbols=9, subscriptions="T.*", api_key="k")
    faster = changed(settings, Change(rate=5, speed=2.5), settings)
    assert (faster.symbols, faster.rate, faster.speed, faster.subscriptions) == (9, 5, "2.5", "T.*")
    assert faster.api_key.get_secret_value() == "k"
    assert changed(settings, Change(market="crypto"), settings).topics == ("XT.*", "XQ.*", "XA.*", "XAS.*")
    assert changed(settings, Change(market="crypto", subscriptions=["XT.*"]), settings).topics == ("XT.*",)
    with pytest.raises(OperatorError, match="MDL_RATE"):
        changed(settings, Change(rate=-1), settings)


def test_the_environment_does_not_undo_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for at runtime wins over the variable of the start."""
    monkeypatch.setenv("MDL_RATE", "77")
    settings = MdlSettings()
    assert settings.rate == 77
    assert changed(settings, Change(rate=5), settings).rate == 5
    assert changed(settings, Change(symbols=5), settings).rate == 77


async def test_the_feed_is_controlled_at_runtime(start: Start, tmp_path: Path, name: str) -> None:
    """Stop, start, another feed, with the token only; the key is never shown."""
    listener = await start(f"memory://{name}", rate=100)
    assert (await call(listener, "POST", "/feed/stop", token="wrong")).status_code == 401
    assert (await call(listener, "POST", "/feed/stop")).json()["sources"]["simulator"]["state"] == "stopped"
    assert (await call(listener, "GET", "/readyz")).status_code == 503
    assert (await call(listener, "POST", "/feed/start")).status_code == 200
    await until(lambda: only(listener).session.state == "live")
    path = tmp_path / "tape.ndjson"
    write_tape(path, 5, 1, 500)
    answer = await call(listener, "POST", "/feed", {"feed": "replay", "tape": str(path), "speed": 100, "api_key": "hidden"})
    assert answer.status_code == 200
    source = answer.json()["sources"]["replay"]["settings"]
    assert (source["tape"], source["speed"], source["loop"]) == (str(path), "100", False)
    assert "hidden" not in answer.text + (await call(listener, "GET", "/feed", token="none")).text
    await until(lambda: only(listener).session.state == "ended")
    answer = await call(listener, "POST", "/feed", {"feed": "simulator", "symbols": 7, "rate": 50})
    assert answer.json()["sources"]["simulator"]["settings"]["symbols"] == 7
    await until(lambda: only(listener).session.state == "live")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"feed": "carrier pigeon"}, "simulator"),
        ({"feed": "replay", "tape": "/no/such.ndjson"}, "/no/such.ndjson"),
        ({"feed": "replay"}, "tape"),
        ({"speed": "fast"}, "max or a number"),
        ({"speed": -1}, "max or a number"),
        ({"rate": -1}, "greater than or equal"),
        ({"subscriptions": ["T.*", "no dot"]}, "not a subscription"),
        ({"market": "bonds"}, "stocks"),
        ({"colour": "red"}, "colour"),
        ({"rate": "many"}, "rate"),
        ([1], "object"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(start: Start, name: str, body: Any, word: str) -> None:
    """A 400 that says why; the feed goes on."""
    listener = await start(f"memory://{name}", rate=100)
    answer = await call(listener, "POST", "/feed", body)
    assert answer.status_code == 400
    assert word in answer.text
    assert "Traceback" not in answer.text
    assert only(listener).session.settings.feed == "simulator"
    await until(lambda: only(listener).session.state == "live")


async def test_a_stored_key_does_not_follow_the_feed_to_another_server(start: Start, name: str) -> None:
    """The operator is told to send one; with it the server is asked, and sees that one only."""
    async with Eavesdropper() as other:
        listener = await start(f"memory://{name}", api_key="the-vendors", rate=100)
        change = {"feed": "massive", "massive_url": other.url}
        answer = await call(listener, "POST", "/feed", change)
        assert answer.status_code == 400
        assert "api_key" in answer.text
        assert listener.settings.feed == "simulator"
        assert (await call(listener, "POST", "/feed", change | {"api_key": "its-own"})).status_code == 200
        await until(lambda: "its-own" in other.heard)
        assert "the-vendors" not in other.heard
        assert (await call(listener, "POST", "/feed", {"feed": "simulator", "massive_url": ""})).status_code == 200
        assert listener.settings.api_key.get_secret_value() == "the-vendors"


class Eavesdropper:
    """A server that lets everybody in and keeps what it is told."""

    def __init__(self) -> None:
        self.heard = ""

    async def __aenter__(self) -> Eavesdropper:
        self._server = await serve(self._listen, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _listen(self, socket: ServerConnection) -> None:
        await socket.send(status("connected"))
        async for message in socket:
            self.heard += str(message)


async def test_a_recording_started_at_runtime_can_be_replayed(start: Start, tmp_path: Path, name: str) -> None:
    """What went through is on disk, frame by frame."""
    listener = await start(f"memory://{name}", rate=2_000)
    assert (await call(listener, "POST", "/record/start")).json()["sources"]["simulator"]["record"]["recording"]
    seen = only(listener).intake.received_frames
    await until(lambda: only(listener).intake.received_frames > seen + 20)
    answer = (await call(listener, "POST", "/record/stop")).json()["sources"]["simulator"]["record"]
    assert not answer["recording"]
    assert answer["frames"] > 20
    (path,) = list((tmp_path / "rec").glob("*.zst"))
    lines = list(read_all(path))
    assert len(lines) == answer["frames"]
    assert all(line.at_ns for line in lines)
