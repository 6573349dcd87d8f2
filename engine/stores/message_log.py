"""Gives consumers the frames that follow an index: from memory while they are recent, from the journal when they are older.

A reader that asks for what follows an index gets every frame above it, once, in order, wherever it lies; what one reader
costs is bounded by one batch. A store begins at its creation and ends at its purged index: a reader that finds a frame purged
which it never had stops with `Purged`. Only committed records count; the journal is read up to the last one of those.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from engine.core import events as ev
from engine.core.state import Store
from engine.journal.format import Record
from engine.journal.reader import Tail, read
from engine.stores.message_window import FRAMES_BYTES_MAX, FRAMES_MAX, Backlog, Frame, Frames, Places

BATCH_FRAMES = 256
BATCH_BYTES = 1 << 20
TAILS_MAX = 4  # journal files that are open for readers; the others keep their place in it and no bytes
THREADS_MAX = 2  # readings of the journal at a time: some megabytes each


class Purged(Exception):
    """A frame that the reader never had is purged; `purged_index` is the end of what is gone."""

    def __init__(self, purged_index: int) -> None:
        super().__init__(f"purged up to {purged_index}")
        self.purged_index = purged_index


class StoreGone(Exception):
    """The reader's store was deleted."""


class MessageLog:
    """All that message stores hold. `restore` it before the engine takes commands, then feed it by `Sequencer.on_commit`."""

    def __init__(self, folder: Path, frames_max: int = FRAMES_MAX, bytes_max: int = FRAMES_BYTES_MAX) -> None:
        self.folder = folder
        self.committed_index = 0  # of the last record
        self.time_ns = 0  # of the last record
        self.message_index = 0  # of the last record with a frame
        self.purged: dict[str, int] = {}  # store → everything up to this index has been acknowledged
        self.readers: set[Reader] = set()
        self._limits = frames_max, bytes_max
        self._frames = Frames(0, *self._limits)
        self._places = Places()
        self._tails: OrderedDict[Reader, Tail] = OrderedDict()  # the last one was used last
        self._threads = asyncio.Semaphore(THREADS_MAX)

    def restore(self, stores: Iterable[Store], committed_index: int, message_index: int) -> None:
        """Take the stores of a recovered state and find their messages in the journal. Blocks: it reads what is unpurged.

        Raises: JournalDamaged.
        """
        self.purged = {store.store_id: store.purged_index for store in stores}
        floor = min(self.purged.values(), default=committed_index)
        self._frames, self._places = Frames(floor, *self._limits), Places()
        for record in read(self.folder, floor) if self.purged else ():
            if record.message and record.command_index <= committed_index:
                self._note(record)
        self.committed_index, self.message_index = committed_index, message_index

    def on_commit(self, records: Sequence[Record]) -> None:
        """Take a committed group. Cost: O(its messages + readers)."""
        heard = self.message_index
        for record in records:
            if record.message:
                self._note(record)
            if b"store." in record.payload:
                self._follow(record.payload)
        self.committed_index, self.time_ns = records[-1].command_index, records[-1].time_ns
        if self.message_index > heard:
            for reader in self.readers:
                reader.wake.set()

    def backlog(self, store_id: str) -> Backlog:
        """Return how many messages a store holds, and when the oldest came; of one just made, none. Cost: O(log messages)."""
        return self._places.after(self.purged[store_id]) if store_id in self.purged else Backlog(0, 0)

    def count(self, store_id: str, index: int) -> int:
        """Return how many of a store's messages lie at or below `index`; of old ones it may be 255 off. Cost: O(log messages)."""
        if store_id not in self.purged:
            return 0
        purged = self.purged[store_id]
        return max(0, self._places.after(purged).messages - self._places.after(max(index, purged)).messages)

    def last_message(self, index: int, purged_index: int) -> int:
        """Return the index of the last message up to `index`, `purged_index` when there is none above that.

        What is acknowledged is messages: up to an index without one a consumer that has the message before misses nothing.
        """
        return max(purged_index, self._places.last(index, purged_index))

    def reader(self, store_id: str, after_index: int) -> Reader:
        """Return a consumer of a store that has seen `after_index`; close it in the end.  Raises: StoreGone."""
        if store_id not in self.purged:
            raise StoreGone(store_id)
        reader = Reader(self, store_id, after_index)
        self.readers.add(reader)
        return reader

    def _note(self, record: Record) -> None:
        self._frames.add(record.command_index, record.message)
        self._places.add(record.command_index, record.time_ns)
        self.message_index = record.command_index

    def _follow(self, payload: bytes) -> None:
        """Take what a command did to stores; the bytes may also have meant something else."""
        before = dict(self.purged)
        for event in ev.decode(payload):
            if isinstance(event, ev.StoreCreated):
                self.purged[event.store_id] = event.after_index
            elif isinstance(event, ev.StorePurged):
                self.purged[event.store_id] = event.message_index
                self._overtake(event.store_id, event.message_index)
            elif isinstance(event, ev.StoreDeleted):
                del self.purged[event.store_id]
                for reader in self._of(event.store_id):
                    reader.end(StoreGone(event.store_id))
        if self.purged == before:
            return
        lowest = min(self.purged.values(), default=max(self.message_index, self.committed_index))
        self._frames.release(lowest)
        self._places.forget(lowest)

    def _overtake(self, store_id: str, purged_index: int) -> None:
        """End the readers for which frames were purged that they never had: somebody else acknowledged them."""
        for reader in self._of(store_id):
            if reader.position < purged_index and self._places.between(reader.position, purged_index):
                reader.end(Purged(purged_index))

    def _of(self, store_id: str) -> list[Reader]:
        return [reader for reader in self.readers if reader.store_id == store_id]

    # What readers need

    def recent(self, after_index: int) -> list[Frame] | None:
        """Return the next frames from memory, none at the end, or None when they have left it."""
        if after_index < self._frames.floor:
            return None
        return self._frames.after(after_index, BATCH_FRAMES, BATCH_BYTES)

    async def older(self, reader: Reader) -> list[Frame]:
        """Return the next frames from the journal and move the reader to where that reading ended; maybe none."""
        async with self._threads:
            tail = self._tails.pop(reader, None) or Tail(self.folder, reader.position)
            limit = self.committed_index  # what is written behind it may be taken back
            reading = asyncio.get_running_loop().run_in_executor(None, tail.take)
            try:
                records = await asyncio.shield(reading)
            except BaseException:
                reading.add_done_callback(lambda _: tail.close())  # a thread cannot be stopped: the file is its own until then
                raise
            # Its place in the file stays where it was while the reader is served from memory.
            fresh = [record for record in records if record.command_index > reader.position]
            known = [record for record in fresh if record.command_index <= limit]
            goes_on = len(known) == len(fresh) and len(records) > 0
            if reader in self.readers and goes_on:
                self._tails[reader] = tail
                if len(self._tails) > TAILS_MAX:
                    next(islice(reversed(self._tails.values()), TAILS_MAX, None)).pause()
            else:
                tail.close()
        if known and goes_on:
            reader.position = known[-1].command_index
        elif not goes_on:  # the end, or what is not committed
            reader.position = max(limit, reader.position)
        return [Frame(record.command_index, record.message) for record in known if record.message]

    def leave(self, reader: Reader) -> None:
        """Forget a reader."""
        self.readers.discard(reader)
        if (tail := self._tails.pop(reader, None)) is not None:
            tail.close()


class Reader:
    """One consumer's way through a store. Everything up to `position` was given out or is no message."""

    def __init__(self, log: MessageLog, store_id: str, after_index: int) -> None:
        self.store_id = store_id
        self.position = after_index
        self.seen = after_index  # the last frame that was given out
        self.wake = asyncio.Event()
        self._log = log
        self._ended: Exception | None = None

    def end(self, why: Exception) -> None:
        """Let `next` raise `why`, now and for ever."""
        self._ended = self._ended or why
        self.wake.set()

    async def next(self) -> list[Frame]:
        """Return the next frames, some at a time, at least one; wait for it if need be.

        Raises: Purged, StoreGone, JournalDamaged.
        """
        while self._ended is None:
            self.wake.clear()
            before = self.position
            frames = self._log.recent(before)
            if frames is None:
                frames = await self._log.older(self)
            elif frames:
                self.position = frames[-1].message_index
            else:
                self.position = max(before, self._log.committed_index)
                await self.wake.wait()
            if frames and self._ended is None:
                self.seen = frames[-1].message_index
                return frames
        raise self._ended

    def close(self) -> None:
        """Stop consuming."""
        self._log.leave(self)
