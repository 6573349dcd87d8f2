"""Tells callers what happens to their accounts, from a message store that the gateway keeps for this and nobody else.

The store is made with the first subscription, so that messages are built only for somebody; what is older than `RETAIN_S` is
purged, and the store goes when nobody has subscribed for as long. Within that time a subscription goes on after any `seq`, over
a restart of the exchange too.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from engine.core.commands import ConfigureStore, CreateStore, DeleteStore, PurgeStore
from engine.core.exchange import AGE_MS_MAX
from engine.gateway.problems import Refused
from engine.gateway.trade_frames import TOLD, Told, Update
from engine.journal.sequencer import EngineBusy, EngineUnavailable, Sequencer
from engine.stores.message_log import MessageLog, Reader
from engine.stores.message_window import Frame
from engine.stores.rules import start
from service.clock import Clock

STORE = "v1/trade"
RETAIN_S = 600.0
LOOK_S = 5.0
PARSED_MAX = 1_024  # of the newest frames; all subscriptions share them


class PrivateStreams:
    """The subscriptions of all WebSockets."""

    def __init__(self, sequencer: Sequencer, messages: MessageLog, clock: Clock, retain_s: float = RETAIN_S) -> None:
        self._sequencer = sequencer
        self._messages = messages
        self._clock = clock
        self._retain_ns = int(retain_s * 1e9)
        self._parsed: OrderedDict[int, Told] = OrderedDict()
        self._marks: deque[tuple[int, int]] = deque()  # time and last message then, of every look
        self._wanted_ns = clock.mono_ns()  # when there was a subscription last

    async def open(self, last_seq: int | None) -> Reader:
        """Return what follows `last_seq`, or what comes from now on.  Raises: Refused when messages after it are gone."""
        self._wanted_ns = self._clock.mono_ns()
        state = self._sequencer.state
        if STORE not in state.stores:
            if last_seq is not None:
                raise _gone(f"nothing before command {self._sequencer.committed_index} is kept")
            await self._sequencer.submit(CreateStore(STORE))
            await self._sequencer.submit(ConfigureStore(STORE, AGE_MS_MAX))
        await self._sequencer.settled()  # what is shown of the accounts is of this index
        now = self._sequencer.committed_index
        after: int | str = now
        if last_seq is not None:
            store = self._sequencer.state.stores.get(STORE)
            after = start(store, last_seq, now) if store else "nothing is kept"
        if isinstance(after, str):
            raise _gone(after)
        return self._messages.reader(STORE, after)

    def update(self, frame: Frame, accounts: frozenset[int], prev_seq: int) -> Update | None:
        """Return what a message tells these accounts, None when it is nothing."""
        told = self._parsed.get(frame.message_index)
        if told is None:
            told = self._parsed[frame.message_index] = TOLD.decode(frame.data)
            if len(self._parsed) > PARSED_MAX:
                self._parsed.popitem(last=False)
        executions = [one for group in told.executions for one in group if one.account in accounts]
        transactions = [one for one in told.account_transactions if one.account in accounts]
        if not executions and not transactions:
            return None
        return Update(
            seq=frame.message_index, prev_seq=prev_seq, timestamp=told.timestamp, executions=executions,
            account_transactions=transactions,
        )  # fmt: skip

    async def run(self) -> None:
        """Purge what is too old, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Submit what is due: a purge, or the end of a store that nobody has used for long."""
        if self._sequencer.refusal:
            return
        now_ns, store = self._clock.mono_ns(), self._sequencer.state.stores.get(STORE)
        if any(reader.store_id == STORE for reader in self._messages.readers):
            self._wanted_ns = now_ns
        if store is None:
            self._marks.clear()
            return
        self._marks.append((now_ns, self._messages.message_index))
        purged = store.purged_index
        while self._marks and now_ns - self._marks[0][0] >= self._retain_ns:
            purged = max(purged, self._marks.popleft()[1])
        try:
            if now_ns - self._wanted_ns >= self._retain_ns:
                self._sequencer.submit(DeleteStore(STORE))
            elif purged > store.purged_index:
                self._sequencer.submit(PurgeStore(STORE, purged))
        except (EngineBusy, EngineUnavailable):
            return  # the next look does it


def _gone(why: str) -> Refused:
    return Refused(410, "MessagesGone", f"The subscription cannot go on after lastSeq: {why}. Subscribe without it.")
