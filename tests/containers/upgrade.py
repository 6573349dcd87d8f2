"""Brings a stack to another image by `make upgrade` while a crowd of clients is connected.

Every client has to come back by itself and resume without a gap: each print of its channel is there once, in sequence, whatever was
replaced meanwhile. Events that waited in a queue for longer than it keeps them, as they do on a machine that has other work, are
counted as ever and told, not judged; so are the times, in which the crowd's own process has a large part.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from tests.containers.docker import IMAGE, OURS, Stack, run
from tests.waiting import until
from wds.client import Client

CLIENTS = 2_000
AT_ONCE = 50  # that connect at the same time
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


class Watcher(Client):
    """A client that notes when it was lost and when it was back; of what it hears only the numbers are kept."""

    def __init__(self, url: str, token: Callable[[], Awaitable[str]]) -> None:
        super().__init__(url, token)
        self.lost_s: list[float] = []
        self.back_s: list[float] = []
        self.codes: list[int] = []  # with which it was lost
        self.kinds: dict[str, int] = {}
        self.skipped = 0
        self.declared = 0

    async def _come_back(self) -> None:
        self.lost_s.append(time.monotonic())
        self.codes.append(self._socket.close_code or 1006 if self._socket is not None else 1006)
        await super()._come_back()
        self.back_s.append(time.monotonic())

    async def watch(self, channel: str) -> None:
        """Follow a channel until cancelled; a step in the numbers that nothing declares is counted."""
        await self.subscribe(channel)
        at = -1
        async for push in self:  # its copy may be further by now: the frame says what it was
            self.kinds[push.kind] = self.kinds.get(push.kind, 0) + 1
            if push.kind == "event":
                self.skipped += push.frame["prev"] != at
            if push.kind == "lost":
                self.declared += push.frame["n"]
                at += push.frame["n"]
            elif push.kind in ("event", "snap"):
                at = push.frame["seq"]


class Crowd:
    """Many clients of the door, each on one symbol's prints."""

    def __init__(self, stack: Stack, symbols: list[str]) -> None:
        tokens = Tokens(stack)
        self.all = [Watcher(stack.stream_url, tokens.get) for _ in range(CLIENTS)]
        self._symbols = symbols
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Crowd:
        gate = asyncio.Semaphore(AT_ONCE)

        async def join(number: int, client: Watcher) -> None:
            async with gate:
                await client.__aenter__()
            self._tasks.append(asyncio.create_task(client.watch(f"trades:{self._symbols[number % len(self._symbols)]}")))

        await asyncio.gather(*(join(number, client) for number, client in enumerate(self.all)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(client.close() for client in self.all))

    async def back(self, since_s: float) -> dict[str, Any]:
        """Wait until whoever was lost is back; return how many were, and when they came."""
        await until(lambda: all(len(one.back_s) == len(one.lost_s) for one in self.all), 60, "every client is back", every_s=0.2)
        lost = [s for one in self.all for s in one.lost_s if s >= since_s]
        waits = sorted(back - gone for one in self.all for gone, back in zip(one.lost_s, one.back_s, strict=True))
        return {
            "lost": dict(Counter(code for one in self.all for code in one.codes)), "twice": sum(len(one.lost_s) > 1 for one in self.all), "sent_off_over_s": _over(lost),
            "waited_s": round(waits[-1], 1), "median_s": round(waits[len(waits) // 2], 1),
        }  # fmt: skip

    def ended(self) -> list[BaseException | None]:
        """Return what ended a client."""
        return [task.exception() for task in self._tasks if task.done()]


def _over(times: list[float]) -> float:
    return round(max(times) - min(times), 1) if times else 0.0


def rolling(stack: Stack) -> str:
    """Replace everything by the other image, under load; return what the clients saw."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    run(
        "docker",
        "build",
        "-q",
        "--build-arg",
        "VERSION=0.1.1",
        "--build-arg",
        "REVISION=next",
        "-f",
        "deploy/Dockerfile",
        "-t",
        NEXT,
        ".",
    )
    return uvloop.run(_rolling(stack))


async def _rolling(stack: Stack) -> str:
    symbols = await _symbols(stack)
    async with Crowd(stack, symbols) as crowd:
        before = stack.counts()
        began_s = time.monotonic()
        took_s = await asyncio.to_thread(stack.make_up, "upgrade", TAPELINE_IMAGE=NEXT)
        found = await crowd.back(began_s)
        heard = [sum(one.kinds.values()) for one in crowd.all]
        await until(
            lambda: sum(sum(one.kinds.values()) > was for one, was in zip(crowd.all, heard, strict=True)) > CLIENTS * 0.9,
            60,
            "prints",
        )
        assert not crowd.ended(), crowd.ended()[:3]
        skipped, declared = sum(one.skipped for one in crowd.all), sum(one.declared for one in crowd.all)
        kinds: dict[str, int] = {}
        for one in crowd.all:
            for kind, count in one.kinds.items():
                kinds[kind] = kinds.get(kind, 0) + count
    after = stack.counts()
    lost = {name: after[name] - before[name] for name in ("expired", "dropped", "bad")}
    assert not skipped, f"{skipped} gaps"
    assert not declared, f"{declared} prints were not kept for those who came back"
    assert not lost["bad"]
    images = {one["Config"]["Image"] for name in OURS for one in stack.inspect(*stack.containers(name))}
    assert images == {NEXT}
    return f"{CLIENTS} clients, {took_s:.0f} s: {found}; {kinds}; {after['events'] - before['events']} events, lost {lost}"


async def _symbols(stack: Stack) -> list[str]:
    async with Client(stack.stream_url, stack.stream_token()) as client:
        (board,) = await client.get("board:volume")
    return [str(name) for name in board["data"]["order"][:100]]
