"""Connects simulated processes to simulated servers by links that can be cut, hang, be slow or work one way only.

Invariant: a link never reorders and never loses a message of a connection that lives on: like TCP it delivers late, or the
connection breaks. What a broken connection had under way is lost, or arrives without its answer.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Literal, Protocol

from tests.sim.loop import PROCESS, Process, VirtualLoop

LATENCY_S = (0.0002, 0.0015)
Trace = Callable[[str, Any], None]


class Lane:
    """One direction of a link: messages arrive in the order they were sent, later while it is slow, after it while blocked."""

    def __init__(self, loop: VirtualLoop, name: str, dice: random.Random, trace: Trace) -> None:
        self.slow_s = 0.0
        self._name = name
        self._loop = loop
        self._dice = dice
        self._trace = trace
        self._blocked = False
        self._under_way: deque[tuple[float, Callable[[Any], None], Any, Context]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def blocked(self) -> bool:
        return self._blocked

    def carry(self, deliver: Callable[[Any], None], message: Any, context: Context) -> None:
        """Call `deliver(message)` at the other end, in its context, after the latency."""
        at_s = self._loop.time() + self._dice.uniform(*LATENCY_S) + self.slow_s * self._dice.random()
        if self._under_way:
            at_s = max(at_s, self._under_way[-1][0])
        self._under_way.append((at_s, deliver, message, context))
        self._arm()

    def block(self) -> None:
        """Hold everything that is under way or will be sent."""
        self._blocked = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def unblock(self) -> None:
        """Let what was held arrive."""
        self._blocked = False
        self._arm()

    def _arm(self) -> None:
        if self._timer is None and self._under_way and not self._blocked:
            self._timer = self._loop.call_at(max(self._under_way[0][0], self._loop.time()), self._arrive, context=NETWORK)

    def _arrive(self) -> None:
        self._timer = None
        while self._under_way and self._under_way[0][0] <= self._loop.time():
            _, deliver, message, context = self._under_way.popleft()
            self._trace(self._name, message)
            self._loop.call_soon(deliver, message, context=context)
        self._arm()


NETWORK = Context()  # callbacks of no process


class End:
    """One side of a connection. `on_message` and `on_lost` are called in the context of its process."""

    def __init__(self, process: Process, lane: Lane, context: Context) -> None:
        self.process = process
        self.peer: End
        self.alive = True
        self.on_message: Callable[[Any], None] = lambda _: None
        self.on_lost: Callable[[Exception | None], None] = lambda _: None
        self._lane = lane
        self._context = context

    def send(self, message: Any) -> None:
        """Send to the other side."""
        if self.alive and not self.process.dead:
            self._lane.carry(self.peer._take, message, self.peer._context)

    def close(self, fault: Exception | None = None) -> None:
        """End the connection from this side; the other side hears of it after everything that was sent before."""
        if self.alive:
            self.alive = False
            self._lane.carry(self.peer._end, fault, self.peer._context)

    def snap(self, loop: VirtualLoop) -> None:
        """The connection breaks: this side is told now, what is under way to it never arrives."""
        if self.alive:
            self.alive = False
            loop.call_soon(self.on_lost, ConnectionResetError("connection reset by peer"), context=self._context)

    def _take(self, message: Any) -> None:
        if self.alive:
            self.on_message(message)

    def _end(self, fault: Exception | None) -> None:
        if self.alive:
            self.alive = False
            self.on_lost(fault)


class Server(Protocol):
    """What accepts connections."""

    process: Process

    @property
    def listening(self) -> bool: ...

    def accept(self, end: End) -> None: ...


Cut = Literal["both", "up", "down", "refused"]


class Link:
    """The way between one process and one server."""

    def __init__(self, loop: VirtualLoop, client: Process, server: Server, name: str, dice: random.Random, trace: Trace) -> None:
        self.name = name
        self.client = client
        self.server = server
        self.up = Lane(loop, f"{name}>", dice, trace)
        self.down = Lane(loop, f"{name}<", dice, trace)
        self.refused = False
        self._loop = loop
        self._dice = dice
        self._ends: list[tuple[End, End]] = []  # (client's, server's) of connections that may live

    @property
    def works(self) -> bool:
        """Whether it is as it should be."""
        return not (self.refused or self.up.blocked or self.down.blocked or self.up.slow_s or self.down.slow_s)

    async def connect(self) -> End:
        """Return the client's end of a new connection.  Raises: ConnectionRefusedError."""
        answered: asyncio.Future[End | None] = self._loop.create_future()
        context = self.client.context.copy()

        def arrive(_: Any) -> None:
            made = None if self.refused or not self.server.listening else self._join(context)
            self.down.carry(tell, made, context)

        def tell(made: End | None) -> None:
            if not answered.done():
                answered.set_result(made)
            elif made is not None:
                made.close()  # who asked has given up meanwhile

        self.up.carry(arrive, "connect", self.server.process.context)
        made = await answered
        if made is None:
            raise ConnectionRefusedError(f"{self.name}: connection refused")
        if not made.alive:  # it broke while the answer was under way: nobody was there yet to be told
            raise ConnectionResetError(f"{self.name}: connection reset by peer")
        return made

    def _join(self, context: Context) -> End:
        mine = End(self.client, self.up, context)
        theirs = End(self.server.process, self.down, self.server.process.context.copy())
        mine.peer, theirs.peer = theirs, mine
        self._ends = [pair for pair in self._ends if pair[0].alive or pair[1].alive]
        self._ends.append((mine, theirs))
        self.server.accept(theirs)
        return mine

    def cut(self, how: Cut) -> None:
        """Stop messages both ways or one way (they wait), or break what is connected and refuse what is new."""
        if how == "refused":
            self.refused = True
            self.reset()
        if how in ("both", "up"):
            self.up.block()
        if how in ("both", "down"):
            self.down.block()

    def mend(self) -> None:
        """Work as new."""
        self.refused = False
        self.up.slow_s = self.down.slow_s = 0.0
        self.up.unblock()
        self.down.unblock()

    def reset(self, effect: bool = False) -> None:
        """Break all connections; with `effect` what the client has sent still reaches the server, only the answers are lost."""
        for mine, theirs in self._ends:
            mine.snap(self._loop)
            if effect and theirs.alive:
                self.up.carry(theirs._end, ConnectionResetError("reset"), theirs._context)
            else:
                theirs.snap(self._loop)
        self._ends.clear()

    def hang_up(self, side: Literal["client", "server"]) -> None:
        """One side is gone: its operating system closes its connections."""
        for mine, theirs in self._ends:
            (mine if side == "client" else theirs).close(ConnectionResetError("connection reset by peer"))


class Network:
    """All links; a process has one to each server it talks to."""

    def __init__(self, loop: VirtualLoop, seed: int, trace: Trace) -> None:
        self.servers: dict[str, Server] = {}
        self.links: dict[tuple[Process, str], Link] = {}
        self.gone = False  # at the end of the world
        self._loop = loop
        self._seed = seed
        self._trace = trace
        loop.connect = self.open_stream

    def link(self, process: Process, server: str) -> Link:
        """Return the link from `process` to `server`, made on first use."""
        found = self.links.get((process, server))
        if found is None:
            name = f"{process.name}-{server}"
            dice = random.Random(f"{self._seed}:{name}")
            found = Link(self._loop, process, self.servers[server], name, dice, self._trace)
            self.links[process, server] = found
        return found

    def of_server(self, server: str) -> list[Link]:
        return [link for (_, name), link in self.links.items() if name == server]

    def of_process(self, process: Process) -> list[Link]:
        return [link for (owner, _), link in self.links.items() if owner is process]

    async def open_end(self, server: str) -> End:
        """Connect the running process to `server`.  Raises: ConnectionRefusedError."""
        process = PROCESS.get()
        assert process is not None, "only a process connects"
        if self.gone:
            raise ConnectionRefusedError("there is no network any more")
        return await self.link(process, server).connect()

    async def open_stream(
        self, server: str, factory: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connect as `loop.create_connection` does."""
        end = await self.open_end(server)
        protocol = factory()
        transport = Stream(end, protocol, self._loop)
        protocol.connection_made(transport)
        return transport, protocol


class Stream(asyncio.Transport):
    """A connection as asyncio's streams see it."""

    def __init__(self, end: End, protocol: asyncio.BaseProtocol, loop: VirtualLoop) -> None:
        super().__init__()
        self._end = end
        self._protocol: Any = protocol
        self._loop = loop
        self._closing = False
        end.on_message = protocol.data_received  # type: ignore[attr-defined]
        end.on_lost = self._lost

    def write(self, data: Any) -> None:
        self._end.send(bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._end.close()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """The reader's buffer is large enough for everything that a simulation sends."""

    def resume_reading(self) -> None:
        """See above."""

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def _lost(self, fault: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            self._protocol.connection_lost(fault)
