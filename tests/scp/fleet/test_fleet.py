"""Checks what becomes of the admin token and of our threads when a component, the exchange or the cache behaves badly."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from mdc import keys
from scp.fleet.fleet import CACHE_S, CALL_S, SHARED_S, SLOW_S, Fleet
from scp.fleet.inventory import Component
from scp.problems import Problem
from scp.settings import ScpSettings
from service.heartbeat import Beat, seal
from tests.servers import Redis, free_port
from tests.waiting import until_sync

TOKEN = "the admin token of this test"
SPARE_S = 3.0  # a busy machine
Answer = Callable[[socket.socket], None]


@contextmanager
def port(answer: Answer) -> Iterator[tuple[int, list[bytes]]]:
    """A server that does with each connection what the test wants; gives its port and what it was sent."""
    heard: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                heard.append(connection.recv(65_536))
                with_errors(answer, connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listening.getsockname()[1], heard
    finally:
        listening.close()


def with_errors(answer: Answer, connection: socket.socket) -> None:
    """Answer; a client that has gone is no matter."""
    try:
        answer(connection)
    except OSError:
        return


def drip(connection: socket.socket) -> None:
    """Answer a byte at a time, on and on."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(200):
        connection.sendall(b"x")
        time.sleep(0.05)


def fleet_of(tmp_path: Path, mdc_url: str = "memory://fleet", **more: Any) -> Fleet:
    return Fleet(ScpSettings(run_dir=tmp_path, admin_token=TOKEN, mdc_url=mdc_url, **more))


def component(number: int, **more: Any) -> Component:
    """Return a component at a port of this machine."""
    said = {"admin": f"http://127.0.0.1:{number}", "controllable": True, "why_not": ""} | more
    return Component(
        id=f"mdl-x-{number}", kind="mdl", name="mdl", state="ready", reasons=[], age_ms=0, version="", host="", pid=1,
        instance="", started_ms=0, log_level="info", rates={}, lag_ms=None, partitions=None, more={}, **said,
    )  # fmt: skip


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """The token stays where it was sent: the server that the redirect names hears nothing."""
    with port(lambda connection: None) as (elsewhere, heard):
        word = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
        with port(lambda connection: connection.sendall(word.encode())) as (there, asked):
            with pytest.raises(Problem) as refused:
                fleet_of(tmp_path).ask(component(there), "POST", "/drain")
            assert (refused.value.status, refused.value.code) == (503, "component_unreachable")
            assert "redirect" in refused.value.detail
            assert TOKEN.encode() in asked[0]
        assert heard == []


def test_who_is_not_believed_hears_nothing(tmp_path: Path) -> None:
    """Not even a connection is made."""
    with port(lambda connection: None) as (there, heard):
        for method, path in (("POST", "/drain"), ("GET", "/metrics")):
            with pytest.raises(Problem) as refused:
                fleet_of(tmp_path).ask(component(there, controllable=False, why_not="forged"), method, path)
            assert (refused.value.status, refused.value.code) == (409, "not_controllable")
        assert heard == []


@pytest.mark.parametrize("answer", [lambda _: time.sleep(8), drip])
def test_who_hangs_holds_no_thread(tmp_path: Path, answer: Answer) -> None:
    """Silence, or a byte now and then: the call ends in seconds, also while others hang."""
    with port(answer) as (there, _):
        fleet, began_s = fleet_of(tmp_path), time.monotonic()
        found = fleet.ask_each([component(there)] * 3, "GET", "/clients")
        with pytest.raises(Problem) as late:
            fleet.ask(component(there), "GET", "/clients")
        assert time.monotonic() - began_s < 2 * (CALL_S + SPARE_S)
        assert {said.code for _, said in found if isinstance(said, Problem)} == {"no_answer"}
        assert (late.value.status, late.value.code) == (503, "no_answer")


def test_answers_that_are_none_are_problems(tmp_path: Path) -> None:
    """Nobody there, nonsense, a refusal, a fault, and too much."""
    fleet = fleet_of(tmp_path)

    def code_of(word: bytes) -> str:
        with port(lambda connection: connection.sendall(word)) as (there, _), pytest.raises(Problem) as refused:
            fleet.ask(component(there), "GET", "/feed")
        return refused.value.code

    with pytest.raises(Problem) as nobody:
        fleet.ask(component(free_port()), "GET", "/feed")
    assert nobody.value.code == "component_unreachable"
    assert code_of(b"hello\r\n\r\n") == "component_unreachable"
    assert code_of(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n") == "token_refused"
    assert code_of(b'HTTP/1.1 400 No\r\nContent-Length: 15\r\n\r\n{"detail":"no"}') == "component_refuses"
    assert code_of(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n") == "component_failed"
    assert code_of(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 9_999_999) == "component_unreachable"


def test_the_exchange_is_asked_with_its_key_only(tmp_path: Path) -> None:
    """Away, without a right key, hanging: each is a 503 that says what to do; the admin token never goes there."""
    with pytest.raises(Problem) as away:
        fleet_of(tmp_path, engine_url=f"http://127.0.0.1:{free_port()}").gateway("GET", "/MessageStore")
    assert away.value.code == "engine_unavailable"
    with port(lambda c: c.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")) as (there, heard):
        with pytest.raises(Problem) as refused:
            fleet_of(tmp_path, engine_url=f"http://127.0.0.1:{there}", engine_token="the key").gateway("GET", "/x")
        assert refused.value.code == "engine_refuses_us"
        assert b"Bearer the key" in heard[0]
        assert TOKEN.encode() not in heard[0]
    with port(lambda _: time.sleep(9)) as (there, _):
        began_s = time.monotonic()
        with pytest.raises(Problem) as late:
            fleet_of(tmp_path, engine_url=f"http://127.0.0.1:{there}").gateway("GET", "/x")
        assert late.value.code == "no_answer"
        assert time.monotonic() - began_s < SLOW_S + SPARE_S


def test_who_waits_for_a_frozen_one_leaves_room_for_everybody_else(tmp_path: Path) -> None:
    """Of twelve at once four wait, half of the server's threads; the others are told at once."""
    with port(lambda _: time.sleep(9)) as (there, _):
        fleet = fleet_of(tmp_path, engine_url=f"http://127.0.0.1:{there}")
        codes: list[str] = []

        def ask() -> None:
            with pytest.raises(Problem) as refused:
                fleet.gateway("GET", "/x")
            codes.append(refused.value.code)

        asking = [threading.Thread(target=ask) for _ in range(12)]
        for one in asking:
            one.start()
        until_sync(lambda: len(codes) == 8, SLOW_S, "those for whom there is no place")
        assert set(codes) == {"busy"}
        for one in asking:
            one.join()
        assert sorted(set(codes)) == ["busy", "no_answer"]


def test_a_cache_that_is_away_or_hangs_is_a_problem(tmp_path: Path, redis_server: Redis) -> None:
    """Within seconds; when it is back, so is the inventory."""
    with pytest.raises(Problem) as away:
        fleet_of(tmp_path, f"redis://127.0.0.1:{free_port()}/0").components()
    assert away.value.code == "cache_unavailable"
    fleet = fleet_of(tmp_path, redis_server.url)
    assert fleet.components() == []
    time.sleep(SHARED_S)  # what was seen a moment ago is not asked for again
    redis_server.freeze()
    began_s = time.monotonic()
    try:
        with pytest.raises(Problem) as hung:
            fleet.components()
        assert hung.value.code in ("no_answer", "cache_unavailable")
        assert time.monotonic() - began_s < CACHE_S + SPARE_S
    finally:
        redis_server.thaw()
    assert fleet.components() == []


def test_five_hundred_components_are_listed(tmp_path: Path, mdc_url: str) -> None:
    """From the cache to the list, proofs and all."""
    with redis.Redis.from_url(mdc_url) as client:
        client.hset(keys.COMPONENTS, mapping=dict(map(heartbeat, range(500))))
    fleet = fleet_of(tmp_path, mdc_url)
    found = fleet.components()
    assert [one.id for one in found] == [f"wds-host-{number:04}" for number in range(500)]
    assert all(one.controllable for one in found)


def heartbeat(number: int) -> tuple[str, bytes]:
    """Return a component's name and what it keeps in the cache."""
    beat = Beat(
        id=f"wds-host-{number:04}", kind="wds", name=f"wds-{number}", version="0.1.0", host="host", pid=number, instance="abc",
        started_ms=1, admin=f"http://127.0.0.1:{10_000 + number}", log_level="info", ready=True, reasons=[],
        rates={"frames_s": 12_345.6, "client_frames_s": 7.8}, partitions=[1, 2, 3],
        more={"connections": 1_000, "channels": 500, "state": "live", "draining": False, "port": 8400, "worker": number},
    )  # fmt: skip
    body = msgspec.json.encode(beat)
    return beat.id, b'{"at_ms":9999999999999,"seal":"%s","beat":%s}' % (seal(TOKEN.encode(), body).encode(), body)
