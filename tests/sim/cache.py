"""Serves Redis inside the simulation: fakeredis with Lua behind the wire protocol, which can be emptied, rolled back, failed over.

Invariant: commands of all connections are executed one at a time, on the server's own (virtual) clock.
"""

from __future__ import annotations

import copy
import hashlib
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fakeredis._helpers
import fakeredis._socket._base
import fakeredis.commands_mixins.scripting_mixin as scripting
import fakeredis.commands_mixins.server_mixin
import fakeredis.model._client_info
import hiredis
import redis
from fakeredis import FakeServer
from fakeredis import _msgs as msgs
from fakeredis._clients._tcp_server import encode_reply
from fakeredis._helpers import SimpleError
from fakeredis._socket import FakeSocket

from tests.sim.links import End, Network
from tests.sim.loop import Process

CLOCKED = (
    fakeredis._helpers,
    fakeredis._socket._base,
    fakeredis.commands_mixins.server_mixin,
    fakeredis.model._client_info,
)
OnPublish = Callable[[bytes, bytes], None]
Data = dict[bytes, Any]


class CacheServer:
    """The server `cache`. `on_publish` hears of every message that is published."""

    def __init__(self, process: Process, network: Network, on_publish: OnPublish) -> None:
        self.process = process
        self.listening = True
        self.on_publish = on_publish
        self.lives = 1
        self._network = network
        self._server = self._fresh()

    def accept(self, end: End) -> None:
        _Session(self, self._server, end)

    def stop(self) -> None:
        """The server's process ends: connections are closed, scripts and subscriptions forgotten."""
        self.listening = False
        for link in self._network.of_server("cache"):
            link.hang_up("server")

    def start(self, data: Data | None) -> None:
        """A new process begins with `data`, empty without."""
        self.lives += 1
        self._server = self._fresh()
        database = self._server.dbs[0]
        for key, item in (data or {}).items():
            database._dict[key] = item
            if item.expireat is not None:
                heapq.heappush(database._expiry_heap, (item.expireat, key))
        self.listening = True

    def copy(self) -> Data:
        """Return the data as they are now."""
        return copy.deepcopy(self._server.dbs[0]._dict)

    def read(self, key: str) -> Any:
        """Return the value at `key`, or None: for checks, beside all links."""
        database = self._server.dbs[0]
        database.time = self.process.clock.wall_ns() / 1e9
        item = database.get(key.encode())
        return None if item is None else item.value

    def keys(self) -> list[bytes]:
        self._server.dbs[0].time = self.process.clock.wall_ns() / 1e9
        return list(self._server.dbs[0])

    def _fresh(self) -> FakeServer:
        server: Any = FakeServer(version=(7,))
        server.subscribers = defaultdict(_Ordered)
        server.compiled = {}  # script → Lua function
        return server  # type: ignore[no-any-return]


class _Ordered(dict[Any, None]):
    """A set in order of insertion: a set of objects iterates by their addresses, which no seed decides."""

    def add(self, one: Any) -> None:
        self[one] = None

    def discard(self, one: Any) -> None:
        self.pop(one, None)

    remove = discard


class _Socket(FakeSocket):
    """One client as fakeredis knows it; its answers go out over the link."""

    def __init__(self, server: FakeServer, run_id: bytes, out: Callable[[Any], None], on_publish: OnPublish) -> None:
        self.run_id = run_id
        self._out = out
        self._on_publish = on_publish
        super().__init__(server, 0, None, redis.Redis)

    def _process_command(self, fields: list[bytes]) -> None:
        if fields[0].upper() == b"INFO":  # fakeredis has no process to tell of
            self.put_response(b"# Server\r\nredis_version:7.0.0\r\nrun_id:%s\r\n" % self.run_id)
        else:
            super()._process_command(fields)

    def put_response(self, msg: Any) -> None:
        self._out(msg)

    def eval(self, script: bytes, numkeys: int, *rest: bytes) -> Any:
        """As fakeredis does it, but a script is compiled once, and Lua's garbage is not collected after every call."""
        server: Any = self._server
        runtime = self._get_server_runtime(server)
        compiled = server.compiled.get(script)
        if compiled is None:
            compiled = server.compiled[script] = runtime.compile(script)
            server.script_cache[hashlib.sha1(script).hexdigest().encode()] = script
        server._lua_current_socket[0] = self
        self._script_resp = 2
        server._lua_set_keys_argv(runtime.table_from(rest[:numkeys]), runtime.table_from(rest[numkeys:]))
        try:
            result = compiled()
        except scripting.LUA_MODULE.LuaError as error:
            raise SimpleError(msgs.SCRIPT_ERROR_MSG.format("script", error)) from None
        finally:
            self._script_resp = None
        return self._convert_lua_result(result, nested=False)

    def publish(self, channel: bytes, message: bytes) -> int:
        self._on_publish(channel, message)
        return int(super().publish(channel, message))


class _Session:
    """One connection."""

    def __init__(self, server: CacheServer, fake: FakeServer, end: End) -> None:
        self._end = end
        self._reader = hiredis.Reader()
        self._answers: list[bytes] | None = None
        self._socket = _Socket(fake, b"%040x" % server.lives, self._answer, server.on_publish)
        end.on_message = self._on_bytes
        end.on_lost = self._on_lost

    def _on_bytes(self, data: bytes) -> None:
        self._reader.feed(data)
        answers = self._answers = []
        while (fields := self._reader.gets()) is not False:
            self._socket._process_command(fields)
        self._answers = None
        if answers:
            self._end.send(b"".join(answers))

    def _answer(self, reply: Any) -> None:
        encoded = encode_reply(reply, 2)
        if self._answers is None:
            self._end.send(encoded)  # published by somebody else
        else:
            self._answers.append(encoded)

    def _on_lost(self, _: Exception | None) -> None:
        self._socket._cleanup(self._socket._server)


class _Clock:
    """Stands for the module `time` inside fakeredis."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def time(self) -> float:
        return self._process.clock.wall_ns() / 1e9


@contextmanager
def clocked_by(process: Process) -> Iterator[None]:
    """Let fakeredis read the clock of `process`, and not look for stray Lua globals after each call (half of its time)."""
    before = [module.time for module in CLOCKED]  # type: ignore[attr-defined]
    check = scripting._check_for_lua_globals
    scripting._check_for_lua_globals = lambda *_: None
    for module in CLOCKED:
        module.time = _Clock(process)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        scripting._check_for_lua_globals = check
        for module, time in zip(CLOCKED, before, strict=True):
            module.time = time  # type: ignore[attr-defined]
