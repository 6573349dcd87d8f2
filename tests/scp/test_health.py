"""scp/health.py: when the page's server calls itself ready."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from scp.health import wds_fault
from tests.scp.conftest import ScpProcess
from tests.waiting import until, until_sync


async def answering(answer: bytes) -> asyncio.Server:
    """Start a server that greets with `answer`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def test_any_http_answer_will_do() -> None:
    """What it answers is its own matter; another protocol is not WDS."""
    async with await answering(b"HTTP/1.1 404 Not Found\r\n\r\n") as server:
        assert await wds_fault("127.0.0.1", server.sockets[0].getsockname()[1]) is None
    async with await answering(b"SSH-2.0\r\n") as server:
        assert "not a web server" in str(await wds_fault("127.0.0.1", server.sockets[0].getsockname()[1]))


async def test_a_closed_port_is_named() -> None:
    """The operator reads where WDS was looked for."""
    assert "WDS at 127.0.0.1:1 is not reachable" in str(await wds_fault("127.0.0.1", 1))


async def test_readiness_follows_the_stream(start_scp: Callable[..., ScpProcess]) -> None:
    """Not ready while WDS is away, ready once it answers, and without a restart."""
    async with await answering(b"HTTP/1.1 200 OK\r\n\r\n") as server:
        port = server.sockets[0].getsockname()[1]
        scp = start_scp(WDS_PORT=str(port))
        reasons = lambda: json.loads(scp.ask("/readyz", port=scp.admin_port).text)["reasons"]  # type: ignore[attr-defined]  # noqa: E731
        await until(lambda: asyncio.to_thread(lambda: not any("WDS" in reason for reason in reasons())), 15)
    await until(lambda: asyncio.to_thread(lambda: any("WDS" in reason for reason in reasons())), 15)


def test_the_admin_port_lives_while_the_stream_is_away(scp: ScpProcess) -> None:
    """Alive, not ready, and counting."""
    assert scp.ask("/livez", port=scp.admin_port).status == 200
    until_sync(lambda: "not reachable" in scp.ask("/readyz", port=scp.admin_port).text, 10)  # type: ignore[attr-defined]
    assert scp.ask("/readyz", port=scp.admin_port).status == 503
    scp.ask("/")
    assert "tapeline_scp_requests_total" in scp.ask("/metrics", port=scp.admin_port).text  # type: ignore[attr-defined]
