"""How long does a page of 10,000 symbols wait for its first paint, and how long until a worker of as many channels is warm again?

One client subscribes to `quote:*`: on a worker that watches nothing yet (`cold`), and again when another already has it all (`warm`);
then the cache is away for a moment (`back`). Processes: worker, Redis, and the client, which reads without parsing. A turn is what
the worker's loop does at once, in processor time: for so long nobody else is served. The worker collects garbage as in service.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mdc.served import usable_port
from tests.bench.stream.rig import Child, _masked, _upgrade
from tests.caches import answers
from tests.stack import _die_with_parent
from tests.waiting import until_sync


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--symbols", type=int, default=10_000)
    parser.add_argument("--tiny", action="store_true", help="a few symbols: that it runs, not what it says")
    given = parser.parse_args()
    symbols = 300 if given.tiny else given.symbols
    with redis_server() as url:
        for figure, value, unit in [*measure(url, symbols, False), *measure(url, symbols, True)]:
            line = {
                "bench": "first_paint",
                "figure": figure,
                "value": round(value, 4),
                "unit": unit,
                "workload": {"symbols": symbols},
            }
            print(json.dumps(line), flush=True)


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis of this machine, new and empty."""
    import redis

    port = usable_port(0)
    with tempfile.TemporaryDirectory() as folder:
        argv = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", folder, "--bind", "127.0.0.1"]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, preexec_fn=_die_with_parent) as process:
            with redis.Redis(port=port) as client:
                until_sync(lambda: answers(client), seconds=30)
            yield f"redis://127.0.0.1:{port}/0"
            process.terminate()


def measure(url: str, symbols: int, turns: bool) -> Iterator[tuple[str, float, str]]:
    """Yield figure, value, unit: the times, or the longest turns, whose measuring takes half of the worker's time."""
    server = Child("server", mdc_url=url, subs_max=symbols + 10, ping_s=3600.0, linger_s=600.0, per_user_max=10)
    begun = server.hear()
    sockets = []
    try:
        server.ask(fill=symbols)
        for name in ("cold", "warm"):
            server.ask(turns="begin" if turns else "end")
            sock, took_s = painted(begun, symbols)
            sockets.append(sock)
            found = server.ask(turns="end")
            yield (f"{name}_longest_turn_ms", found["longest_s"] * 1000, "ms") if turns else (f"{name}_join_s", took_s, "s")
        server.ask(turns="begin" if turns else "end")
        back = server.ask(turns="outage")
        found = server.ask(turns="end")
        yield ("back_longest_turn_ms", found["longest_s"] * 1000, "ms") if turns else ("back_s", back["seconds"], "s")
    finally:
        for sock in sockets:
            sock.close()
        server.end()


def painted(begun: dict[str, Any], symbols: int) -> tuple[socket.socket, float]:
    """Subscribe to every quote; return the connection, and how long it took until the last snap was here."""
    sock = socket.create_connection(("127.0.0.1", begun["port"]))
    sock.sendall(_upgrade() + _masked({"id": 1, "op": "auth", "token": begun["token"]}))
    data = b""
    while b'"ok":true' not in data:
        data += sock.recv(65_536)
    began = time.monotonic()
    sock.sendall(_masked({"id": 2, "op": "sub", "ch": ["quote:*"]}))
    snaps, rest = 0, b""
    while snaps < symbols:
        data = rest + sock.recv(1 << 20)
        snaps += data.count(b'"t":"snap"')
        rest = data[-9:] if not data.endswith(b'"t":"snap"') else b""
    return sock, time.monotonic() - began


if __name__ == "__main__":
    main()
