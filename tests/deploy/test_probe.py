"""Checks that an unready component's reasons arrive, and that a closed port gives None instead of an exception."""

from __future__ import annotations

from deploy.probe import ask
from service.admin import AdminServer
from tests.servers import free_port


async def test_the_reasons_of_an_unready_component_arrive() -> None:
    """503 is an answer: its body is what people are told."""
    server = AdminServer("reel", "127.0.0.1", 0, "token", lambda: ["cache unavailable"])
    await server.start()
    assert await ask(server.port, "/readyz") == {"ready": False, "reasons": ["cache unavailable"]}
    assert await ask(server.port, "/metrics") is None
    await server.stop()


async def test_nobody_is_an_answer() -> None:
    """A closed port is no exception."""
    assert await ask(free_port(), "/readyz") is None
