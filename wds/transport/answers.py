"""Answers what a client asks for and nobody can tell at once: is a token good, which channels are there, what do they hold.

Invariant: an answer is given in one turn of the loop with the state it speaks of. An answer that fails ends its client's
connection, which reconnects, and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from msgspec import UNSET, Raw

from mdc.channels import kind_of
from mdc.documents import Snapshot
from service.clock import Clock
from service.tasks import Tasks
from wds.access.ended import Ended
from wds.access.keys import KeySource
from wds.access.tokens import Claims, TokenRefused
from wds.fanout.delta import parse_fields
from wds.fanout.hub import Hub
from wds.fanout.member import Member
from wds.fanout.upstream import FAILURES, Upstream, is_plain
from wds.protocol import GetOutcome, error
from wds.transport.connection import Connection

GET_BYTES_MAX = 491_520  # of one reply, about
LINE_BYTES = 80  # of a reply around a channel's data
READ_AT_ONCE = 128
UNREADABLE = error("unavailable", "the cache cannot be read now")


class Answers:
    """The answers of one worker; those that wait for keys or the cache are `tasks`."""

    def __init__(self, hub: Hub, upstream: Upstream, keys: KeySource, revoked: Ended, clock: Clock, tasks: Tasks) -> None:
        self._hub = hub
        self._revoked = revoked
        self._upstream = upstream
        self._keys = keys
        self._clock = clock
        self._tasks = tasks

    def verify(self, connection: Connection, token: str) -> None:
        """Judge a token now, or after fetching keys when it names one we do not know."""
        try:
            outcome: Claims | TokenRefused = self._keys.verify(token, _audiences(connection))
        except TokenRefused as refused:
            if refused.unknown_kid is not None and self._keys.fetches:
                self._later("verify", connection, self._verify_anew(connection, token))
                return
            outcome = refused
        self._judged(connection, outcome)

    async def _verify_anew(self, connection: Connection, token: str) -> None:
        try:
            outcome: Claims | TokenRefused = await self._keys.verify_anew(token, _audiences(connection))
        except TokenRefused as refused:
            outcome = refused
        self._judged(connection, outcome)
        self._upstream.carry_out()

    def _judged(self, connection: Connection, outcome: Claims | TokenRefused) -> None:
        if isinstance(outcome, Claims) and self._revoked.has(outcome.sid):
            outcome = TokenRefused("unauthorized", "this session has ended")
        left_s = 0.0 if isinstance(outcome, TokenRefused) else outcome.exp_s - self._clock.wall_ns() / 1e9
        connection.verified(outcome, left_s)

    def list_kinds(self, connection: Connection, kinds: list[str]) -> None:
        """Find the known channels for a session that expands patterns."""
        self._later("list", connection, self._list_kinds(connection, kinds))

    async def _list_kinds(self, connection: Connection, kinds: list[str]) -> None:
        known = await self._upstream.known(kinds)
        if connection.session is not None:
            connection.run(connection.session.on_listed(known))

    def fetch(self, connection: Connection, channels: list[str], limit: int | None) -> None:
        """Answer a get."""
        self._later("get", connection, self._fetch(connection, channels, limit))

    async def _fetch(self, connection: Connection, channels: list[str], limit: int | None) -> None:
        member = connection.member
        assert member is not None
        found = await self._read(member, channels, limit)
        outcomes: dict[str, GetOutcome] = {}
        room = GET_BYTES_MAX
        for name in channels:  # no await from here: the answer and the chain must belong together
            if room <= 0 or (name not in found and name not in member.groups):
                break  # what is left out the session says in a few bytes
            outcomes[name] = outcome = self._position(connection, name, limit, found.get(name))
            room -= LINE_BYTES + (len(bytes(outcome.data)) if outcome.data is not UNSET else 0)
        if connection.session is not None:
            connection.run(connection.session.on_fetched(outcomes))

    async def _read(self, member: Member, channels: list[str], limit: int | None) -> dict[str, GetOutcome]:
        """Read what the member does not follow, in order, until a reply is full."""
        found: dict[str, GetOutcome] = {}
        read = [name for name in channels if name not in member.groups or _has_history(name)]
        room = GET_BYTES_MAX
        while len(found) < len(read) and room > 0:
            some = read[len(found) : len(found) + READ_AT_ONCE]
            plain = await self._plain([name for name in some if limit is None and is_plain(name)]) if len(some) > 1 else {}
            others = [name for name in some if name not in plain]
            more = dict(zip(others, await asyncio.gather(*(self._outcome(name, limit) for name in others)), strict=True))
            for name in some:
                found[name] = outcome = plain[name] if name in plain else more[name]
                room -= LINE_BYTES + (len(bytes(outcome.data)) if outcome.data is not UNSET else 0)
        return found

    async def _plain(self, channels: list[str]) -> dict[str, GetOutcome]:
        try:
            found = await self._upstream.fetch_plain(channels) if channels else {}
        except FAILURES:
            return {name: GetOutcome(name, error=UNREADABLE) for name in channels}
        return {name: _outcome_of(name, snapshot) for name, snapshot in found.items()}

    async def _outcome(self, channel: str, limit: int | None) -> GetOutcome:
        try:
            return _outcome_of(channel, await self._upstream.fetch(channel, limit))
        except FAILURES:
            return GetOutcome(channel, error=UNREADABLE)

    def _position(self, connection: Connection, name: str, limit: int | None, read: GetOutcome | None) -> GetOutcome:
        assert connection.member is not None
        history = None
        if read is not None and _has_history(name) and read.data is not UNSET:
            history = parse_fields(read.data).get("history")
        subscribed = self._hub.position(connection.member, name, limit, history)
        if subscribed is not None:
            return subscribed
        return read or GetOutcome(name, error=error("unavailable", "unsubscribed meanwhile"))

    def _later(self, what: str, connection: Connection, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.start(what, work, ends=True, on_fault=lambda _: connection.cut())


def _audiences(connection: Connection) -> tuple[str, ...]:
    assert connection.session is not None
    return connection.session.audiences


def _outcome_of(channel: str, snapshot: Snapshot | None) -> GetOutcome:
    if snapshot is None:
        return GetOutcome(channel, error=error("unavailable", "no data yet"))
    return GetOutcome(channel, snapshot.epoch, snapshot.seq, snapshot.ts, Raw(snapshot.data))


def _has_history(channel: str) -> bool:
    kind = kind_of(channel)
    return kind.mode == "merge" and kind.keep > 0
