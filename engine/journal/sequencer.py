"""Gives the commands of all senders one sequence and journals them in groups; an answer means that the disk has it.

One event loop, one writer: what was submitted while the loop was busy forms a group, the group is decided, written with one
fdatasync, and only then are its futures done and its records shown to the listeners. The loop itself waits for the disk, so
that nobody, not even a reader of `state`, can see what is not in the journal. A group begins with a step of what commands have
left to be done; while there is some, one group follows the other, and whatever comes meanwhile is in between.

When the disk refuses a group nobody is told it happened: its commands fail, no more are taken, the state is rebuilt from the
journal, and service resumes as soon as the disk takes a write again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import structlog

from engine.core.commands import Command, Instrument, Proceed
from engine.core.events import Event, KeyUsed, SentBy, encode
from engine.core.exchange import BuildMessages, Exchange
from engine.core.state import State
from engine.journal.format import Record
from engine.journal.journal import Journal, JournalRefused
from service import metrics
from service.clock import Clock, SystemClock

QUEUE_MAX = 10_000
GROUP_MAX = 256
GROUP_NS_MAX = 5_000_000  # a group that took so long to decide is written: nobody waits for many heavy commands of others
LOOK_EVERY = 4  # commands between two looks at the clock
STEP_NS_MAX = 4_000_000  # a step of what commands have left becomes smaller when it takes longer
STEP_MIN, STEP_MAX = 16, 512  # events
RETRY_S = 0.5
ENGINE = "engine"  # sends what nobody else sends: ticks, suspensions for a store
SENDERS_MAX = 1_000
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


class Sequencer:
    """Gives every command its index and time. `rebuild` recovers state and journal from the disk; it runs in a thread."""

    def __init__(
        self, state: State, journal: Journal, rebuild: Rebuild, messages: BuildMessages, clock: Clock | None = None,
        queue_max: int = QUEUE_MAX, group_max: int = GROUP_MAX, time_ns: int = 0,
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
        self._fatal: asyncio.Future[None] | None = None
        self._time_ns = time_ns  # of the last command; never goes back, over restarts neither
        self._index = max(journal.last_index, FIRST_INDEX - 1)  # the last one given
        self.refusal = ""  # why no command is taken now
        self._step = STEP_MIN
        self._doubtful = False  # the state holds commands that the journal refused
        self.committed_index = self._index
        self._commands = metrics.counter("engine", "commands", "Commands decided and journaled")
        self._sizes = metrics.histogram("engine", "group_commands", "Commands a group, one fdatasync each", buckets=SIZES)
        self._commit_ms = metrics.histogram("engine", "commit_ms", "Time of writing a group, fdatasync included")
        self._depth = metrics.gauge("engine", "queue_commands", "Commands waiting to be decided")
        self._refused = metrics.counter("engine", "refused", "Commands not taken", ["why"])

    @property
    def state(self) -> State:
        """The state of all committed commands. To be read, and not to be kept over an await.

        Raises: EngineUnavailable while it holds what the journal refused, until it is rebuilt: nobody may answer from it.
        """
        if self._doubtful:
            raise EngineUnavailable(self.refusal)
        return self._exchange.state

    @property
    def doubtful(self) -> bool:
        """Whether the state cannot be read now because it is being rebuilt."""
        return self._doubtful

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
            raise EngineUnavailable(self.refusal)
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
        self._fatal = asyncio.get_running_loop().create_future()
        await self._fatal

    async def close(self) -> None:
        """Write what is queued, then take no more commands and let go of the journal."""
        while self._queue and not self.refusal:
            self._run()
        self._refuse("the engine is stopping")
        self._closed = True
        if self._resuming is not None:
            await self._resuming
        self._journal.close()

    def _run(self) -> None:
        """Decide and write one group; what else waits is the next turn's, so that sockets are served in between."""
        self._scheduled = False
        if self.refusal:
            return
        try:
            self._commit_group()
        except Exception as error:
            self._refuse(f"a broken invariant: {error!r}")
            log.exception("engine_invariant_broken", index=self._index)
            if self._fatal is None or self._fatal.done():
                raise
            self._fatal.set_exception(error)
        if (self._queue or self._has_work()) and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)
        self._depth.set(len(self._queue))

    def _has_work(self) -> bool:
        return not self.refusal and self._exchange.busy(self.now_ns())

    def proceed(self) -> None:
        """Go on with what a command before the start has left to be done, or what time has brought; at once if need be.

        From then on each group of commands takes a step of it.
        """
        if self._has_work() and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _commit_group(self) -> None:
        queue, exchange, append = self._queue, self._exchange, self._journal.append
        self._time_ns = time_ns = self.now_ns()
        self._group.clear()
        done: Group = []
        self._group = done
        group: list[tuple[asyncio.Future[Outcome], Outcome | Exception]] = []
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
            for number in range(min(len(queue), self._group_max)):
                if number % LOOK_EVERY == 0 and self._clock.mono_ns() > ends_ns:
                    break
                command, sender, asked, future = queue.popleft()
                if asked is not None and (known := self._repeated(asked, time_ns)) is not None:
                    group.append((future, known))
                    continue
                self._index = index = self._index + 1
                events = exchange.decide(index, time_ns, command)
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

    # The disk refuses

    def _take_back(self, futures: list[asyncio.Future[Outcome]], error: JournalRefused) -> None:
        log.error("journal_refused", error=str(error), fix=error.fix)
        self._doubtful = True
        self._refuse(str(error), futures)
        self._resuming = asyncio.get_running_loop().create_task(self._resume())

    def _refuse(self, why: str, futures: Sequence[asyncio.Future[Outcome]] = ()) -> None:
        """Fail what waits, and whatever comes until the refusal is lifted."""
        self.refusal = why
        waiting = [*futures, *(future for *_, future in self._queue)]
        self._queue.clear()
        self._refused.labels("unavailable").inc(len(waiting))
        for future in waiting:
            if not future.done():
                future.set_exception(EngineUnavailable(why))
                future.exception()  # who does not wait for it needs no warning

    async def _resume(self) -> None:
        """Rebuild the state once the disk takes writes again."""
        while not self._closed:
            await asyncio.sleep(RETRY_S)
            try:
                self._journal.take_back()
                self._journal.close()
                state, journal = await asyncio.to_thread(self._rebuild)
            except (JournalRefused, OSError) as error:
                self.refusal = str(error)
                continue
            except Exception as error:
                log.exception("engine_rebuild_failed")
                if self._fatal is not None and not self._fatal.done():
                    self._fatal.set_exception(error)
                return
            self._exchange, self._journal = Exchange(self._messages, state), journal
            self._index = max(journal.last_index, self._index)  # an index that was given is not given again
            self.refusal, self._doubtful = "", False
            log.info("engine_resumed", index=self._index)
            return
