"""Tests the links between processes and servers: order, cuts, one-way failures, lost answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.sim.links import NETWORK, End, Link, Network
from tests.sim.loop import Process, VirtualLoop


class Echo:
    """A server that answers every message with the same, and remembers what it got."""

    listening = True

    def __init__(self, process: Process) -> None:
        self.process = process
        self.got: list[Any] = []
        self.lost: list[Exception | None] = []

    def accept(self, end: End) -> None:
        def answer(message: Any) -> None:
            self.got.append(message)
            end.send(message)

        end.on_message = answer
        end.on_lost = self.lost.append


class Scene:
    """A client with one connection to an echo server."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.network = Network(self.loop, 1, lambda *_: None)
        self.server = Echo(Process("server", self.loop))
        self.network.servers["echo"] = self.server
        self.client = Process("client", self.loop)
        self.heard: list[Any] = []
        self.lost: list[Exception | None] = []
        self.end: End

    @property
    def link(self) -> Link:
        return self.network.link(self.client, "echo")

    def play(self, scene: Callable[[Scene], Awaitable[None]]) -> None:
        async def run() -> None:
            self.end = await self.client.start(self.network.open_end("echo"))
            self.end.on_message, self.end.on_lost = self.heard.append, self.lost.append
            await scene(self)

        try:
            self.loop.run_until_complete(self.loop.create_task(run(), context=NETWORK.copy()))
        finally:
            self.loop.close()


def test_messages_arrive_in_order_after_a_while() -> None:
    """What is sent arrives in the order it was sent, however slow the link is meanwhile."""

    async def scene(at: Scene) -> None:
        for number in range(50):
            at.link.up.slow_s = 0.5 * (number % 3)
            at.end.send(number)
        assert at.heard == []
        await asyncio.sleep(2.0)
        assert at.heard == list(range(50))

    Scene().play(scene)


@pytest.mark.parametrize(("how", "got"), [("both", []), ("up", []), ("down", ["ping"])])
def test_a_link_that_hangs_delivers_later(how: Any, got: list[str]) -> None:
    """A link may fail one way only; when it is mended everything arrives."""

    async def scene(at: Scene) -> None:
        at.link.cut(how)
        at.end.send("ping")
        await asyncio.sleep(10.0)
        assert (at.server.got, at.heard) == (got, [])
        at.link.mend()
        await asyncio.sleep(0.1)
        assert (at.server.got, at.heard) == (["ping"], ["ping"])

    Scene().play(scene)


def test_an_answer_may_be_lost_after_the_effect() -> None:
    """The server has acted, the client hears only that the connection is lost."""

    async def scene(at: Scene) -> None:
        at.end.send("ping")
        at.link.reset(effect=True)
        await asyncio.sleep(0.1)
        assert (at.server.got, at.heard) == (["ping"], [])
        assert len(at.lost) == len(at.server.lost) == 1

    Scene().play(scene)


def test_a_refused_link_breaks_and_refuses() -> None:
    """Connections break on both sides and new ones are refused until the link is mended."""

    async def scene(at: Scene) -> None:
        at.link.cut("refused")
        await asyncio.sleep(0.1)
        assert len(at.lost) == 1
        with pytest.raises(ConnectionRefusedError):
            await at.client.start(at.network.open_end("echo"))
        at.link.mend()
        assert (await at.client.start(at.network.open_end("echo"))).alive

    Scene().play(scene)


def test_a_connection_that_breaks_before_its_answer_is_none() -> None:
    """Who asked for it hears that it was reset, and does not talk into a dead connection."""

    async def scene(at: Scene) -> None:
        at.link.cut("down")
        asking = at.client.start(at.network.open_end("echo"))
        await asyncio.sleep(0.1)
        at.link.reset(effect=True)
        at.link.mend()
        with pytest.raises(ConnectionResetError):
            await asking

    Scene().play(scene)


def test_a_paused_server_answers_when_it_goes_on() -> None:
    """A server that hangs keeps its connections and what was sent to them."""

    async def scene(at: Scene) -> None:
        at.server.process.paused = True
        at.end.send("ping")
        await asyncio.sleep(5.0)
        assert at.heard == []
        at.server.process.resume()
        await asyncio.sleep(0.1)
        assert at.heard == ["ping"]

    Scene().play(scene)
