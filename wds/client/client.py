"""Subscribes to channels and yields their pushes: a Python client that reconnects, resumes and repairs by itself.

    async with Client("ws://127.0.0.1:8400", token) as client:
        await client.subscribe("quote:AAPL", "board:gainers", hz=4)
        async for push in client:
            print(push.ch, push.copy.data)

Invariant: what `push.copy` shows is the server's state at that seq; between losing and resuming a connection nothing is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from service.run import backoff_s
from wds.client.asks import Allowance, Asks, in_commands, pattern_covers
from wds.client.compact import Expander
from wds.client.follow import Follower, Push
from wds.protocol import FINAL, PATH, SUBPROTOCOL

Token = str | Callable[[], str | Awaitable[str]]
PUSHES_MAX = 10_000  # unread pushes; then reading stops and the server sees a slow client
FRAME_BYTES_MAX = 64 * 2**20
CLOSE_S_MAX = 2.0  # a server that does not answer the goodbye is left without it
CONNECT_S_MAX = 5.0
SIGN_IN_S_MAX = 10.0  # a token fetched, sent and judged
PATIENCE_S = 30.0  # how long the first sign-in goes on while the server says "later"
BACKOFF_S_MAX = 10.0  # jitter spreads 2,000 clients to 200 a second over it
SILENCE_S = 60.0  # three missed pings: the connection is dead
log = structlog.get_logger()
LOST = (OSError, TimeoutError, ConnectionClosed, InvalidHandshake)


class WdsError(Exception):
    """The server refused: `code` is an error code of the protocol, or a close code as text; `retry` = it may pass."""

    def __init__(self, code: str, message: str = "", retry: bool = False, after_ms: int | None = None) -> None:
        super().__init__(f"{message} ({code})" if message else code)
        self.code = code
        self.retry = retry
        self.after_ms = after_ms

    @classmethod
    def of(cls, fault: dict[str, Any]) -> WdsError:
        """Return the exception of a reply's error."""
        return cls(fault["code"], fault.get("message", ""), fault.get("retry", False), fault.get("after_ms"))


def stream_url(url: str) -> str:
    """Return the stream's URL for `ws://host:port`, with or without its path."""
    parts = urlsplit(url)
    return url if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}{PATH}"


class Client:
    """One connection, kept up. `token` is a token, or a function that fetches a fresh one.

    `form` "compact" saves two thirds of the bytes where the server has it; what comes out is the same.
    """

    def __init__(self, url: str, token: Token, reconnect: bool = True, form: str = "json") -> None:
        self._form = form
        self._expander = Expander()
        self.url = stream_url(url)
        self.follower = Follower()
        self._token = token
        self._reconnect = reconnect
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._asks = Asks()  # what we are subscribed to, by name or pattern
        self._allowance = Allowance({}, time.monotonic_ns())
        self._sending = asyncio.Lock()  # commands leave in the order they were given
        self._pushes: asyncio.Queue[Push | None] = asyncio.Queue(PUSHES_MAX)
        self._socket: ClientConnection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._fault: BaseException | None = None
        self._after_ms: int | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._open_patiently()
        except BaseException:
            await self._hang_up()
            raise
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Say goodbye."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    # Commands

    async def subscribe(
        self, *channels: str, hz: float | str | None = None, fields: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """Subscribe; return the outcomes, one a channel. What was accepted, or may be later, is kept up.

        Names and patterns may overlap: each channel comes at the quickest rate and with all fields that anything asks for.
        """
        before = {name: dict(ask) for name, ask in self._asks if name in channels}
        by_ask: dict[bytes, list[str]] = {}
        for name in dict.fromkeys(channels):
            by_ask.setdefault(orjson.dumps(self._asks.add(name, hz, fields)), []).append(name)
        outcomes: list[dict[str, Any]] = []
        try:
            for ask, names in by_ask.items():
                outcomes += await self._subscribe(names, orjson.loads(ask), {})
        except WdsError:
            self._restore(channels, before)
            raise
        refused = [one["ch"] for one in outcomes if "error" in one and not one["error"].get("retry") and "matched" not in one]
        self._restore([ch for ch in refused if ch in channels], before)
        return outcomes

    def _restore(self, channels: Sequence[str], before: dict[str, dict[str, Any]]) -> None:
        for name in channels:
            self._asks.remove(name)
            if name in before:
                self._asks.add(name, before[name].get("hz"), before[name].get("fields"))

    async def _subscribe(self, names: list[str], ask: dict[str, Any], since: dict[str, Any]) -> list[dict[str, Any]]:
        outcomes: list[dict[str, Any]] = []
        for some in in_commands(names, since, self._allowance.channels_max, self._allowance.bytes_max):
            at = {name: since[name] for name in some if name in since}
            reply = await self.command({"op": "sub", "ch": some, **({"since": at} if at else {}), **ask}, PATIENCE_S)
            # Asked for exactly so before, perhaps in a command whose reply was lost: it is subscribed.
            outcomes += [
                {"ch": one["ch"]} if one.get("error", {}).get("code") == "already_subscribed" else one for one in reply["subs"]
            ]
        later = [one for one in outcomes if one.get("error", {}).get("retry") and one["ch"] in self._asks]
        if later:
            self._start(self._ask_again(later))
        return outcomes

    async def _ask_again(self, outcomes: list[dict[str, Any]]) -> None:
        """Ask once more for what was refused and may pass; what is refused again comes back here."""
        socket = self._socket
        await asyncio.sleep(max([one["error"].get("after_ms", 0) / 1000 for one in outcomes] + [random.uniform(0.5, 2.0)]))
        if socket is not self._socket:
            return  # the new connection has asked for everything
        for name, ask in self._asks:
            if any(one["ch"] == name for one in outcomes):
                await self._subscribe([name], ask, {})

    async def unsubscribe(self, *channels: str) -> None:
        """Leave channels or patterns; a channel that something else asks for stays."""
        known = [channel for channel in dict.fromkeys(channels) if self._asks.remove(channel)]
        for channel in [ch for ch in self.follower.copies if not self._asks.covers(ch)]:
            self.follower.forget(channel)
            self._expander.forget(channel)
        for some in in_commands(known, {}, self._allowance.channels_max, self._allowance.bytes_max):
            await self.command({"op": "unsub", "ch": some})

    async def get(self, *channels: str, limit: int | None = None) -> list[dict[str, Any]]:
        """Return a snapshot or an error for each channel."""
        extra = {} if limit is None else {"limit": limit}
        return list((await self.command({"op": "get", "ch": list(channels), **extra}))["snaps"])

    async def command(self, body: dict[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
        """Send a command and return its reply; one that was refused for its rate is sent again when it may be.

        Raises: WdsError for a refusal, ConnectionError while disconnected, TimeoutError.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                answer = await self._exchange(body)
                if answer["ok"]:
                    return answer
                if answer["error"]["code"] != "rate_limited":
                    raise WdsError.of(answer["error"])
                await asyncio.sleep(answer["error"].get("after_ms", 1000) / 1000 * random.uniform(1.0, 1.5))

    async def _exchange(self, body: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send({"id": number, **body})
            answer: dict[str, Any] = await reply
            return answer
        finally:
            self._replies.pop(number, None)
            if reply.done() and not reply.cancelled():
                reply.exception()  # of a command that was lost before it could be sent: nobody else reads it

    async def _send(self, body: dict[str, Any]) -> None:
        """Send when the announced limits allow it."""
        async with self._sending:
            while wait_ms := self._allowance.wait_ms(len(body.get("ch", ())), time.monotonic_ns()):
                if self._socket is None:
                    break
                await asyncio.sleep(wait_ms / 1000)
            await self._send_now(body)

    async def _send_now(self, body: dict[str, Any]) -> None:
        if self._socket is None:
            raise ConnectionError("not connected")
        try:
            await self._socket.send(orjson.dumps(body).decode())
        except ConnectionClosed as closed:
            raise ConnectionError(str(closed)) from None

    # Pushes

    async def __aiter__(self) -> AsyncIterator[Push]:
        while True:
            push = await self._pushes.get()
            if push is None:
                if self._fault is not None:
                    raise self._fault
                return
            yield push

    # The connection

    async def _open_patiently(self) -> None:
        """Sign in for the first time: nobody there is an error at once, a server that says "later" is asked later."""
        deadline = time.monotonic() + PATIENCE_S
        for attempt in itertools.count():
            try:
                await self._open()
                return
            except WdsError as refused:
                if not self._reconnect or not self._may_pass(refused) or time.monotonic() > deadline:
                    raise
                await self._hang_up()
                await asyncio.sleep(self._pause_s(attempt, refused.after_ms))

    async def _open(self) -> None:
        self._after_ms = None
        self._socket = await connect(
            self.url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=FRAME_BYTES_MAX,
            ping_interval=None,
            open_timeout=CONNECT_S_MAX,
            close_timeout=CLOSE_S_MAX,
        )
        try:
            async with asyncio.timeout(SIGN_IN_S_MAX):
                await self._sign_in()
        except (ConnectionClosed, ConnectionError) as lost:
            closed = self._socket.close_code or 1006
            if closed in FINAL or self._after_ms is not None:
                final = closed in FINAL and self._after_ms is None
                raise WdsError(str(closed), "the server closed the connection", not final, self._after_ms) from None
            raise ConnectionError(f"connection lost ({closed})") from lost

    async def _sign_in(self) -> None:
        # Sent at once, not when the limits allow it: they are those of the connection before. A token that takes long to come
        # meets a server that has hung up; what it said before is still to be read.
        token = await self._fetch_token()
        with contextlib.suppress(ConnectionError):
            form = {} if self._form == "json" else {"form": self._form}
            await self._send_now({"id": 0, "op": "auth", "token": token, **form})
        while True:
            for frame in await self._receive():
                if frame.get("t") == "hello":
                    self._allowance = Allowance(frame.get("limits", {}), time.monotonic_ns())
                elif frame.get("t") == "bye":
                    self._after_ms = frame.get("after_ms")
                elif frame.get("id") == 0:
                    if frame["ok"]:
                        self._expander.learn(frame)
                        return
                    raise WdsError.of(frame["error"])

    async def _fetch_token(self) -> str:
        token = self._token() if callable(self._token) else self._token
        return await token if inspect.isawaitable(token) else token

    def _may_pass(self, refused: WdsError) -> bool:
        return refused.retry and (callable(self._token) or refused.code != "token_expired")

    def _pause_s(self, attempt: int, after_ms: int | None) -> float:
        """The server's word, which it has spread; each try after that waits longer."""
        if after_ms is not None and attempt == 0:
            return after_ms / 1000
        return (after_ms or 0) / 1000 + backoff_s(attempt, random.random(), 0.5, BACKOFF_S_MAX)

    async def _receive(self) -> list[dict[str, Any]]:
        assert self._socket is not None
        async with asyncio.timeout(SILENCE_S):
            text = await self._socket.recv(decode=False)
        return self._expander.frames(orjson.loads(text))

    async def _run(self) -> None:
        try:
            while True:
                await self._read_until_lost()
                await self._come_back()
        except (WdsError, OSError, ConnectionClosed, InvalidHandshake, InvalidURI) as fault:
            self._fault = fault
        finally:
            for task in list(self._tasks):
                task.cancel()
            await self._hang_up()
            with contextlib.suppress(asyncio.QueueFull):
                self._pushes.put_nowait(None)

    def _start(self, body: Any) -> None:
        """Do something beside reading; what fails of it fails with the connection, and is done again after it."""

        async def guarded() -> None:
            with contextlib.suppress(*LOST, WdsError):
                await body

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hang_up(self) -> None:
        """Say goodbye to the server, which counts connections: one that only fell silent would be in the next one's way."""
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def _read_until_lost(self) -> None:
        try:
            while True:
                for frame in await self._receive():
                    await self._take(frame)
        except (ConnectionClosed, OSError, TimeoutError) as lost:
            code = lost.rcvd.code if isinstance(lost, ConnectionClosed) and lost.rcvd else 1006
            for reply in self._replies.values():
                if not reply.done():
                    reply.set_exception(ConnectionError(f"connection lost ({code})"))
            if not self._reconnect or (code in FINAL and self._after_ms is None):
                raise WdsError(str(code), "the server closed the connection") from None

    async def _come_back(self) -> None:
        after_ms, tries = self._after_ms, 0
        while True:
            await self._hang_up()
            await asyncio.sleep(self._pause_s(tries, after_ms))
            try:
                await self._open()
            except WdsError as refused:
                if not self._may_pass(refused):
                    raise
                # A server that answers is there: how often nobody was before does not count any longer.
                tries = tries + 1 if after_ms is not None else 0
                after_ms = refused.after_ms
            except LOST:
                after_ms, tries = None, tries + 1
            except Exception:  # whoever fetches the token failed, in whatever way: it may work the next time
                log.warning("token_not_fetched", exc_info=True)
                after_ms, tries = None, tries + 1
            else:
                self._start(self._resume_or_leave())
                return

    async def _resume_or_leave(self) -> None:
        """Ask for everything again. A server that does not answer is left: what it was not asked for would stand still."""
        try:
            await self._resume()
        except TimeoutError:
            if self._socket is not None:
                await self._socket.close()

    async def _resume(self) -> None:
        by_ask: dict[bytes, list[str]] = {}
        for name, ask in self._asks:
            by_ask.setdefault(orjson.dumps(ask), []).append(name)
        for text, names in by_ask.items():
            patterns = [name for name in names if name.endswith(":*")]
            since = self.follower.since([name for name in names if name not in patterns])
            if names != patterns:
                await self._subscribe([name for name in names if name not in patterns], orjson.loads(text), since)
            for pattern in patterns:
                await self._resume_pattern(pattern, orjson.loads(text))

    async def _resume_pattern(self, pattern: str, ask: dict[str, Any]) -> None:
        """A pattern comes whole; as many of its channels as fit beside it are resumed, the others bring a snap."""
        since = self.follower.since([ch for ch in self.follower.copies if pattern_covers(pattern, ch)])
        some = next(in_commands(since, since, len(since) + 1, self._allowance.bytes_max), [])
        await self._subscribed(await self.command({"op": "sub", "ch": [pattern], "since": {ch: since[ch] for ch in some}, **ask}))

    async def _subscribed(self, reply: dict[str, Any]) -> None:
        later = [one for one in reply["subs"] if one.get("error", {}).get("retry") and one["ch"] in self._asks]
        if later:
            self._start(self._ask_again(later))

    async def _take(self, frame: dict[str, Any]) -> None:
        kind = frame.get("t")
        if kind is None:
            self._answered(frame)
        elif kind == "ping":
            self._allowance.wait_ms(0, time.monotonic_ns())  # it counts, but must not wait
            await self._send_now({"op": "pong"})
        elif kind == "auth_expiring":
            self._start(self._refresh(float(frame["in_s"])))
        elif kind == "bye":
            self._after_ms = frame.get("after_ms")
        else:
            await self._push(frame)

    async def _push(self, frame: dict[str, Any]) -> None:
        channel = frame.get("ch")
        if not isinstance(channel, str) or not self._asks.covers(channel):
            return  # it was on the way when we left the channel
        was_broken = channel in self.follower.broken
        push = self.follower.take(frame)
        if push is not None:
            await self._pushes.put(push)
        elif not was_broken and channel in self.follower.broken:
            self._start(self._send({"id": f"mend:{channel}"[:64], "op": "get", "ch": [channel]}))

    async def _refresh(self, left_s: float) -> None:
        """Put a fresh token in place; a failure is tried again while the one in force is good."""
        deadline = time.monotonic() + left_s
        for attempt in itertools.count():
            if not callable(self._token) or time.monotonic() > deadline:
                return
            try:
                async with asyncio.timeout(SIGN_IN_S_MAX):
                    token = await self._fetch_token()
                await self.command({"op": "auth", "token": token})
                return
            except Exception:  # a token's source may fail in any way; the connection's own loss ends this task
                await asyncio.sleep(backoff_s(attempt, random.random(), 1.0, 10.0))

    def _answered(self, frame: dict[str, Any]) -> None:
        reply = self._replies.get(frame["id"]) if isinstance(frame.get("id"), int) else None
        if reply is not None and not reply.done():
            reply.set_result(frame)
        for snap in frame.get("snaps", ()):
            if "error" not in snap and (snap["ch"] in self.follower.copies or snap["ch"] in self.follower.broken):
                self.follower.mend(snap)
                if isinstance(frame.get("id"), str):
                    with contextlib.suppress(asyncio.QueueFull):
                        self._pushes.put_nowait(Push("snap", snap["ch"], {"t": "snap", **snap}, self.follower.copies[snap["ch"]]))
