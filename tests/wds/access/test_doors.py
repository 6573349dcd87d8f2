"""Sockets that never finish their request: bounded by address and in time, and nobody else is locked out."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.waiting import until
from tests.wds.publisher import Publisher
from tests.wds.raw import Raw
from tests.wds.talk import Talk
from wds.access.handshake import address_key
from wds.server import FILES_KEPT, Server

Token = Callable[..., str]


async def test_silent_sockets_of_one_address_lock_nobody_else_out(serve: Any, publisher: Publisher, token: Token) -> None:
    """1,100 of one address: most are sent away at once, the rest in time; eight clients of another address all get in."""
    wds: Server = await serve(auth_s=2.0)
    silent = [await Raw.to(wds.port, address="127.0.0.9", silent=True) for _ in range(1100)]
    await until(lambda: len(wds.roster) == 256)
    clients = []
    for _ in range(8):
        raw = await Raw.to(wds.port, address="127.0.0.7")
        await raw.sign_in(token())
        clients.append(raw)
    await until(lambda: len(wds.roster) == 8, 6, "the silent ones to be sent away")
    silent[-1].read()
    assert silent[-1].ended
    again = await Raw.to(wds.port, address="127.0.0.9")
    await again.sign_in(token())
    for raw in (*silent, *clients, again):
        raw.close()


async def test_beyond_the_open_files_newcomers_hear_try_later(
    serve: Any, publisher: Publisher, token: Token, cache_url: str
) -> None:
    """The process keeps files for itself; who finds no room hears 503 in HTTP, and who is in stays."""
    wds: Server = await serve()
    wds.sockets_max = 3
    inside = [await Talk.to(wds.port, token()) for _ in range(3)]
    late = await Raw.to(wds.port, silent=True)
    await until(lambda: late.read() is not None and late.ended)
    assert late.first_line == "HTTP/1.1 503 Service Unavailable"
    assert (await inside[0].ask(op="sub", ch=["quote:A"]))["ok"]
    await inside[2].close()
    await until(lambda: len(wds.roster) == 2)
    again = await Talk.to(wds.port, token())
    for talk in (*inside[:2], again):
        await talk.close()


def test_a_worker_raises_its_limit_of_open_files() -> None:
    """The soft limit becomes the hard one, and the sockets it takes stay below."""
    code = (
        "from wds.server import raise_files; import resource; print(raise_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )

    def low() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 700))

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, preexec_fn=low)
    assert done.stdout.split() == ["700", "700", "700"]


async def test_few_files_mean_few_sockets(serve: Any, cache_url: str, tmp_path: Any) -> None:
    """One address may hold a quarter of what there is before its requests are read."""
    from wds.settings import WdsSettings

    server = Server(WdsSettings(mdc_url=cache_url, run_dir=tmp_path, port=0), files_max=264)
    assert server.sockets_max == 264 - FILES_KEPT
    assert [server.lobby.enter("a") for _ in range(51)] == [True] * 50 + [False]
    await server.stop()


def test_limits_count_ipv6_by_its_network() -> None:
    """A host has a whole /64 of addresses; an IPv4 address in IPv6 is itself."""
    assert address_key("2001:db8:1:2:3:4:5:6") == address_key("2001:db8:1:2::9") != address_key("2001:db8:1:3::9")
    assert address_key("::ffff:10.0.0.1") == address_key("10.0.0.1") == "10.0.0.1"
    assert address_key("fe80::1%eth0") == "fe80::/64"
    assert address_key("local") == "local"
