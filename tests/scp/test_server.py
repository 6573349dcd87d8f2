"""scp/server.py and `python -m scp`: start, refusals in one line, a timely end."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from tests.scp.conftest import ScpProcess


def refusal(scp: ScpProcess) -> str:
    """Wait for the process to refuse; return its one line."""
    assert scp.process.wait(15) == 2
    assert not any("Traceback" in line for line in scp.lines)
    said = [line for line in scp.lines if not line.startswith("{")]
    assert len(said) == 1, scp.lines
    return said[0]


@pytest.mark.parametrize("variable", ["SCP_PORT", "SCP_ADMIN_PORT"])
def test_a_taken_port_is_one_clear_line(start_scp: Callable[..., ScpProcess], variable: str) -> None:
    """It names the variable that moves the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refusal(start_scp(**{variable: str(taken.getsockname()[1])}))
    assert line.startswith("tapeline scp: error: cannot listen on 127.0.0.1:")
    assert variable in line


def test_an_address_of_the_network_is_refused(start_scp: Callable[..., ScpProcess]) -> None:
    """Passwords would pass readable."""
    line = refusal(start_scp(SCP_HOST="0.0.0.0"))
    assert "SCP_PUBLIC_URL=https" in line
    assert "SCP_HOST" in line


def test_sigterm_ends_it_within_ten_seconds(start_scp: Callable[..., ScpProcess]) -> None:
    """Even while a browser keeps a connection open."""
    scp = start_scp()
    with socket.create_connection(("127.0.0.1", scp.port)) as idle:
        idle.sendall(b"GET /api/session HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(100)
        started = time.monotonic()
        assert scp.end() == 0
        assert time.monotonic() - started < 10


def test_the_log_holds_no_secret(scp: ScpProcess) -> None:
    """Tokens are not logged."""
    scp.ask("/api/session")
    assert not any("eyJ" in line for line in scp.lines)
