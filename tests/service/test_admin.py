"""Checks the admin port: health, metrics, and changes that need the token."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from litestar import post
from litestar.types import ControllerRouterHandler

from service import metrics
from service.admin import AdminServer, bind, require_admin
from service.errors import OperatorError

reasons: list[str] = []
turns: list[str] = []


@post("/turn", guards=[require_admin], sync_to_thread=False)
def turn() -> dict[str, int]:
    turns.append("turned")
    return {"turns": len(turns)}


@pytest.fixture
async def admin() -> AsyncIterator[httpx.AsyncClient]:
    """The admin port of a component called reel; its token is `correct horse`."""
    reasons.clear()
    turns.clear()
    routes: list[ControllerRouterHandler] = [turn]
    server = AdminServer("reel", "127.0.0.1", 0, "correct horse", lambda: reasons, routes)
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        yield client
    await server.stop()
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", server.port)) != 0, "the port is still open after stop()"


async def test_a_turning_loop_is_alive(admin: httpx.AsyncClient) -> None:
    """/livez answers 200 as long as the loop turns, ready or not."""
    reasons.append("cache unavailable")
    assert (await admin.get("/livez")).json() == {"status": "alive"}


async def test_readiness_names_what_is_missing(admin: httpx.AsyncClient) -> None:
    """/readyz is 200 with nothing in the way, else 503 and the reasons."""
    good = await admin.get("/readyz")
    assert (good.status_code, good.json()) == (200, {"ready": True, "reasons": []})
    reasons.append("cache unavailable")
    bad = await admin.get("/readyz")
    assert (bad.status_code, bad.json()) == (503, {"ready": False, "reasons": ["cache unavailable"]})


async def test_metrics_are_prometheus_text(admin: httpx.AsyncClient) -> None:
    """/metrics is what Prometheus scrapes."""
    metrics.counter("reel", "turns", "Turns.").inc()
    answer = await admin.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "tapeline_reel_turns_total" in answer.text


@pytest.mark.parametrize(
    "sent",
    [{}, {"authorization": ""}, {"authorization": "Bearer wrong horse"},
     {"authorization": "correct horse"}, {"authorization": "bearer correct horse"}, {"authorization": "Basic Y29ycmVjdA=="},
     {"authorization": b"Bearer \xff\xfe"}],
)  # fmt: skip
async def test_a_change_without_the_token_is_refused(admin: httpx.AsyncClient, sent: dict[str, str | bytes]) -> None:
    """401 for no token, a wrong one, another scheme or bytes that are no text; the answer says where the token is."""
    answer = await admin.post("/turn", headers=list(sent.items()))  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert "admin.token" in answer.text
    assert "correct horse" not in answer.text
    assert turns == []


async def test_a_change_with_the_token_is_made(admin: httpx.AsyncClient) -> None:
    """The bearer token opens the control routes."""
    answer = await admin.post("/turn", headers={"authorization": "Bearer correct horse"})
    assert (answer.status_code, answer.json()) == (201, {"turns": 1})


async def test_the_admin_port_documents_itself(admin: httpx.AsyncClient) -> None:
    """/docs/openapi.json lists the control routes."""
    paths = (await admin.get("/docs/openapi.json")).json()["paths"]
    assert {"/livez", "/readyz", "/metrics", "/turn"} <= paths.keys()


async def test_a_taken_port_is_one_clear_line() -> None:
    """The line names address, port and the variable that moves it."""
    holder = bind("127.0.0.1", 0, "REEL_ADMIN_PORT")
    port = holder.getsockname()[1]
    server = AdminServer("reel", "127.0.0.1", port, "t", list)
    with holder, pytest.raises(OperatorError) as failed:
        await server.start()
    assert f"127.0.0.1:{port}: address already in use" in str(failed.value)
    assert "REEL_ADMIN_PORT" in str(failed.value)


def test_a_host_that_is_not_ours_is_one_clear_line() -> None:
    """An address of another machine cannot be listened on."""
    with pytest.raises(OperatorError, match=r"cannot listen on 192\.0\.2\.1:0"):
        bind("192.0.2.1", 0, "ADMIN_HOST")


def test_workers_can_share_a_port() -> None:
    """With `reuse_port` several processes accept on one port."""
    with bind("127.0.0.1", 0, "P", reuse_port=True) as first:
        bind("127.0.0.1", first.getsockname()[1], "P", reuse_port=True).close()
