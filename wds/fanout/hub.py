"""Turns documents, snapshots and clients' wishes into frames for members and requests to the upstream.

Flow: channel (upstream side) → groups, one a (rate, field set) → members. Invariant: a member's frames of a channel form
one chain: a snap, then frames whose `prev` is the `seq` before. No I/O and no clock here: the shell carries out `requests`
and answers with `on_snapshot` or `on_read_failed`; writing is a function given with each member.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Literal, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mdc.away import Away
from mdc.channels import kind_of
from mdc.documents import Doc, Snapshot
from wds.fanout.channel import Channel, Moved
from wds.fanout.cohort import Cohorts, Cork, Round, deliver, deliver_together
from wds.fanout.compact import Form
from wds.fanout.freshness import LIVE, PIPELINE, Freshness, Verdict
from wds.fanout.group import NOWHERE, Group
from wds.fanout.member import Member, Want
from wds.fanout.outbox import Step
from wds.fanout.phases import due, parts
from wds.fanout.pieces import FRAMES_MAX, Cursor, Pile, Wrap
from wds.fanout.topic import Batch, Done, Request, Tally, Topic
from wds.protocol import GetOutcome, Hz, Status, SubOutcome, encode, error

SECOND_NS = 1_000_000_000
RETRY_NS = SECOND_NS
NEVER = Verdict("stale", "not told yet")  # differs from whatever is true
JUDGED = 2048  # verdicts that are found, or told, before others have their turn: about 3 ms
SLICE = 256  # channels of one client's command that are dealt with before others have their turn: about 3 ms


class _Turn:
    """One call into the hub. Members that end while it goes over others are taken out when it is over."""

    __slots__ = ("_hub", "depth")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self.depth -= 1
        if not self.depth:
            self._hub.bury()


class Hub:
    """All channels and members of one worker."""

    def __init__(self, wrap: Wrap, freshness: Freshness, linger_s: float = 10.0, slice_: int = SLICE, base_ms: int = 0) -> None:
        self.base_ms = base_ms  # what the times of the compact form count from
        self._numbers = itertools.count()
        self.chores: deque[Iterator[None]] = deque()  # what was too much for one turn; the shell calls `work`
        self.requests: list[Request] = []
        self.members: dict[Member, None] = {}
        self.tally = Tally()
        self._plain = Form(wrap)
        self._freshness = freshness
        self._linger_ns = int(linger_s * SECOND_NS)
        self._topics: dict[str, Topic] = {}
        self._dirty: dict[Round, dict[Group, None]] = {}
        self._now_ns = 0
        self._tickets = 0
        self._up = True
        self._judged = freshness.version
        self._slice = slice_
        self._turn = _Turn(self)
        self._leaving: list[Member] = []
        self._cohorts = Cohorts()

    @property
    def verdict(self) -> Verdict:
        return self._freshness.verdict

    @property
    def watched(self) -> int:
        return len(self._topics)

    @property
    def now_ns(self) -> int:
        """The time of the turn that goes on, or of the last one."""
        return self._now_ns

    def pin(self, channel: str) -> None:
        """Watch `channel` for ever, with or without subscribers."""
        self._topic(channel).pinned = True

    # Upstream

    def on_docs(self, docs: Iterable[Doc], now_ns: int) -> None:
        """Take documents in upstream order; raw groups are flushed at once, the others at their tick."""
        self._now_ns = now_ns
        topics = self._topics
        with self._turn:
            known = [(topic, doc) for doc in docs if (topic := topics.get(doc.ch)) is not None]
            cork = self._open_cork(("raw", 0), len(known))
            for topic, doc in known:
                self._apply(topic, doc, cork)
            self._flush_dirty("raw", 0, cork)

    def _apply(self, topic: Topic, doc: Doc, cork: Cork | None) -> None:
        moved = topic.channel.apply(doc)
        if doc.src != topic.source:
            topic.source = doc.src
            self._judge([topic])
        if moved is Moved.GAP:
            self._read(topic)
        elif moved is Moved.YES:
            self._mark(topic)
            if topic.channel.kind.mode != "event":
                self._flush_raw(topic, cork)
        if doc.ch == PIPELINE:
            self._freshness.on_pipeline(doc.data, self._now_ns)
            self._judge_all()

    def _mark(self, topic: Topic) -> None:
        for group in topic.groups.values():
            self._dirty.setdefault(group.round, {})[group] = None

    def _flush_raw(self, topic: Topic, cork: Cork | None) -> None:
        for key, group in topic.groups.items():
            if key[0] == "raw":
                self._flush(group, cork)

    def on_snapshot(self, channel: str, ticket: int, snapshot: Snapshot | None, now_ns: int) -> None:
        """Take the answer to a read; answers to reads that were overtaken by another are ignored."""
        topic = self._asked(channel, ticket, now_ns)
        if topic is None:
            return
        if topic.channel.warm:
            topic.channel.take_history(snapshot)
        elif not topic.channel.install(snapshot):
            self._read(topic)
            return
        topic.source = snapshot.src if snapshot is not None else topic.source
        with self._turn:
            self._judge([topic])
            self._resolve(topic)
            self._mark(topic)
            self._flush_dirty("raw", 0)

    def on_read_failed(self, channel: str, ticket: int, now_ns: int) -> None:
        """The snapshot could not be read: who waits is let in without it, the read is tried again."""
        topic = self._asked(channel, ticket, now_ns)
        if topic is not None:
            topic.retry_ns = now_ns + RETRY_NS
            with self._turn:
                self._resolve(topic)

    def _asked(self, channel: str, ticket: int, now_ns: int) -> Topic | None:
        self._now_ns = now_ns
        topic = self._topics.get(channel)
        if topic is None or topic.ticket != ticket:
            return None
        topic.reading = False
        topic.retry_ns = 0
        return topic

    def on_cache(self, up: bool, reason: str, now_ns: int) -> None:
        """The cache went away or came back; back, everything watched is read anew."""
        self._now_ns = now_ns
        self._freshness.on_cache(up, reason, now_ns)
        self._judge_all()
        self._up = up
        if up:
            self._read_anew(list(self._topics.values()))

    def on_away(self, away: Away, now_ns: int) -> None:
        """Other parts of the cache are away now than before; what is watched of those that are back is read anew."""
        self._now_ns = now_ns
        back = self._freshness.on_away(away)
        self._judge_all()
        if self._up and back:
            self._read_anew([topic for topic in self._topics.values() if away.part_of(topic.channel.kind, topic.name) in back])

    def _read_anew(self, topics: list[Topic]) -> None:
        for topic in topics:
            topic.reopen()
        self._start(self._read_all(topics))

    def _read_all(self, topics: list[Topic]) -> Iterator[None]:
        for at, topic in enumerate(topics, 1):
            if not self._up:
                return  # it went away again; when it is back, all begins anew
            if not topic.channel.warm and not topic.reading and self._topics.get(topic.channel.name) is topic:
                self._read(topic)
            if at % self._slice == 0:
                yield

    # Time

    def tick(self, hz: Hz, phase: int, now_ns: int) -> None:
        """The time of one phase of a tier has come: flush what changed in it, and in those that go with it (`phases.py`).

        Cost: O(changed groups and their members).
        """
        self._now_ns = now_ns
        now = due(hz, phase, parts(hz, self._cohorts.readers))
        with self._turn:
            if len(now) == 1:
                self._flush_dirty(hz, phase)
            else:
                self._flush_together([(hz, one) for one in now])

    def work(self, now_ns: int) -> bool:
        """Go on with one slice of what was too much for one turn; return whether more is left."""
        self._now_ns = now_ns
        if self.chores:
            self._start(self.chores.popleft())
        return bool(self.chores)

    def _start(self, chore: Iterator[None]) -> None:
        with self._turn:
            for _ in chore:
                self.chores.append(chore)
                return

    def on_time(self, now_ns: int) -> None:
        """Once a second: judge freshness, try failed reads again, let go of channels nobody uses."""
        self._now_ns = now_ns
        self._freshness.on_time(now_ns)
        with self._turn:
            self._judge_all()
        for topic in list(self._topics.values()):
            if self._up and topic.retry_ns and now_ns >= topic.retry_ns and not topic.reading:
                self._read(topic)
            if not topic.used and now_ns - topic.idle_ns >= self._linger_ns:
                del self._topics[topic.channel.name]
                self.requests.append(Request("close", topic.channel.name, 0))

    # Members

    def add(self, member: Member) -> None:
        """A client has proved who it is."""
        self.members[member] = None
        member.form = member.form or self._plain
        member.loose = cast(dict[Round, dict[Member, None]], self._cohorts.loose)
        member.told = {}  # it assumes live until told otherwise

    def compact(self, member: Member) -> None:
        """Write to this member in the compact form from now on; it must not be subscribed to anything yet."""
        assert not member.groups
        member.form = self._form(member)._replace(compact=True, base_ms=self.base_ms)

    def _form(self, member: Member) -> Form:
        return member.form or self._plain

    def drop(self, member: Member, now_ns: int) -> None:
        """A client is gone. Within a loop over members it is only marked; it is taken out when the loop is over."""
        self._now_ns = now_ns
        member.gone = True
        member.judge()
        self.members.pop(member, None)
        self._leaving.append(member)
        if not self._turn.depth:
            self.bury()

    def bury(self) -> None:
        """Take out who has ended."""
        if not self._leaving:
            return
        while self._leaving:
            member = self._leaving.pop()
            for channel in list(member.groups):
                self.leave(member, channel, self._now_ns)
            self._cohorts.forget(member)

    def join(self, member: Member, wants: list[Want], done: Done, now_ns: int) -> None:
        """Subscribe; `done` gets one outcome a channel, before the first frame, as soon as all are read."""
        self._now_ns = now_ns
        self._start(self._open(Batch(member, wants, done, set())))

    def _open(self, batch: Batch) -> Iterator[None]:
        for at, want in enumerate(batch.wants, 1):
            if batch.member.gone:
                return self._forgo(batch)
            topic = self._topic(want.channel)
            if self._must_read(topic, want):
                batch.missing.add(want.channel)
                topic.batches.append(batch)
            if at % self._slice == 0:
                yield
        batch.opened = True
        if not batch.missing:
            yield from self._complete(batch)
        return None

    def _must_read(self, topic: Topic, want: Want) -> bool:
        channel = topic.channel
        if channel.warm and channel.kind.mode == "merge" and channel.kind.keep and want.since is None:
            if not topic.reading:
                self._read(topic)
            return True
        if not channel.warm and not topic.reading and not topic.retry_ns:
            self._read(topic)
        return not channel.warm and topic.reading

    def _resolve(self, topic: Topic) -> None:
        batches, topic.batches = topic.batches, []
        for batch in batches:
            batch.missing.discard(topic.channel.name)
            batch.history[topic.channel.name] = topic.channel.history
            if batch.member.gone:
                self._forgo(batch)
            elif batch.opened and not batch.missing:
                self._start(self._complete(batch))
        topic.channel.history = None

    def _forgo(self, batch: Batch) -> None:
        for want in batch.wants:
            self._idle(self._topics.get(want.channel))

    def _complete(self, batch: Batch) -> Iterator[None]:
        member = batch.member
        plans = []
        for at, want in enumerate(batch.wants, 1):
            plans.append((want, *self._plan(member, want)))
            if at % self._slice == 0:
                yield
        after = batch.done([outcome for _, outcome, _ in plans])
        pile = Pile(member, self._form(member).wrap)
        for at, (want, outcome, cursor) in enumerate(plans, 1):
            if outcome.error is UNSET and not member.gone:
                self._enter(member, want, cursor, batch.history.get(want.channel), pile)
            else:
                self._idle(self._topics.get(want.channel))
            if at % self._slice == 0:
                self._written(pile)
                yield
        self._written(pile)
        after()

    def _plan(self, member: Member, want: Want) -> tuple[SubOutcome, Cursor]:
        if want.channel in member.groups:
            return SubOutcome(want.channel, error=error("already_subscribed", "unsub first to change it")), NOWHERE
        channel = self._topic(want.channel).channel
        recovered: bool | UnsetType = UNSET
        cursor = NOWHERE
        if want.since is not None:
            recovered = channel.warm and channel.recovers(want.since.epoch, want.since.seq)
            cursor = Cursor(channel.life, want.since.seq) if recovered else NOWHERE
        return SubOutcome(want.channel, want.hz, recovered), cursor

    def _enter(self, member: Member, want: Want, cursor: Cursor, history: Raw | None, pile: Pile) -> None:
        topic = self._topic(want.channel)
        group = self._group(topic, want.hz, want.fields, self._form(member))
        member.groups[want.channel] = group
        self._bring(pile, member, group, group.join(member, cursor, history))
        if topic.verdict != LIVE and member.ready:  # one who cannot be told now is told when released
            member.told[want.channel] = topic.verdict
            pile.add([encode(Status(want.channel, *topic.verdict))])

    def _group(self, topic: Topic, hz: Hz, fields: frozenset[str] | None, form: Form) -> Group:
        group = topic.groups.get((hz, fields, form))
        if group is None:
            group = topic.groups[(hz, fields, form)] = Group(topic.channel, hz, fields, form)
        elif group.life != topic.channel.life:
            self._flush(group)  # nobody shall join a life that is over
        return group

    def leave(self, member: Member, channel: str, now_ns: int) -> bool:
        """Unsubscribe; return whether it was subscribed."""
        self._now_ns = now_ns
        group = member.groups.pop(channel, None)
        member.told.pop(channel, None)
        if group is not None:
            self._part(member, group)
        return group is not None

    def _part(self, member: Member, group: Group) -> Cursor:
        cursor = group.part(member)
        topic = self._topics[group.channel.name]
        if group.empty:
            del topic.groups[group.key]
            self._dirty.get(group.round, {}).pop(group, None)
            self._idle(topic)
        return cursor

    def retune(self, member: Member, hz: Hz, now_ns: int) -> None:
        """Move every subscription of a member to another tier; its chains go on unbroken."""
        self._now_ns = now_ns
        member.hz = hz
        self._start(self._retune(member, hz, list(member.groups.items())))

    def _retune(self, member: Member, hz: Hz, subscribed: list[tuple[str, Group]]) -> Iterator[None]:
        pile = Pile(member, self._form(member).wrap)
        for at, (name, old) in enumerate(subscribed, 1):
            if member.gone or member.hz != hz:
                break  # another rate was asked for meanwhile
            if member.groups.get(name) is old and old.hz != hz:
                group = self._group(self._topics[name], hz, old.wanted, self._form(member))
                cursor = self._part(member, old)
                member.groups[name] = group
                self._bring(pile, member, group, group.join(member, cursor))
            if at % self._slice == 0:
                self._written(pile)
                yield
        self._written(pile)

    def pause(self, member: Member, paused: bool, now_ns: int) -> None:
        """Hold everything back, or bring the member up to date and go on; then what is not live is told anew."""
        self._now_ns = now_ns
        was, back = member.ready, member.paused and not paused
        member.paused = paused
        member.judge()
        if back:
            member.told = {name: NEVER for name in member.groups if self._topics[name].verdict != LIVE or name in member.told}
        self._readiness(member, was)

    def on_buffer(self, member: Member, buffered_bytes: int, now_ns: int) -> Step:
        """Tell a member's unsent bytes; return its step on the ladder. CLOSE is for the shell to carry out."""
        self._now_ns = now_ns
        was = member.ready
        step = member.outbox.observe(buffered_bytes, now_ns)
        member.judge()
        self._readiness(member, was)
        return step

    def _readiness(self, member: Member, was: bool) -> None:
        if was and not member.ready:
            for group in member.groups.values():
                group.demote(member)
        elif not was and member.ready:
            with self._turn:
                self._release(member)

    def _release(self, member: Member) -> None:
        self._tell(member, [name for name in member.groups if member.told.get(name, LIVE) != self._topics[name].verdict])
        pile = Pile(member, self._form(member).wrap)
        for group in list(member.groups.values()):
            if not member.ready:
                break  # the buffer filled again; the rest keeps its place
            if member in group.late:
                self._bring(pile, member, group, group.catch_up(member))
        self._written(pile)

    def position(self, member: Member, channel: str, limit: int | None, history: Raw | None = None) -> GetOutcome | None:
        """Return where the member's subscription stands, as a get answers it; None when it is not subscribed.

        The chain goes on from the answer, so it must be written before anything else of the channel.
        """
        group = member.groups.get(channel)
        if group is None:
            return None
        if not group.life:
            return GetOutcome(channel, error=error("unavailable", "no data yet"))
        outcome = GetOutcome(channel, group.epoch, group.seq, group.ts, Raw(group.full(limit, history)))
        group.reset(member)
        return outcome

    # Inside

    def _topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic(Channel(name, kind_of(name), next(self._numbers)), idle_ns=self._now_ns)
            topic.verdict = self._verdict_of(topic)
            self._read(topic, "open")
        return topic

    def _read(self, topic: Topic, what: Literal["open", "read"] = "read") -> None:
        self._tickets += 1
        topic.ticket = self._tickets
        topic.reading = True
        topic.retry_ns = 0
        self.requests.append(Request(what, topic.channel.name, topic.ticket))

    def _idle(self, topic: Topic | None) -> None:
        if topic is not None and not topic.used:
            topic.idle_ns = self._now_ns

    def _flush_dirty(self, hz: Hz, phase: int, cork: Cork | None = None) -> None:
        dirty = self._dirty.get((hz, phase))
        if dirty:
            self._dirty[hz, phase] = {}
            cork = self._open_cork((hz, phase), len(dirty)) if cork is None else cork
            for group in dirty:
                self._flush(group, cork)
        if cork is not None:
            deliver(cork)
            self._bring_late(cork)

    def _open_cork(self, round_: Round, groups: int) -> Cork | None:
        # A write is a system call, 3 µs of the 4 that a frame costs: a client of 50 widgets gets one a tick, not 50, and in one
        # WebSocket frame: a browser spends more on the event of a message than on what is in it (4,500 messages/s took half
        # a core). Clients of the same groups share it. With a single group there is nothing to join.
        if groups <= 1:
            return None
        self._cohorts.settle(round_)
        return Cork()

    def _flush_together(self, rounds: list[Round]) -> None:
        cork = Cork()
        for round_ in rounds:
            if dirty := self._dirty.get(round_):
                self._dirty[round_] = {}
                self._cohorts.settle(round_)
                for group in dirty:
                    self._flush(group, cork)
        deliver_together(cork)
        self._bring_late(cork)

    def _bring_late(self, cork: Cork) -> None:
        for group, spoke in cork.late.items():
            self.tally.conflated += group.bring_late(spoke)

    def _flush(self, group: Group, cork: Cork | None = None) -> None:
        tally = self.tally
        try:
            sent = group.flush(cork)
        except msgspec.DecodeError:
            tally.malformed += 1  # one poisoned document must not end a tier for everybody
            return
        tally.frames += sent.frames
        tally.conflated += sent.conflated
        tally.lost += sent.lost
        if sent.frames:
            tally.source_ts.append(group.ts)

    def _bring(self, pile: Pile, member: Member, group: Group, frames: list[bytes]) -> None:
        while frames:
            pile.add(frames)
            frames = group.catch_up(member) if member.ready and member in group.late else []
        self.tally.lost += group.lost
        group.lost = 0

    def _written(self, pile: Pile) -> None:
        pile.flush()
        self.tally.frames += pile.written
        pile.written = 0

    # Freshness

    def _verdict_of(self, topic: Topic) -> Verdict:
        channel = topic.channel
        if channel.life and not channel.warm and self._up:
            return Verdict("stale", "being read again from the cache")
        return self._freshness.of(channel.kind, topic.name, topic.source)

    def _judge_all(self) -> None:
        if self._judged != self._freshness.version:
            self._judged = self._freshness.version
            self._judge(self._topics.values())

    def _judge(self, topics: Iterable[Topic]) -> None:
        """Tell the members of channels whose verdict has changed: one write a member, however many channels."""
        self._start(self._judging(list(topics)))

    def _judging(self, topics: list[Topic]) -> Iterator[None]:
        news: dict[Member, list[str]] = {}
        for at, topic in enumerate(topics, 1):
            verdict = self._verdict_of(topic)
            if verdict != topic.verdict:
                topic.verdict = verdict
                for group in topic.groups.values():
                    for member in [*group.fast, *group.late]:
                        news.setdefault(cast(Member, member), []).append(topic.channel.name)
            if at % JUDGED == 0:
                yield
        told = 0
        for member, names in news.items():
            if member.ready and not member.gone:
                self._tell(member, names)
            told += len(names)
            if told >= JUDGED:
                told = 0
                yield

    def _tell(self, member: Member, names: Sequence[str]) -> None:
        """Tell it in pieces; one whose buffer fills meanwhile hears the rest when it is released."""
        for at in range(0, len(names), FRAMES_MAX):
            if not member.ready:
                return
            statuses = []
            for name in names[at : at + FRAMES_MAX]:
                if name not in member.groups:
                    continue  # left since the verdict
                verdict = self._topics[name].verdict
                if member.told.get(name, LIVE) == verdict:
                    continue  # told meanwhile, by whatever made it join or come back
                if verdict == LIVE:
                    member.told.pop(name, None)
                else:
                    member.told[name] = verdict
                statuses.append(Status(name, verdict.state, verdict.reason))
            if statuses:
                self.tally.frames += 1
                member.write(self._form(member).wrap(encode(statuses)))
