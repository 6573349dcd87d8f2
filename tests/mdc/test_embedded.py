"""Checks the embedded cache: its port, replies without delay, and errors that leave the connection open."""

from __future__ import annotations

import statistics
import time

import pytest
import redis

from mdc.embedded import EmbeddedCache
from service.errors import OperatorError


def test_a_free_port_is_taken_and_given_back() -> None:
    """Port 0 takes a free one; after the end another cache can have it."""
    cache = EmbeddedCache(0)
    cache.start()
    with redis.Redis.from_url(cache.url) as client:
        client.set("a", 1)
        assert client.get("a") == b"1"
    cache.stop()
    again = EmbeddedCache(cache.port)
    again.start()
    with redis.Redis.from_url(again.url) as client:
        assert client.get("a") is None
    again.stop()


def test_a_taken_port_is_an_operators_matter() -> None:
    """The error says which port and what to set."""
    cache = EmbeddedCache(0)
    with pytest.raises(OperatorError, match=f"cannot listen on 127.0.0.1:{cache.port}.*MDC_EMBEDDED_PORT"):
        EmbeddedCache(cache.port)
    cache._server.server_close()


def test_small_replies_do_not_wait(embedded_url: str) -> None:
    """A round trip takes no delayed acknowledgement of 40 ms."""
    with redis.Redis.from_url(embedded_url) as client:
        client.ping()
        taken = []
        for _ in range(20):
            began = time.perf_counter()
            client.ping()
            taken.append(time.perf_counter() - began)
        assert statistics.median(taken) < 0.02


def test_an_error_reply_leaves_the_connection_open(embedded_url: str) -> None:
    """NOSCRIPT and wrong types are answers, as with a real server; the client goes on with the same connection."""
    with redis.Redis.from_url(embedded_url, single_connection_client=True) as client:
        me = client.client_id()
        for _ in range(3):
            with pytest.raises(redis.exceptions.NoScriptError):
                client.evalsha("0" * 40, 0)
        client.set("text", "a")
        with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
            client.lpush("text", 1)
        assert client.get("text") == b"a"
        assert client.client_id() == me
