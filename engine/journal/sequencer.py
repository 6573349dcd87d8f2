"""Gives the commands of all senders one sequence and journals them in groups; an answer means that the disk has it.

One event loop, one writer: what was submitted while the loop was busy forms a group, the group is decided, written with one
fdatasync, and only then are its futures done and its records shown to the listeners. The loop itself waits for the disk, so
that nobody, not even a reader of `state`, can see what is not in the journal. A group begins with a step of what commands have
left to be done; while there is some, one group follows the other, and whatever comes meanwhile is in between.

When the disk refuses a group nobody is told it happened: its commands fail, no more are taken, the state is rebuilt from the
journal, and service resumes as soon as the disk takes a write again.

With a standby in step (`sync_s`) a group is answered and shown when the standby's disk has it as well; the next one is decided
then. Without a standby no command is taken. A standby's own sequencer follows (`followed`) until it leads (`lead`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import structlog

from engine.core.commands import Command, Instrument, Proceed
from engine.core.events import Event, KeyUsed, SentBy, TermBegan, encode
from engine.core.exchange import BuildMessages, Exchange
from engine.core.state import State
from engine.journal.format import Record
from engine.journal.journal import Journal, JournalRefused
from service import metrics
from service.clock import Clock, SystemClock
from service.errors import OperatorError

QUEUE_MAX = 10_000
GROUP_MAX = 256
GROUP_NS_MAX = 5_000_000  # a group that took so long to decide is written: nobody waits for many heavy commands of others
LOOK_EVERY = 4  # commands between two looks at the clock; one that made many events counts for several
EVENTS_LIGHT = 16
STEP_NS_MAX = 3_000_000  # a step of what commands have left becomes smaller when it takes longer
STEP_MIN, STEP_MAX = 16, 512  # events
RETRY_S = 0.5
ENGINE = "engine"  # sends what nobody else sends: ticks, suspensions for a store
SENDERS_MAX = 1_000
TERM_GAP = 1_000_000  # indices a new leader leaves out: those that the one before gave to what is lost never come again
FIRST_INDEX = 1  # 0 is "nothing yet": of consumers' last message, of an empty store
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

log = structlog.get_logger()
Rebuild = Callable[[], tuple[State, Journal]]
Listener = Callable[[Sequence[Record]], None]
Group = list[tuple[int, list[Event]]]  # index and events of each command that one write of the journal has


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What a command did; the journal has it. `group` is that of all commands written with it, in sequence.

    What is left of a command's work is done by later steps, whose events are in no outcome.
    """

    index: int
    time_ns: int
    events: list[Event]
    group: Group
    answer: tuple[int, str] | None = None  # status and body, of a command with a key; of a retry those of the first

    def later(self) -> Iterator[list[Event]]:
        """Yield what the commands behind this one did in the same group.

        Like `Sequencer.state`, to be read before the next await: a group is emptied when the next one is decided, so that an
        outcome that is kept for long keeps no others.
        """
        return (events for index, events in self.group if index > self.index)


class Asked(NamedTuple):
    """A command's idempotency key, the hash of what was asked (hex), and what makes the answer of the outcome, at once."""

    key: str
    digest: str
    answer: Callable[[Outcome], tuple[int, str]]


class KeyReused(Exception):
    """The key was used for something else; nothing was done."""

    code = "IdempotencyKeyReused"


class KeysFull(Exception):
    """There is no room for another key; nothing was done. Ask without one, or later."""

    code = "IdempotencyKeysFull"


class EngineBusy(Exception):
    """The queue of commands is full; nothing was done. Send it again a little later."""

    code = "EngineBusy"


class EngineUnavailable(Exception):
    """The journal does not take commands now; what was asked was not done."""

    code = "JournalUnavailable"


class NotTheLeader(EngineUnavailable):
    """This engine follows another one; what was asked was not done."""

    code = "NotTheLeader"


class NoStandby(EngineUnavailable):
    """Commands are to be on a standby's disk too, and none is in step; what was asked was not done."""

    code = "NoStandby"


class NotReplicated(EngineUnavailable):
    """The standby has not confirmed in time: what was asked is in this journal, and lost if the standby takes over now.

    Asked again with the same client id or idempotency key it is done once.
    """

    code = "NotReplicated"


Answers = list[tuple[asyncio.Future[Outcome], Outcome | Exception]]


class Waiting(NamedTuple):
    """A group that this disk has, and the standby's not yet; `done` when it has."""

    answers: Answers
    records: list[Record]
    written_ns: int
    done: asyncio.Future[None]


class Sequencer:
    """Gives every command its index and time. `rebuild` recovers state and journal from the disk; it runs in a thread."""

    def __init__(
        self, state: State, journal: Journal, rebuild: Rebuild, messages: BuildMessages, clock: Clock | None = None,
        queue_max: int = QUEUE_MAX, group_max: int = GROUP_MAX, time_ns: int = 0, sync_s: float = 0.0, leader: str = "",
    ) -> None:  # fmt: skip
        self._messages = messages
        self._exchange = Exchange(messages, state)
        self._journal = journal
        self._rebuild = rebuild
        self._clock = clock or SystemClock()
        self._queue_max = queue_max
        self._group_max = group_max
        self._queue: deque[tuple[Command, str, Asked | None, asyncio.Future[Outcome]]] = deque()
        self._senders: dict[str, SentBy] = {}
        self._listeners: list[Listener] = []
        self._group: Group = []  # the last one written
        self._scheduled = False
        self._resuming: asyncio.Task[None] | None = None
        self._closed = False
        self._ended: OperatorError | None = None
        self._fatal: asyncio.Future[None] | None = None
        self._time_ns = time_ns  # of the last command; never goes back, over restarts neither
        self._index = max(journal.last_index, FIRST_INDEX - 1)  # the last one given
        self._fault = ""  # why the journal takes nothing now
        self._sync_s = sync_s  # how long a group waits for the standby; 0 = it does not
        self._alone = "no standby has followed yet" if sync_s else ""  # why no command is taken although the journal would
        self._waiting: Waiting | None = None
        self.leader = leader  # whom this engine follows; "" = it leads
        self.on_written: Callable[[], None] = _nothing  # the journal has a new end
        self._step = STEP_MIN
        self._doubtful = False  # the state holds commands that the journal refused
        self.committed_index = self._index
        self._commands = metrics.counter("engine", "commands", "Commands decided and journaled")
        self._sizes = metrics.histogram("engine", "group_commands", "Commands a group, one fdatasync each", buckets=SIZES)
        self._commit_ms = metrics.histogram("engine", "commit_ms", "Time of writing a group, fdatasync included")
        self._depth = metrics.gauge("engine", "queue_commands", "Commands waiting to be decided")
        self._refused = metrics.counter("engine", "refused", "Commands not taken", ["why"])

    @property
    def refusal(self) -> str:
        """Why no command is taken now, "" when they are."""
        if self._fault or not self.leader:
            return self._fault or self._alone
        return f"this is a standby of {self.leader}, which takes commands; python -m engine promote makes this one the leader"

    def unavailable(self) -> EngineUnavailable:
        """Return what to refuse a command with."""
        kind = (
            EngineUnavailable if self._fault else NotTheLeader if self.leader else NoStandby if self._alone else EngineUnavailable
        )
        return kind(self.refusal)

    @property
    def state(self) -> State:
        """The state of all committed commands. To be read, and not to be kept over an await.

        Raises: EngineUnavailable while it holds what the journal refused, until it is rebuilt: nobody may answer from it.
        """
        if self.doubtful:
            raise self.unavailable()
        return self._exchange.state

    @property
    def doubtful(self) -> bool:
        """Whether the state cannot be read now: it is being rebuilt, or holds what the standby has not confirmed in time."""
        return self._doubtful or bool(self._alone and self._waiting)

    @property
    def term(self) -> int:
        """The term of the leader whose records the state holds, and in which this engine leads."""
        return self._exchange.state.term

    @property
    def unsettled(self) -> bool:
        """Whether the state holds a group that the standby has not confirmed yet."""
        return self._waiting is not None

    @property
    def waiting_ns(self) -> int:
        """Since when a group waits for the standby, on the monotonic clock; 0 = none does."""
        return self._waiting.written_ns if self._waiting is not None else 0

    async def settled(self) -> None:
        """Wait until the standby has what the state holds. Raises: EngineUnavailable when it does not confirm in time.

        There is no other turn of the loop between the end of the wait and whoever waits for it.
        """
        while self._waiting is not None:
            if self._alone:
                raise self.unavailable()
            await asyncio.wait({self._waiting.done}, timeout=self._sync_s)

    async def rebuilt(self) -> None:
        """Wait until the state can be read."""
        if self._doubtful and self._resuming is not None:
            await asyncio.shield(self._resuming)

    def instrument(self, symbol: str) -> Instrument:
        """Return a contract's terms. They never change, so they may be read at any time.  Raises: KeyError."""
        return self._exchange.state.ledger.contracts[symbol].instrument

    @property
    def last_message_index(self) -> int:
        """The index of the last message, 0 when there was none."""
        return self.state.message_index

    @property
    def journal(self) -> Journal:
        """The journal at its present end."""
        return self._journal

    def now_ns(self) -> int:
        """Return the time that the next command would get."""
        return max(self._time_ns, self._clock.wall_ns())

    def on_commit(self, listener: Listener) -> None:
        """Show every committed group to `listener`, in order, on the loop; it must not block."""
        self._listeners.append(listener)

    def submit(self, command: Command, sender: str = ENGINE, asked: Asked | None = None) -> asyncio.Future[Outcome]:
        """Queue a command; the future is done when the journal has it, or fails with EngineUnavailable.

        `sender` is the id of the key that sent it; the command's record opens with it. With an idempotency key that is known
        the command is not done again: the outcome has no events and the first one's answer. The future may fail with KeyReused
        and KeysFull.

        Raises: EngineBusy, EngineUnavailable at once, then nothing was queued. Cancelling the future does not take it back.
        """
        if self.refusal:
            self._refused.labels("unavailable").inc()
            raise self.unavailable()
        if len(self._queue) >= self._queue_max:
            self._refused.labels("busy").inc()
            raise EngineBusy(f"{self._queue_max} commands are waiting; send it again in a moment")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._queue.append((command, sender, asked, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._run)
        return future

    async def failed(self) -> None:
        """Wait for a broken invariant and raise it: the process must end and recover."""
        if self._ended is not None:
            raise self._ended
        self._fatal = asyncio.get_running_loop().create_future()
        await self._fatal

    async def close(self) -> None:
        """Write what is queued, then take no more commands and let go of the journal."""
        while (self._queue or self._waiting) and not self.refusal:
            if self._waiting is not None:
                await asyncio.wait({self._waiting.done}, timeout=self._sync_s)
            else:
                self._run()
        self._refuse("the engine is stopping")
        self._closed = True
        if self._resuming is not None:
            await self._resuming
        self._journal.close()

    def _run(self) -> None:
        """Decide and write one group; what else waits is the next turn's, so that sockets are served in between."""
        self._scheduled = False
        if self.refusal or self._waiting is not None:
            return
        try:
            self._commit_group()
        except Exception as error:
            self._refuse(f"a broken invariant: {error!r}")
            log.exception("engine_invariant_broken", index=self._index)
            if self._fatal is None or self._fatal.done():
                raise
            self._fatal.set_exception(error)
        self._go_on()
        self._depth.set(len(self._queue))

    def _go_on(self) -> None:
        if (self._queue or self._has_work()) and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _has_work(self) -> bool:
        return not self.refusal and self._waiting is None and self._exchange.busy(self.now_ns())

    def proceed(self) -> None:
        """Go on with what a command before the start has left to be done, or what time has brought; at once if need be.

        From then on each group of commands takes a step of it.
        """
        if self._has_work():
            self._go_on()

    def _commit_group(self) -> None:
        queue, exchange, append = self._queue, self._exchange, self._journal.append
        self._time_ns = time_ns = self.now_ns()
        self._group.clear()
        done: Group = []
        self._group = done
        group: Answers = []
        try:
            ends_ns = self._clock.mono_ns() + GROUP_NS_MAX
            if exchange.busy(time_ns):
                self._index = index = self._index + 1
                if events := exchange.decide(index, time_ns, Proceed(self._step)):
                    done.append((index, events))
                    append(index, time_ns, encode([self._sent_by(ENGINE), *events]), exchange.message)
                took_ns = self._clock.mono_ns() - ends_ns + GROUP_NS_MAX
                self._step = max(STEP_MIN, self._step // 2) if took_ns > STEP_NS_MAX else min(STEP_MAX, self._step + STEP_MIN)
                ends_ns += took_ns  # the step is not on the commands' account
            spent = 0
            for _ in range(min(len(queue), self._group_max)):
                if spent >= LOOK_EVERY:
                    if self._clock.mono_ns() > ends_ns:
                        break
                    spent = 0
                command, sender, asked, future = queue.popleft()
                if asked is not None and (known := self._repeated(asked, time_ns)) is not None:
                    group.append((future, known))
                    continue
                self._index = index = self._index + 1
                events = exchange.decide(index, time_ns, command)
                spent += 1 + len(events) // EVENTS_LIGHT
                done.append((index, events))
                one = Outcome(index, time_ns, events, done)
                group.append((future, one if asked is None else self._answered(one, asked)))
                if events:
                    append(index, time_ns, encode([self._sent_by(sender), *events]), exchange.message)
            began_ns = self._clock.mono_ns()
            records = self._journal.commit()
        except JournalRefused as error:
            self._take_back([future for future, _ in group], error)
            return
        self._commit_ms.observe((self._clock.mono_ns() - began_ns) / 1e6)
        self._sizes.observe(len(group))
        self._commands.inc(len(group))
        if records:
            self.on_written()
        if self._sync_s and records:
            loop = asyncio.get_running_loop()
            self._waiting = waiting = Waiting(group, records, self._clock.mono_ns(), loop.create_future())
            loop.call_later(self._sync_s, self._overdue, waiting)
        else:
            self._tell(group, records)

    def _tell(self, group: Answers, records: list[Record]) -> None:
        """Answer a group and show it to the listeners."""
        self.committed_index = self._index
        for future, outcome in group:
            if future.done():
                continue
            if isinstance(outcome, Outcome):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
                future.exception()  # who does not wait for it needs no warning
        if records:
            for listener in self._listeners:
                listener(records)

    def _repeated(self, asked: Asked, time_ns: int) -> Outcome | Exception | None:
        """Return what a key that is known gets, and one for which there is no room; None for a new one."""
        keys = self._exchange.state.keys
        kept = keys.kept.get(asked.key)
        if kept is None:
            return KeysFull(asked.key) if keys.full else None
        if kept.digest != asked.digest:
            return KeyReused(asked.key)
        return Outcome(kept.index, kept.time_ns, [], [], (kept.status, kept.body))

    def _answered(self, outcome: Outcome, asked: Asked) -> Outcome:
        """Return an outcome with its answer, which is in the record of what the command did."""
        status, body = asked.answer(outcome)
        used = KeyUsed(asked.key, asked.digest, outcome.time_ns, outcome.index, status, body)
        self._exchange.state.apply(used)
        outcome.events.append(used)
        return Outcome(outcome.index, outcome.time_ns, outcome.events, outcome.group, (status, body))

    def _sent_by(self, sender: str) -> SentBy:
        """Return the event that names a sender, made once."""
        found = self._senders.get(sender)
        if found is None:
            if len(self._senders) >= SENDERS_MAX:
                self._senders.clear()
            found = self._senders[sender] = SentBy(sender)
        return found

    # The standby

    def in_step(self, index: int) -> None:
        """Hear that the standby's disk has everything up to `index`: what waited for that is answered, commands are taken."""
        waiting = self._waiting
        if waiting is not None and index >= waiting.records[-1].command_index:
            self._waiting = None
            self._tell(*waiting[:2])
            waiting.done.set_result(None)
        if self._alone and self._waiting is None and index >= self._journal.last_index:
            self._alone = ""
            log.info("engine_standby_in_step", index=index)
        if self._waiting is None:
            self._go_on()

    def alone(self, why: str) -> None:
        """Hear that no standby is in step: without `sync_s` nothing changes, with it no command is taken until one is."""
        if self._sync_s and not self._alone:
            log.error("engine_without_standby", why=why)
            self._alone = why
            self._fail_waiting([future for *_, future in self._queue], NoStandby(why))
            self._queue.clear()

    def _overdue(self, waiting: Waiting) -> None:
        if self._waiting is not waiting:
            return
        what = f"the standby has not confirmed the disk's write within {self._sync_s:g} s"
        self.alone(what)
        again = "it is in the leader's journal only; ask again with the same clOrdID or Idempotency-Key, and it is done once"
        self._fail_waiting([future for future, _ in waiting.answers], NotReplicated(f"{what}: {again}"))
        waiting.answers.clear()

    def followed(self, records: Sequence[Record]) -> None:
        """Take note of records of the leader that this disk has and the state holds; show them to the listeners."""
        self._index = self.committed_index = records[-1].command_index
        self._time_ns = max(self._time_ns, records[-1].time_ns)
        for listener in self._listeners:
            listener(records)

    def lead(self, term: int, sync_s: float) -> None:
        """Take commands from now on. The journal, a copy until now, has the term's begin next.  Raises: JournalRefused.

        `sync_s` as at the start: above 0 commands are taken as soon as a standby of this engine is in step.
        """
        assert self.leader, "an engine leads once"
        index, time_ns, began = self._index + TERM_GAP, self.now_ns(), TermBegan(term)
        self._journal.own()
        self._journal.append(index, time_ns, encode([self._sent_by(ENGINE), began]))
        records = self._journal.commit()
        state = self._exchange.state
        state.apply(began)
        self._exchange = Exchange(self._messages, state)
        self._sync_s, self._alone = sync_s, "no standby has followed yet" if sync_s else ""
        self.followed(records)
        self.leader = ""
        self.on_written()
        self.proceed()

    def stop_leading(self, why: OperatorError) -> None:
        """Take no command any more, and answer none: another engine leads. The process ends with `why`."""
        waiting, self._waiting = self._waiting, None
        self._refuse(str(why))
        if waiting is not None:
            self._fail_waiting([future for future, _ in waiting.answers], NotReplicated(str(why)))
            waiting.done.cancel()
        self._ended = why
        if self._fatal is not None and not self._fatal.done():
            self._fatal.set_exception(why)

    def _fail_waiting(self, futures: Sequence[asyncio.Future[Outcome]], error: EngineUnavailable) -> None:
        self._refused.labels("unavailable").inc(len(futures))
        for future in futures:
            if not future.done():
                future.set_exception(error)
                future.exception()  # who does not wait for it needs no warning

    # The disk refuses

    def _take_back(self, futures: list[asyncio.Future[Outcome]], error: JournalRefused) -> None:
        log.error("journal_refused", error=str(error), fix=error.fix)
        self._doubtful = True
        self._refuse(str(error), futures)
        self._resuming = asyncio.get_running_loop().create_task(self._resume())

    def _refuse(self, why: str, futures: Sequence[asyncio.Future[Outcome]] = ()) -> None:
        """Fail what waits, and whatever comes until the refusal is lifted."""
        self._fault = why
        self._fail_waiting([*futures, *(future for *_, future in self._queue)], EngineUnavailable(why))
        self._queue.clear()

    async def _resume(self) -> None:
        """Rebuild the state once the disk takes writes again."""
        while not self._closed:
            await asyncio.sleep(RETRY_S)
            try:
                self._journal.take_back()
                self._journal.close()
                state, journal = await asyncio.to_thread(self._rebuild)
            except (JournalRefused, OSError) as error:
                self._fault = str(error)
                continue
            except Exception as error:
                log.exception("engine_rebuild_failed")
                if self._fatal is not None and not self._fatal.done():
                    self._fatal.set_exception(error)
                return
            self._exchange, self._journal = Exchange(self._messages, state), journal
            self._index = max(journal.last_index, self._index)  # an index that was given is not given again
            self._fault, self._doubtful = "", False
            log.info("engine_resumed", index=self._index)
            return


def _nothing() -> None:
    """Nobody wants to know."""
