"""A worker that serves the original service's path, and keys as the control plane gives them to its app."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from tests.wds.publisher import Publisher
from wds.access.keys import local_key
from wds.access.tokens import COMPAT_AUDIENCE, mint
from wds.server import Server


@pytest.fixture
async def wds(serve: Callable[..., Any], publisher: Publisher) -> Server:
    """One worker that serves /ws."""
    server: Server = await serve(compat=True)
    await until(lambda: server.hub.verdict.state == "live")
    return server


@pytest.fixture
def key(tmp_path: Path) -> Callable[..., str]:
    """Mint a key of a sign-in `sid`."""

    def make(*globs: str, sid: str = "s1", sub: str = "eve", ttl_s: int = 3600) -> str:
        return mint(local_key(tmp_path), sub, globs or ("*",), ttl_s, time.time(), "j1", audience=COMPAT_AUDIENCE, sid=sid)

    return make


async def followed(server: Server, *channels: str) -> None:
    """Wait until changes of these channels are pushed: before that they are nobody's, as at the original."""
    relay = server.relay
    assert relay is not None
    await until(lambda: relay.channels >= set(channels), 10, f"{channels} to be followed; are: {relay.channels}")
