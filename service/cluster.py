"""Sends Redis commands to the node of a cluster that serves their key; follows moves, and asks who serves what when a node fails.

Invariant: a node that does not answer is asked by one probe only until it answers again; commands for it fail at once, so that
those for the others never wait for it. A command is sent again only when a node has said that it did not execute it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from redis.commands.core import AsyncCoreCommands
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import TimeoutError as TimedOut

from service.cluster_url import is_cluster, parse_cluster_url
from service.keyspace import CLUSTERED, slot_of
from service.sharded import ShardedPubSub
from service.topology import Address, Topology, Unroutable, key_in

REDIRECTS_MAX = 5
TRY_AGAIN_S = 0.05
LOOK_S_MAX = 1.0  # for one node to say who serves what
LOOK_PAUSE_S = 0.1
PROBE_S = 0.2
LOST = (ConnectionLost, TimedOut, OSError, TimeoutError)
REFUSED = (AuthenticationError, NoPermissionError)  # our credentials: asking another node, or later, mends nothing
Make = Callable[[str], Any]
Command = tuple[tuple[Any, ...], dict[str, Any]]
log = structlog.get_logger()


def open_redis(url: str, make: Make) -> Any:
    """Return what `make` makes of the URL of a server, or a client of a cluster whose nodes `make` opens, each by its own URL."""
    return ClusterClient(url, make) if is_cluster(url) else make(url)


class ClusterClient(AsyncCoreCommands):
    """A redis.asyncio client as far as we use one. Keys of one command, or of one transaction, must lie in one slot."""

    space = CLUSTERED
    _event_dispatcher: Any = None  # redis-py's protocol of clients asks for one

    def __init__(self, url: str, make: Make) -> None:
        self.topology = Topology()
        self._url = parse_cluster_url(url)
        self._make = make
        self._nodes: dict[Address, Any] = {}
        self._probes: dict[Address, asyncio.Task[None]] = {}  # of the nodes that do not answer
        self._look: asyncio.Task[None] | None = None
        self._looked_s = 0.0
        self.answers = True  # whether a node answered when we looked last
        self._untold: BaseException | None = None  # why none did

    def node(self, address: Address) -> Any:
        """Return the client of one node."""
        found = self._nodes.get(address)
        if found is None:
            found = self._nodes[address] = self._make(self._url.of(address))
        return found

    async def execute_command(self, *command: Any, **options: Any) -> Any:
        """Send one command; `near` names a key whose node it is for when it has none itself."""
        [answer] = await self.carry_out([(command, options)])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def pipeline(self, transaction: bool = True) -> ClusterPipeline:
        """Return a pipeline; with `transaction` all its keys must lie in one slot."""
        return ClusterPipeline(self, transaction)

    def pubsub(self) -> ShardedPubSub:
        """Return subscriptions to sharded channels, on whichever nodes serve them."""
        return ShardedPubSub(self)

    def register_script(self, script: Any) -> Any:
        """Return the script as a function of `keys` and `args`."""
        return ClusterScript(self, script)

    async def disconnect(self) -> None:
        """Close all connections; the next command opens new ones."""
        for node in list(self._nodes.values()):
            with contextlib.suppress(RedisError, OSError):
                await node.connection_pool.disconnect()

    async def aclose(self) -> None:
        """Close for good."""
        ending = [*self._probes.values(), *([self._look] if self._look is not None else [])]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending, timeout=1.0)
        nodes, self._nodes = list(self._nodes.values()), {}
        for node in nodes:
            with contextlib.suppress(RedisError, OSError):
                await node.aclose()

    async def address_of(self, key: Any) -> Address:
        """Return the node that serves a key's slot.  Raises: ConnectionError when none is known, one of REFUSED."""
        slot = slot_of(CLUSTERED.shared if key is None else key)
        address = self.topology.node_of(slot)
        if address is None or address in self._probes:
            await self.look()
            address = self.topology.node_of(slot)
        if address is None:
            why = self._untold
            if isinstance(why, REFUSED):
                raise type(why)(str(why))
            if why is None:
                raise ConnectionLost(f"no node of the cluster serves slot {slot}")
            raise ConnectionLost(f"no node of the cluster answers: {str(why) or type(why).__name__}")
        if address in self._probes:
            raise ConnectionLost(f"the cluster's node {address[0]}:{address[1]} does not answer")
        return address

    async def carry_out(self, commands: Sequence[Command], transaction: bool = False) -> list[Any]:
        """Send commands, those of a node together; return each one's answer, or the exception that it met."""
        answers: list[Any] = [None] * len(commands)
        left = list(range(len(commands)))
        for attempt in range(REDIRECTS_MAX + 1):
            by_node: dict[Address, list[int]] = {}
            for at in left:
                try:
                    args, options = commands[at]
                    near = options.get("near") or key_in(args)
                    by_node.setdefault(await self.address_of(near), []).append(at)
                except (ConnectionLost, NoPermissionError, Unroutable) as error:
                    answers[at] = ResponseError(str(error)) if isinstance(error, Unroutable) else error
            if len(by_node) == 1:
                [(address, mine)] = by_node.items()
                told = [await self._ask(address, [commands[at] for at in mine], transaction)]
            else:
                asking = (self._ask(address, [commands[at] for at in mine], transaction) for address, mine in by_node.items())
                told = await asyncio.gather(*asking)
            left = []
            for mine, found in zip(by_node.values(), told, strict=True):
                for at, answer in zip(mine, found, strict=True):
                    answers[at] = answer
                    if isinstance(answer, (MovedError, TryAgainError)):
                        left.append(at)
            if not left:
                break
            await self._redirect([answers[at] for at in left], attempt)
        return answers

    async def _redirect(self, answers: list[Any], attempt: int) -> None:
        moved = False
        for answer in answers:
            if isinstance(answer, MovedError):
                self.topology.moved(answer.slot_id, self._somewhere(answer.node_addr))
                moved = True
        if moved:
            self._looked_s = 0.0
            await self.look()
        if not moved or attempt:
            await asyncio.sleep(TRY_AGAIN_S * (attempt + 1))  # a slot on its way: what it holds is on two nodes

    def _somewhere(self, address: Address) -> Address:
        host, port = address
        return (host or self._url.nodes[0][0], port)  # an empty host: the one that was asked

    async def _ask(self, address: Address, commands: list[Command], transaction: bool) -> list[Any]:
        """Return a node's answers; where it does not answer, the exception as often as there are commands."""
        node = self.node(address)
        try:
            answers = await _send(node, commands, transaction)
        except (ResponseError, AuthenticationError) as error:
            answers = [error] * len(commands)
        except LOST as error:
            self._lost(address, error)
            why = f"the cluster's node {address[0]}:{address[1]}: {str(error) or type(error).__name__}"
            answers = [ConnectionLost(why)] * len(commands)
        if any(isinstance(answer, ClusterDownError) for answer in answers):
            self._looked_s = 0.0
        for at, answer in enumerate(answers):
            if isinstance(answer, AskError) and not isinstance(answer, MovedError) and not transaction:
                answers[at] = await self._ask_the_next(self._somewhere(answer.node_addr), commands[at])
        return answers

    async def _ask_the_next(self, address: Address, command: Command) -> Any:
        """Ask the node that a slot is moving to, for a key that is there already."""
        try:
            return (await _send(self.node(address), [(("ASKING",), {}), command], False))[1]
        except ResponseError as error:
            return error
        except LOST as error:
            return ConnectionLost(str(error) or type(error).__name__)

    def _lost(self, address: Address, error: BaseException) -> None:
        if address in self._probes:
            return
        log.warning("cache_node_lost", node=f"{address[0]}:{address[1]}", error=str(error) or type(error).__name__)
        self._looked_s = 0.0
        self._probes[address] = asyncio.create_task(self._probe(address), name=f"probe {address}")

    async def _probe(self, address: Address) -> None:
        """Ask a node until it answers again, or is no part of the cluster any more; look meanwhile who serves its slots now."""
        try:
            while True:
                await self.look()
                known = {*self.topology.primaries, *self.topology.others, *self._url.nodes}
                if address not in known and self.topology.complete:
                    await self._forget(address)
                    return
                try:
                    async with asyncio.timeout(LOOK_S_MAX):
                        await self.node(address).connection_pool.disconnect()  # what was left of it says nothing
                        await self.node(address).ping()
                    return
                except (RedisError, *LOST):
                    await asyncio.sleep(PROBE_S)
        finally:
            self._probes.pop(address, None)
            self._looked_s = 0.0

    async def _forget(self, address: Address) -> None:
        if (node := self._nodes.pop(address, None)) is not None:
            with contextlib.suppress(RedisError, OSError):
                await node.aclose()

    async def look(self) -> None:
        """Ask who serves what, unless somebody did a moment ago; all who want to know wait for the same answer."""
        if self._look is None or self._look.done():
            if asyncio.get_running_loop().time() - self._looked_s < LOOK_PAUSE_S:
                return
            self._look = asyncio.create_task(self._look_once(), name="cluster look")
        await asyncio.shield(self._look)

    async def _look_once(self) -> None:
        topology = self.topology
        asked = list(dict.fromkeys([*topology.primaries, *topology.others, *self._url.nodes]))
        quick = [address for address in asked if address not in self._probes] or asked
        tasks = {asyncio.create_task(self._shards_of(address)): address for address in quick}
        answers = False
        untold: BaseException | None = None
        try:
            for asking in asyncio.as_completed(tasks):
                address, shards = await asking
                if isinstance(shards, BaseException):
                    untold = shards
                else:
                    answers = True
                    topology.take(shards, address, self._url.secure)
                    if topology.complete:
                        break
        finally:
            self.answers, self._untold = answers, None if answers else untold
            self._looked_s = asyncio.get_running_loop().time()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _shards_of(self, address: Address) -> tuple[Address, Any]:
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                return address, await self.node(address).execute_command("CLUSTER", "SHARDS")
        except (ResponseError, *LOST) as error:
            log.debug("cluster_not_told", node=f"{address[0]}:{address[1]}", error=str(error))
            return address, error


async def _send(node: Any, commands: list[Command], transaction: bool) -> list[Any]:
    if len(commands) == 1 and not transaction:
        args, options = commands[0]
        return [await node.execute_command(*args, **_without(options))]
    async with node.pipeline(transaction=transaction) as pipe:
        for args, options in commands:
            pipe.execute_command(*args, **_without(options))
        return list(await pipe.execute(raise_on_error=False))


def _without(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in ("near", "keys")}


class ClusterPipeline(AsyncCoreCommands):
    """Commands that are sent together, those of each node in their order."""

    _event_dispatcher: Any = None

    def __init__(self, client: ClusterClient, transaction: bool) -> None:
        self._client = client
        self._transaction = transaction
        self._commands: list[Command] = []

    async def __aenter__(self) -> ClusterPipeline:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._commands.clear()

    def execute_command(self, *command: Any, **options: Any) -> ClusterPipeline:
        """Add a command."""
        self._commands.append((command, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all; return their answers.  Raises: the first one that is an exception, unless told not to."""
        commands, self._commands = self._commands, []
        answers = await self._client.carry_out(commands, self._transaction) if commands else []
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
        return answers


class ClusterScript:
    """A Lua script, run where its first key is."""

    def __init__(self, client: ClusterClient, script: Any) -> None:
        self._client = client
        self._script = script

    async def __call__(self, keys: Sequence[Any], args: Sequence[Any] = ()) -> Any:
        # Whole, each time: which nodes know it, and still do after a failover, is nothing worth keeping a record of.
        return await self._client.execute_command("EVAL", self._script, len(keys), *keys, *args)


__all__ = ["ClusterClient", "NoScriptError", "open_redis"]
