"""Makes the Redis entries of journal records that Redis still lacks: nothing missing, nothing twice, one chain.

`engine_events` has one entry a record, id `{index}-0`: `time` (ns), `events` (the record's payload), `event` (the same as JSON,
for people), `message` (the frame), `chain` and `prev` (hex, of this record's group and the one before), `group` (first and last
index of the group, `7-9`: only whole groups make a journal again). `events_stream` has one entry a trade, id `{index}-{n}`, n
from 0 within its command: `event`, JSON of `Trade`. The ids are the journal's, so whatever Redis says that it holds tells what
to go on with.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from engine.core.commands import SIDE_NAMES, Instrument
from engine.core.events import Traded, decode
from engine.core.units import iso
from engine.journal.format import Record
from service.errors import OperatorError

EVENTS_STREAM, TRADES_STREAM = "engine_events", "events_stream"
TRADED = b"trade.executed"  # stands in the payload of every record with a trade
BATCH_RECORDS, BATCH_RECORDS_MAX = 128, 1024  # a millisecond of the event loop; more only while the engine is faster
BATCH_BYTES = 1 << 20
RECORD_BYTES = 400  # what a record in memory needs besides its bytes
FIX = (
    "Stop the engine and give it its own journal back, or another database in ENGINE_STREAMS_URL; or, when nobody needs what is "
    f"there, delete the keys {EVENTS_STREAM} and {TRADES_STREAM}: the streams then begin again by themselves"
)

# Compare and append: what was written is exactly what these two streams were known to end with, or nothing is written. So two
# writers, an emptied Redis, and a batch that comes late from a connection given up long ago can make neither gap nor disorder.
APPEND = """
local function last(key)
  if redis.call('EXISTS', key) == 0 then return '' end
  local info = redis.call('XINFO', 'STREAM', key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      if info[i + 1] == '0-0' then return '' end
      return info[i + 1]
    end
  end
end
if last(KEYS[1]) ~= ARGV[1] or last(KEYS[2]) ~= ARGV[2] then return 0 end
local at, trades = 6, tonumber(ARGV[5])
for _ = 1, trades do
  redis.call('XADD', KEYS[2], ARGV[at], 'event', ARGV[at + 1])
  at = at + 2
end
while at <= #ARGV do
  redis.call('XADD', KEYS[1], ARGV[at], 'time', ARGV[at + 1], 'events', ARGV[at + 2], 'event', ARGV[at + 3],
    'message', ARGV[at + 4], 'chain', ARGV[at + 5], 'prev', ARGV[at + 6], 'group', ARGV[at + 7])
  at = at + 8
end
if trades > 0 and ARGV[4] ~= '0' then redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[4]) end
if ARGV[3] ~= '' then redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[3]) end
return 1
"""

StreamId = tuple[int, int]
NOTHING: StreamId = (-1, 0)
GROUP_SPAN_MAX = 10_000  # indices of one group: the first ones of a group are kept while the last one is needed
STARTS_MAX, FORGET_MIN = 200_000, 1_000  # first indices of groups that are remembered for that; few are not worth moving a list


class ForeignStream(OperatorError):
    """Redis holds the stream of another journal, or this journal has lost what Redis holds."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The streams in Redis do not belong to this journal: {what}", FIX, exit_code=3)


class SeamBroken(Exception):
    """The channel does not go on where it was left: the journal has records in between."""


class Trade(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A trade for other services. `price` in price units, `size` in contracts; ticks and lots as the journal has them."""

    trade_id: str
    symbol: str
    price: float
    price_ticks: int
    size: int
    size_lots: int
    taker_order_id: str
    maker_order_id: str
    taker_side: str
    timestamp: str
    message_index: int


class Held(NamedTuple):
    """What Redis holds: the last ids ever given, and the last entries that are still there (`entry` -1, `trade` b"": none)."""

    events: int = NOTHING[0]
    entry: int = -1
    chain: bytes = b""
    trades: StreamId = NOTHING
    trade: bytes = b""

    @property
    def last_events_id(self) -> str:
        return f"{self.events}-0" if self.events >= 0 else ""

    @property
    def last_trades_id(self) -> str:
        return id_text(self.trades) if self.trades >= (0, 0) else ""


def id_text(entry_id: StreamId) -> str:
    """Return an id as Redis writes it."""
    return f"{entry_id[0]}-{entry_id[1]}"


def parse_id(text: bytes | str) -> StreamId:
    """Return an id of Redis as numbers."""
    index, _, number = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(index), int(number or 0)


def resume_after(held: Held, oldest_snapshot: int, written: Held | None) -> int:
    """Return the index above which records are needed. `written` is what this process knows to be there, None at its start.

    An emptied stream begins again behind the oldest snapshot: that is what a recovery from the stream needs. A stream of trades
    that ends before the other one may lack some or there were none: at the start nobody knows, so the journal is asked.
    """
    if held.events < 0:
        return oldest_snapshot
    if written is not None and held.events >= written.events and held.trades >= written.trades:
        return held.events
    return min(held.events, max(held.trades[0] - 1, oldest_snapshot))


class Course:
    """The way of the journal's records past what Redis holds: proves that both have one history, and keeps the chain.

    `rewind` tells where a reader must start and `begin` where it did; then `needed` takes every record from there on, in
    order, and `end` comes when the journal has no more. `join` is for groups that do not come from the reader.
    """

    def __init__(self, held: Held, after: int, committed: int) -> None:
        self.after = after  # records up to here are not needed
        self.gap = False  # what Redis lacks before the journal's beginning cannot be had any more
        self._held = held
        self._chain = b""
        self._passed: tuple[int, bytes] | None = None  # the last record of all: its index and chain
        self._proof: tuple[int, bytes] | None = (held.entry, held.chain) if held.entry >= 0 else None
        self._trade: StreamId | None = held.trades if held.trade else None
        if held.events > committed or held.trades[0] > committed:
            ahead = max(held.events, held.trades[0])
            raise ForeignStream(f"it holds index {ahead}, and the journal ends at {committed}")

    def rewind(self) -> int:
        """Return the lowest index that a new reader must show: the last entry, or what was read last, is compared again."""
        self._proof = self._proof or self._passed
        return min(self.after + 1, self._proof[0]) if self._proof is not None else self.after + 1

    def begin(self, first_index: int, chain: bytes) -> None:
        """A reader shows every record from `first_index` on, which may be above what was asked for; `chain` is the one before.

        Raises: ForeignStream.
        """
        self._chain = chain
        if self._trade is not None and self._trade[0] < first_index:
            self._trade = None
        if self._proof is None or self._proof[0] >= first_index:
            return
        if chain != self._proof[1]:
            if first_index == self._proof[0] + 1:
                raise ForeignStream(f"after index {self._proof[0]} the chain is another one")
            self.gap = True
        self._proof = None

    def join(self, group: Sequence[Record]) -> list[Record]:
        """Return the records of a committed group; what the reader has shown already is passed over.

        A group need not follow the one before: after a refused write the journal may keep a whole group that nobody was told of.
        Raises: SeamBroken.
        """
        fresh = [record for record in group if record.command_index > self.after]
        if fresh:
            index, link = fresh[0].command_index, fresh[0].link
            if self._chain != (link.before if index == link.first_index else link.chain):
                raise SeamBroken(f"record {index} does not follow {self.after}")
        return self.needed(fresh)

    def needed(self, records: Iterable[Record]) -> list[Record]:
        """Return those of the next records that Redis needs.  Raises: ForeignStream."""
        found: list[Record] = []
        for record in records:
            if self._proof is not None:
                self._prove(record)
            if self._trade is not None:
                self._prove_trade(record)
            if record.command_index > self.after:
                found.append(record)
                self.after = record.command_index
            self._chain = record.chain
            self._passed = (record.command_index, record.chain)
        return found

    def end(self) -> None:
        """The journal has been read to its end.  Raises: ForeignStream."""
        if self._proof is not None:
            raise ForeignStream(f"the journal has no record {self._proof[0]}")
        if self._trade is not None:
            raise ForeignStream(f"the journal has no trade {id_text(self._trade)}")

    def _prove(self, record: Record) -> None:
        assert self._proof is not None
        index, chain = self._proof
        if record.command_index < index:
            return
        if record.command_index > index:
            raise ForeignStream(f"the journal has no record {index}")
        if record.chain != chain:
            raise ForeignStream(f"at index {index} the chain is another one")
        self._proof = None

    def _prove_trade(self, record: Record) -> None:
        """Compare the last trade in Redis with the journal's: one of another journal would hide ours."""
        assert self._trade is not None
        index, number = self._trade
        if record.command_index < index:
            return
        events = decode(record.payload) if record.command_index == index else []
        trades = [event for event in events if isinstance(event, Traded)]
        if number >= len(trades) or not _is_same(trades[number], self._held.trade):
            raise ForeignStream(f"the journal has no trade {id_text(self._trade)} like the one there")
        self._trade = None


def _is_same(trade: Traded, json: bytes) -> bool:
    try:
        there = msgspec.json.decode(json, type=Trade)
    except msgspec.DecodeError:
        return False
    here = (str(trade.trade_id), str(trade.taker_id), str(trade.maker_id), trade.price_ticks, trade.size_lots)
    return here == (there.trade_id, there.taker_order_id, there.maker_order_id, there.price_ticks, there.size_lots)


class Batch(NamedTuple):
    """One call of `APPEND`, and what Redis holds after it. `used` records are in it."""

    arguments: list[Any]
    held: Held
    used: int


class Entries:
    """Makes batches. `instrument` gives the terms of a symbol; with `readable` every entry has its events as JSON, too."""

    def __init__(self, instrument: Callable[[str], Instrument], readable: bool = True, trades_max: int = 1_000_000) -> None:
        self._instrument = instrument
        self._readable = readable
        self._trades_max = trades_max
        self._ratios: dict[str, tuple[int, int]] = {}
        self._stamp = (-1, "")
        self._encode = msgspec.json.Encoder().encode
        self._starts: list[int] = []  # of groups that were written, rising

    def batch(self, records: Sequence[Record], held: Held, keep_from: int) -> Batch:
        """Return a batch of all records or of `BATCH_BYTES` and a little.

        The groups that reach index `keep_from` are not trimmed. A record that Redis has (its trades may be missing) makes no
        entry. Without records it only compares and trims.
        """
        trades: list[Any] = []
        entries: list[Any] = []
        last, last_trade, chain = held.events, held.trades, held.chain
        used = bytes_ = 0
        for index, time_ns, payload, message, link in records:
            json = b""
            if self._readable or TRADED in payload:
                events = decode(payload)
                if self._readable:
                    json = self._encode(events)
                done = [event for event in events if type(event) is Traded]
                for number, event in enumerate(done):
                    if (index, number) > last_trade:
                        trades += f"{index}-{number}", self._encode(self._trade(event, index, time_ns))
                        last_trade = index, number
            if index > last:
                group = f"{link.first_index}-{link.last_index}"
                if index == link.first_index and len(self._starts) < STARTS_MAX:
                    self._starts.append(index)
                entries += f"{index}-0", time_ns, payload, json, message, link.chain.hex(), link.before.hex(), group
                last, chain = index, link.chain
            used += 1
            bytes_ += len(payload) + len(message) + len(json)
            if bytes_ > BATCH_BYTES:
                break
        oldest = self._group_start(min(keep_from, last))
        keep = f"{oldest}-0" if oldest > 0 else ""
        arguments = [held.last_events_id, held.last_trades_id, keep, self._trades_max, len(trades) // 2, *trades, *entries]
        return Batch(arguments, Held(last, last, chain, last_trade), used)

    def _group_start(self, index: int) -> int:
        """Return the first index of the group that reaches `index`, or one below that when nobody remembers."""
        at = bisect_right(self._starts, index)
        if at > FORGET_MIN:
            del self._starts[: at - 1]
            at = 1
        return self._starts[at - 1] if at else index - GROUP_SPAN_MAX

    def _trade(self, event: Traded, index: int, time_ns: int) -> Trade:
        ratio = self._ratios.get(event.symbol)
        if ratio is None:
            ratio = self._ratios[event.symbol] = Decimal(self._instrument(event.symbol).tick_size).as_integer_ratio()
        if self._stamp[0] != time_ns // 1_000_000:
            self._stamp = time_ns // 1_000_000, iso(time_ns)
        return Trade(
            trade_id=str(event.trade_id), symbol=event.symbol, price=event.price_ticks * ratio[0] / ratio[1],
            price_ticks=event.price_ticks, size=event.size_lots, size_lots=event.size_lots, taker_order_id=str(event.taker_id),
            maker_order_id=str(event.maker_id), taker_side=SIDE_NAMES[event.taker_side], timestamp=self._stamp[1],
            message_index=index,
        )  # fmt: skip


class Pace:
    """How many records go into a batch: few, so that the loop is not held up, unless what is missing in Redis grows."""

    def __init__(self) -> None:
        self.records = BATCH_RECORDS
        self._lag = 0

    def written(self, lag: int) -> None:
        """A batch was written, and this many records are missing."""
        grown = lag > self._lag
        self.records = min(self.records * 2, BATCH_RECORDS_MAX) if grown else max(self.records // 2, BATCH_RECORDS)
        self._lag = lag


class Channel:
    """The bounded way from the engine's commits to the sink: `put` never waits; a full channel empties and closes itself."""

    def __init__(self, records_max: int, bytes_max: int) -> None:
        self.open = False
        self.last_index = -1  # of all that was ever put, taken or not
        self._limits = records_max, bytes_max
        self._groups: deque[Sequence[Record]] = deque()
        self._records = self._bytes = 0

    def __len__(self) -> int:
        """Return how many records are in it."""
        return self._records

    def reopen(self) -> None:
        """Empty it and take what comes from now on."""
        self.close()
        self.open = True

    def close(self) -> None:
        """Empty it and take nothing."""
        self._groups.clear()
        self._records = self._bytes = 0
        self.open = False

    def put(self, records: Sequence[Record]) -> bool:
        """Take a committed group, if open; return False when it did not fit: then it is closed, and everything in it dropped."""
        self.last_index = records[-1].command_index
        if not self.open:
            return True
        self._groups.append(records)
        self._records += len(records)
        self._bytes += sum(map(_bytes_of, records))
        if self._records <= self._limits[0] and self._bytes <= self._limits[1]:
            return True
        self.close()
        return False

    def take(self, most: int) -> list[Sequence[Record]]:
        """Return the oldest groups and forget them: `most` records and the rest of the last group."""
        taken: list[Sequence[Record]] = []
        count = 0
        while self._groups and count < most:
            group = self._groups.popleft()
            taken.append(group)
            count += len(group)
            self._bytes -= sum(map(_bytes_of, group))
        self._records -= count
        return taken


def _bytes_of(record: Record) -> int:
    return len(record.payload) + len(record.message) + RECORD_BYTES
