"""Brings a stack to another image by `make upgrade` while a crowd of clients is connected.

Every client has to come back by itself and resume without a gap: each print of its channel is there once, in sequence, whatever was
replaced meanwhile. Events that waited in a queue for longer than it keeps them, as they do on a machine that has other work, are
counted as ever and told, not judged; so are the times: the stack shares its cores with its clients here.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import orjson
import uvloop

from tests.containers.docker import IMAGE, OURS, ROOT, Stack, run
from tests.waiting import until
from wds.client import Client

CLIENTS = 2_000
PROCESSES = 2  # that play them
ANSWER_BYTES_MAX = 1 << 24
JOIN_S_MAX = 240.0
NEXT = f"{IMAGE}:next"
TOKEN_S = 60.0  # a token lives 120 s
OWN = """services:
  wds: { environment: { WDS_PER_USER_MAX: "5000", WDS_PER_ADDRESS_MAX: "5000" } }
"""


class Tokens:
    """One token for the whole crowd, fetched again before it expires."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._token = ""
        self._until_s = 0.0
        self._one = asyncio.Lock()

    async def get(self) -> str:
        """Return a token that lives for another minute."""
        async with self._one:
            if time.monotonic() > self._until_s:
                self._token = await asyncio.to_thread(self._stack.stream_token)
                self._until_s = time.monotonic() + TOKEN_S
            return self._token


class Crowd:
    """Clients of the door, each on one symbol's prints, in processes of their own; see crowd.py."""

    def __init__(self, stack: Stack, symbols: list[str], clients: int = CLIENTS) -> None:
        self.clients = clients
        self._tokens = Tokens(stack)
        self._given = {
            "host": "127.0.0.1", "port": stack.stream_port, "clients": clients // PROCESSES,
            "channels": [f"trades:{symbol}" for symbol in symbols],
        }  # fmt: skip
        self._processes: list[asyncio.subprocess.Process] = []
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Crowd:
        command = (sys.executable, "-m", "tests.containers.crowd")
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "limit": ANSWER_BYTES_MAX}
        self._processes = [await asyncio.create_subprocess_exec(*command, cwd=ROOT, **pipes) for _ in range(PROCESSES)]
        self._tell({**self._given, "token": await self._tokens.get()})
        self._renewing = asyncio.create_task(self._renew())  # on a busy machine they need longer to join than a token lives
        try:
            async with asyncio.timeout(JOIN_S_MAX):
                await asyncio.gather(*(self._hear(one) for one in self._processes))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        for one in self._processes:
            if one.stdin is not None:
                one.stdin.close()
        await asyncio.gather(*(one.wait() for one in self._processes))

    async def _renew(self) -> None:
        while True:
            self._tell({"token": await self._tokens.get()})
            await asyncio.sleep(TOKEN_S / 2)

    def _tell(self, command: dict[str, Any]) -> None:
        for one in self._processes:
            assert one.stdin is not None
            one.stdin.write(orjson.dumps(command) + b"\n")

    async def _hear(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        assert process.stdout is not None
        line = await process.stdout.readline()
        assert line, "a process of the crowd has ended"
        return dict(orjson.loads(line))

    async def told(self) -> dict[str, Any]:
        """Return what all of them have heard and lost until now."""
        self._tell({"tell": True})
        parts = [await self._hear(one) for one in self._processes]
        kinds = sum((Counter(part["kinds"]) for part in parts), Counter[str]())
        return {
            "losses": [one for part in parts for one in part["losses"]], "kinds": dict(kinds),
            **{name: sum(part[name] for part in parts) for name in ("skipped", "declared", "away")},
            "cpu_s": round(sum(part["cpu_s"] for part in parts), 1),
        }  # fmt: skip

    async def back(self) -> dict[str, Any]:
        """Wait until whoever was lost is back; return what they have heard and lost."""

        async def found() -> dict[str, Any] | None:
            told = await self.told()
            return told if not told["away"] else None

        return dict(await until(found, 60, "every client is back", every_s=0.5))

    async def go_on(self) -> dict[str, Any]:
        """Wait until whoever was lost is back and prints come to all; return what they have heard and lost."""
        before = (await self.back())["kinds"].get("event", 0)

        async def prints() -> dict[str, Any] | None:
            told = await self.told()
            return told if told["kinds"].get("event", 0) - before > self.clients * 0.9 else None

        return dict(await until(prints, 60, "prints", every_s=0.5))


def spread(losses: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Return how the clients were lost, how long they were away, and what that time went to: median and longest of each step."""
    every = [loss for one in losses for loss in one]
    if not every:
        return {"lost": {}}
    steps = {
        "away": lambda one: one["back_s"] - one["lost_s"], "told": lambda one: (one["after_ms"] or 0) / 1000,
        "tries": lambda one: one["asked_s"] - one["lost_s"] - (one["after_ms"] or 0) / 1000, "open": lambda one: one["open_s"] - one["asked_s"],
        "token": lambda one: one["known_s"] - one["open_s"], "channel": lambda one: one["back_s"] - one["known_s"],
    }  # fmt: skip
    times = {name: sorted(step(loss) for loss in every) for name, step in steps.items()}
    return {
        "lost": dict(Counter(loss["code"] for loss in every)), "twice": sum(len(one) > 1 for one in losses),
        "refused": dict(Counter(why for loss in every for why in loss["refusals"])),
        "sent_off_over_s": _over([loss["lost_s"] for loss in every]), "back_over_s": _over([loss["back_s"] for loss in every]),
        "first_lost_to_last_back_s": round(max(loss["back_s"] for loss in every) - min(loss["lost_s"] for loss in every), 1),
        **{f"{name}_s": [round(some[len(some) // 2], 2), round(some[-1], 2)] for name, some in times.items()},
    }  # fmt: skip


def _over(times: list[float]) -> float:
    return round(max(times) - min(times), 1) if times else 0.0


def rolling(stack: Stack) -> str:
    """Replace everything by the other image, under load; return what the clients saw."""
    extra = ("--build-arg", "VERSION=0.1.1", "--build-arg", "REVISION=next")
    run("docker", "build", "-q", *extra, "-f", "deploy/Dockerfile", "-t", NEXT, ".")
    return uvloop.run(_rolling(stack))


async def _rolling(stack: Stack) -> str:
    async with Crowd(stack, await symbols(stack)) as crowd:
        before, heard = stack.counts(), (await crowd.told())["kinds"]
        took_s = await asyncio.to_thread(stack.make_up, "upgrade", TAPELINE_IMAGE=NEXT)
        found = await crowd.go_on()
    after = stack.counts()
    lost = {name: after[name] - before[name] for name in ("expired", "dropped", "bad")}
    assert not found["skipped"], f"{found['skipped']} gaps"
    assert not found["declared"], f"{found['declared']} prints were not kept for those who came back"
    assert not lost["bad"]
    images = {one["Config"]["Image"] for name in OURS for one in stack.inspect(*stack.containers(name))}
    assert images == {NEXT}
    prints_heard = found["kinds"]["event"] - heard.get("event", 0)
    return (
        f"{CLIENTS} clients, {took_s:.0f} s, load {os.getloadavg()[0]:.0f}: {spread(found['losses'])}; {prints_heard} prints; "
        f"clients' processor time {found['cpu_s']} s; {after['events'] - before['events']} events, lost {lost}"
    )


async def symbols(stack: Stack) -> list[str]:
    """Return a hundred symbols that are traded."""
    async with Client(stack.stream_url, stack.stream_token()) as client:
        (board,) = await client.get("board:volume")
    return [str(name) for name in board["data"]["order"][:100]]
