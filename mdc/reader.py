"""Reads the cache: one ordered stream of updated documents, and consistent snapshots.

Invariant: after `watch(channel)` has returned while the cache is up, every later document of the channel reaches `on_docs`
in order; a snapshot read after that holds everything before the first document that it does not hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import structlog

from mdc import keys
from mdc.away import NOTHING, SHARED, Away
from mdc.channels import group_of, kind_named, kind_of, split
from mdc.connect import AWAY, CacheUnavailable, open_cache, unavailable
from mdc.documents import Doc, Snapshot, decode_message, event_snapshot, state_snapshot
from mdc.interest import RENEW_S, Interest, Watched
from service.keyspace import slot_of, space_of
from service.partition import partition_of
from service.run import backoff_s
from service.tasks import OnFault, Tasks

CONFIRM_S_MAX = 5.0
TELL_PAUSE_S = 0.05  # a page opens dozens of channels at once
PARTITIONS_CHECK_S = 5.0
PART_S_MAX = 1.5  # for a node of a cluster to confirm a subscription; then we go on without it until it does
LISTENING = "mdc:reader"  # it must listen to something to be readable
log = structlog.get_logger()

OnDocs = Callable[[list[Doc]], None]
OnState = Callable[[bool, str], None]
OnAway = Callable[[Away], None]


class PartitionsChanged(ConnectionError):
    """The writers sort what they write in another way."""


class Reader:
    """A reader of the cache. `on_docs` and `on_state` are called on the loop; `on_state(False, why)` when updates stop.

    After `on_state(True, …)` everything watched is subscribed again, but what happened in between is unknown: read the
    snapshots of everything watched anew.

    In a cluster a node may be away while the others go on: `on_away` is called with the parts of the cache that it has, and
    again, without them, when they are heard again: read the snapshots of what is watched of them anew.
    """

    def __init__(
        self,
        url: str,
        on_docs: OnDocs,
        on_state: OnState,
        partitions: int = 8,
        client_name: str = "wds",
        on_fault: OnFault | None = None,
        on_away: OnAway = lambda _: None,
    ) -> None:
        self.up = False
        self.partitions = partitions
        self._on_docs = on_docs
        self._on_state = on_state
        self._on_away = on_away
        self._away: dict[int, str] = {}  # part → why it is away
        self._told = NOTHING
        self._unreached = ""  # why it could not be reached last time
        self._redis = open_cache(url, client_name)
        self._space = space_of(self._redis)
        self._pubsub: Any = None
        self._groups: Counter[str] = Counter()
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._asked: Counter[str] = Counter()  # subscriptions sent and not confirmed yet, by group
        self._watched: Counter[str] = Counter()
        self._interest = Interest(self._redis)
        self._news: set[str] = set()  # channels watched since the processors were told last
        self._tell = asyncio.Event()
        self.renewals = 0  # how often everything that is watched was told
        self._tasks = Tasks("cache reader", on_fault)

    async def start(self) -> None:
        """Begin to read in the background; connects, and reconnects for ever with backoff."""
        self._tasks.start("stream", self._run())
        self._tasks.start("interest", self._tell_interest())

    async def close(self) -> None:
        """Stop reading and close the connections."""
        await self._tasks.close()
        if self._pubsub is not None:
            with contextlib.suppress(*AWAY):
                await self._pubsub.aclose()
        await self._redis.aclose()

    async def watch(self, channel: str) -> None:
        """Have the documents of `channel` delivered (with those of its whole group).  Raises: UnknownChannel.

        Returns when the subscription is active; at once while the cache is away, or the node that has the channel (it becomes
        active before that is said to be back).
        """
        group = self._group(channel)
        self._watched[channel] += 1
        self._groups[group] += 1
        self._news.add(channel)
        self._tell.set()
        if not self.up:
            return
        if self._groups[group] == 1:
            await self._subscribe(group)
        waiting = self._confirmed.get(group)
        if waiting is not None and self._part_of(group) not in self._away:
            with contextlib.suppress(TimeoutError, CacheUnavailable):
                async with asyncio.timeout(CONFIRM_S_MAX):
                    await asyncio.shield(waiting)

    async def unwatch(self, channel: str) -> None:
        """Take one `watch` back; the last one of a group ends its delivery."""
        if self._watched[channel] <= 0:
            return
        self._watched[channel] -= 1
        if not self._watched[channel]:
            del self._watched[channel]
        group = self._group(channel)
        self._groups[group] -= 1
        if self._groups[group] <= 0:
            del self._groups[group]
            self._confirmed.pop(group, None)
            if self.up:
                with contextlib.suppress(*AWAY):
                    await self._pubsub.unsubscribe(group)
                self._settle(self._part_of(group))

    def by_node(self, channels: Iterable[str]) -> list[list[str]]:
        """Return the channels in groups, one for each server that has some of them.  Raises: UnknownChannel."""
        if not self._space.clustered:
            return [list(channels)]
        found: dict[Any, list[str]] = {}
        for home, mine in self._by_home(channels).items():
            found.setdefault(self._redis.topology.node_of(slot_of(home)), []).extend(mine)
        return list(found.values())

    def _by_home(self, channels: Iterable[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for channel in channels:
            found.setdefault(self._home(channel), []).append(channel)
        return found

    async def snapshot(self, channel: str, limit: int | None = None) -> Snapshot | None:
        """Return what `channel` holds now, None when it holds nothing.  Raises: UnknownChannel, CacheUnavailable.

        `limit` bounds rows, events or closed bars (the newest). The document and its history are read in one transaction.
        """
        kind = kind_of(channel)
        home = self._home(channel)
        document = home + keys.document(channel)
        try:
            if kind.mode == "event":
                bodies = await self._redis.lrange(document, -kind.keep, -1)
                return event_snapshot(bodies, kind.keep, limit)
            if not kind.keep:
                body = await self._redis.get(document)
                return None if body is None else state_snapshot(body, None, limit)
            async with self._redis.pipeline(transaction=True) as both:
                both.get(document)
                both.lrange(home + keys.history(channel), -kind.keep, -1)
                body, closed = await both.execute()
            return None if body is None else state_snapshot(body, closed, limit)
        except AWAY as error:
            raise unavailable(error) from None

    async def snapshots(self, channels: Sequence[str]) -> dict[str, Snapshot | None]:
        """Return what channels of plain states hold now, in one round trip; a malformed one is left out.

        Plain are the kinds without events and history.  Raises: UnknownChannel, CacheUnavailable.
        """
        found: dict[str, Snapshot | None] = {}
        for channel, body in await self._bodies(channels):
            with contextlib.suppress(msgspec.DecodeError):
                found[channel] = None if body is None else state_snapshot(body)
        return found

    async def _bodies(self, channels: Sequence[str]) -> list[tuple[str, bytes | None]]:
        """Return each channel's document; in a cluster those of a node that does not answer are left out.

        Raises: CacheUnavailable when nothing can be read.
        """
        homes = self._by_home(channels)
        found: list[tuple[str, bytes | None]] = []
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for home, mine in homes.items():
                    pipe.mget([home + keys.document(channel) for channel in mine])
                answers = await pipe.execute(raise_on_error=False)
            for mine, answer in zip(homes.values(), answers, strict=True):
                if not isinstance(answer, BaseException):
                    found += zip(mine, answer, strict=True)
                elif not found and answer is answers[-1]:
                    raise answer
        except AWAY as error:
            raise unavailable(error) from None
        return found

    async def list_channels(self, kind: str) -> list[str]:
        """Return the channels of `kind` that hold or held something, sorted.  Raises: KeyError, CacheUnavailable.

        In a cluster those of a node that does not answer are left out.
        """
        known = kind_named(kind)
        if known is None:
            raise KeyError(kind)
        if known.names and known.more is None:
            return [f"{kind}:{name}" for name in known.names]
        space = self._space  # a cluster has an index of each partition, and one of what all write
        homes = dict.fromkeys([space.shared, *(space.homes(self.partitions) if known.per_symbol else ())])
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for home in homes:
                    pipe.smembers(home + keys.index(kind))
                answers = await pipe.execute(raise_on_error=False)
            told = [answer for answer in answers if not isinstance(answer, BaseException)]
            if not told:
                raise answers[0]
            names = set[bytes]().union(*told)
        except AWAY as error:
            raise unavailable(error) from None
        return sorted({f"{kind}:{name.decode()}" for name in names} | {f"{kind}:{name}" for name in known.names})

    def _home(self, channel: str) -> str:
        """Return what stands before the keys of a channel.  Raises: UnknownChannel."""
        kind, name = split(channel)
        return self._space.shared if kind.is_shared(name) else self._space.of(partition_of(name, self.partitions))

    def _group(self, channel: str) -> str:
        """Return the pub/sub channel of a channel's updates.  Raises: UnknownChannel."""
        return self._home(channel) + group_of(channel, self.partitions)

    async def _tell_interest(self) -> None:
        """Tell the processors what is watched: what is new at once, everything every `RENEW_S`."""
        loop = asyncio.get_running_loop()
        renew_at = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(max(renew_at, loop.time() + TELL_PAUSE_S)):
                    await self._tell.wait()
            self._tell.clear()
            if whole := loop.time() >= renew_at:
                renew_at = loop.time() + RENEW_S
            news, self._news = self._news, set()
            with contextlib.suppress(CacheUnavailable):  # the next renewal says it again
                await self._interest.tell(self._by_partition(self._watched if whole else news))
                self.renewals += whole
            await asyncio.sleep(TELL_PAUSE_S)

    def _by_partition(self, channels: Iterable[str]) -> dict[int, list[Watched]]:
        found: dict[int, list[Watched]] = {}
        for channel in channels:
            kind, name = split(channel)
            if not kind.is_shared(name):
                found.setdefault(partition_of(name, self.partitions), []).append((kind.name, name))
            elif kind.name == "board":
                found.setdefault(keys.ALL, []).append((kind.name, name))
        return found

    async def _run(self) -> None:
        attempt = 0
        while True:
            try:
                await self._connect()
                attempt = 0
                await self._receive()
            except AWAY as error:
                self._down(str(error) or type(error).__name__)
            except Exception as error:  # a defect of a callback: what it did not take it reads again, the stream goes on
                log.exception("reader_failed")
                self._down(f"reader failed: {error!r}")
            await asyncio.sleep(backoff_s(attempt, random.random(), most_s=1.0))
            attempt += 1

    async def _connect(self) -> None:
        if self._pubsub is not None:
            with contextlib.suppress(*AWAY):
                await self._pubsub.aclose()
        await self._learn_partitions()
        self._pubsub = self._redis.pubsub()
        self._confirmed.clear()
        self._asked.clear()
        self._away.clear()
        listening = self._space.shared + LISTENING
        self._confirmed[listening] = asyncio.get_running_loop().create_future()
        await self._pubsub.subscribe(listening)
        await self._confirm_next()
        while not self._all_confirmed():  # others may watch more meanwhile
            for group in [group for group in self._groups if group not in self._confirmed]:
                await self._subscribe(group)
            await self._confirm_next()
        self.up = True
        self._tell_away()
        self._on_state(True, "")

    def _all_confirmed(self) -> bool:
        """Return whether each group is heard, or known to be on a node that is away."""
        known = self._confirmed
        return all(group in known and (known[group].done() or self._part_of(group) in self._away) for group in self._groups)

    async def _confirm_next(self) -> None:
        """Wait for one confirmation.  Raises: TimeoutError when none comes; in a cluster what other nodes have need not wait."""
        clustered = self._space.clustered
        if await self._take(PART_S_MAX if clustered else CONFIRM_S_MAX):
            return
        late = [group for group, confirmed in self._confirmed.items() if not confirmed.done()]
        if not clustered or len(late) == len(self._confirmed):
            raise TimeoutError("the cache did not confirm a subscription")
        self._away.update(dict.fromkeys(map(self._part_of, late), "its node does not confirm a subscription"))

    async def _receive(self) -> None:
        checking = asyncio.create_task(self._check_partitions(), name="partitions")  # a node that hangs holds up no document
        checking.add_done_callback(lambda done: done.cancelled() or done.exception())  # the stream may end before it is looked at
        try:
            while not checking.done():
                await self._take(min(1.0, PARTITIONS_CHECK_S))
            checking.result()
        finally:
            checking.cancel()

    async def _take(self, timeout_s: float) -> bool:
        """Deal with the next message; return False when none comes in time."""
        message = await self._pubsub.get_message(timeout=timeout_s)
        if message is None:
            return False
        if message["type"] == "message":
            self._deliver(message["data"])
        elif message["type"] == "subscribe":
            self._confirm(message["channel"].decode(), message.get("last", False))
        elif message["type"] == "lost":
            self._lost(message["channels"], message["data"])
        return True

    def _confirm(self, group: str, last: bool = False) -> None:
        # Watched, unwatched and watched again quickly: only the answer to the last one counts; a cluster says which that is.
        self._asked[group] = 0 if last else self._asked[group] - 1
        waiting = self._confirmed.get(group)
        if self._asked[group] <= 0 and waiting is not None and not waiting.done():
            waiting.set_result(None)
        self._settle(self._part_of(group))

    # Parts of a cluster

    def _part_of(self, group: str) -> int:
        """Return the part of the cache that a pub/sub channel belongs to."""
        if self._space.clustered and not group.startswith(self._space.shared):
            return int(group.rpartition(":")[2])
        return SHARED

    def _lost(self, groups: list[str], why: str) -> None:
        """A node of the cluster is away, or has given these up; they are subscribed again without our doing."""
        for group in groups:
            waiting = self._confirmed.get(group)
            if waiting is None:
                continue  # left meanwhile
            if not waiting.done():
                waiting.set_result(None)  # who waits for it goes on without it
            self._confirmed[group] = asyncio.get_running_loop().create_future()
            self._away.setdefault(self._part_of(group), why)
        self._tell_away()

    def _settle(self, part: int) -> None:
        """Say that a part is back when everything watched of it is heard again."""
        if part not in self._away:
            return
        if all(confirmed.done() for group, confirmed in self._confirmed.items() if self._part_of(group) == part):
            del self._away[part]
            self._tell_away()

    def _tell_away(self) -> None:
        if self.up and self._away != self._told.parts:
            self._told = Away(self.partitions, dict(self._away))
            self._on_away(self._told)

    def _deliver(self, body: bytes) -> None:
        try:
            docs = decode_message(body)
        except msgspec.DecodeError as error:
            log.error("update_malformed", error=str(error), sample=body[:200])
            return
        self._on_docs(docs)

    async def _subscribe(self, group: str) -> None:
        self._confirmed[group] = asyncio.get_running_loop().create_future()
        self._asked[group] += 1
        with contextlib.suppress(*AWAY):  # a lost connection shows in _receive, which subscribes to everything again
            await self._pubsub.subscribe(group)

    async def _check_partitions(self) -> None:
        """Ask now and then how many partitions there are.  Raises: PartitionsChanged; one of AWAY."""
        while True:
            await asyncio.sleep(PARTITIONS_CHECK_S)
            try:
                await self._learn_partitions()
            except PartitionsChanged:
                raise
            except AWAY:
                if not self._space.clustered:
                    raise  # in a cluster its pub/sub connection would say so, and what the other nodes publish goes on

    async def _learn_partitions(self) -> None:
        found = await self._redis.get(self._space.shared + keys.PARTITIONS)
        if found is not None and int(found) != self.partitions:
            self.partitions = int(found)
            self._groups = Counter()
            for channel, times in self._watched.items():
                self._groups[self._group(channel)] += times
            if self.up:
                raise PartitionsChanged("the number of partitions changed")

    def _down(self, why: str) -> None:
        for future in self._confirmed.values():
            if not future.done():
                future.set_result(None)
        if self.up:
            self.up = False
            self._on_state(False, why)
            log.warning("cache_lost", error=why)
        elif why != self._unreached:
            log.warning("cache_not_reached", error=why)
        self._unreached = why
