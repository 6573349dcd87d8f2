"""Deals what the partitions of a deployment remember out to another number of partitions. Pure.

Invariant: a cell of a symbol goes, unchanged, to the partition that the symbol has in the new layout; what partitions know in
common (how far the sources were read, runs, days) is the same in all new ones; the counts add up to what they were.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from mdc.channels import OWN_KIND
from mdp import roster
from mdp.days.calendar import Calendars
from mdp.leader.status import add_up
from mdp.partitions import ahead
from mdp.partitions.counts import Counts
from mdp.partitions.reading import VERSION
from mdp.partitions.runs import Runs
from mdp.plugins.host import Tally
from mdq.gaps import Position
from mdq.topology import PARTITIONED
from service.partition import partition_of

SYMBOL_CELLS = (*(f"{analyzer.name}:" for analyzer in roster.build(roster.ANALYZERS, {}, 1)), "heard:")
PLUGIN_CELL = re.compile(f"(?:own|ownlog):{OWN_KIND.pattern}:")  # of a symbol; which plug-ins there are nobody has to know here
PLUGIN = "plugin:"  # what a partition remembers of a plug-in
OWN_CELLS = ("version", "life", "flush", "floor", "counts", "runs", "lags", ahead.FIELD)
POSITION = "position:"
Run = tuple[str, int]
Row = tuple[float, str, msgspec.Raw]  # of a partition's share of a board: rank, symbol, row


class UnreadableCell(ValueError):
    """A cell that belongs to no symbol, and that cannot be read."""


def symbol_of(cell: str) -> str:
    """Return whose cell of a checkpoint this is: a symbol, `@…` for a calendar, "" for the partition's own."""
    if (plugin := PLUGIN_CELL.match(cell)) is not None:
        return cell[plugin.end() :]
    for prefix in SYMBOL_CELLS:
        if cell.startswith(prefix):
            return cell[len(prefix) :].partition("|")[0]
    return ""


@dataclass(slots=True)
class Own:
    """What one partition knows beside its symbols. `days` = calendar's cell → its newest event (ms)."""

    version: int = VERSION
    life: str = ""
    flush: int = 0
    floor: int = 0
    counts: Counts = field(default_factory=Counts)
    runs: dict[str, Run] = field(default_factory=dict)
    days: dict[str, int] = field(default_factory=dict)
    positions: dict[tuple[str, str], Position] = field(default_factory=dict)
    plugins: dict[str, Tally] = field(default_factory=dict)  # cell → what it remembers of a plug-in
    ahead: dict[tuple[str, str], Position] = field(default_factory=dict)  # how far symbols that are ahead have got

    @classmethod
    def read(cls, cells: Mapping[str, bytes]) -> Own:
        """Read the cells of a checkpoint that belong to no symbol.  Raises: UnreadableCell."""
        own = cls()
        for name, value in cells.items():
            try:
                if value:
                    own._take(name, value)
            except (ValueError, UnicodeDecodeError) as error:
                raise UnreadableCell(f"the cell {name} cannot be read: {error}") from None
        return own

    def _take(self, name: str, value: bytes) -> None:
        if name.startswith(POSITION):
            source, slash, stream = name.removeprefix(POSITION).partition("/")
            if slash:
                self.positions[source, stream] = msgspec.json.decode(value, type=Position)
        elif symbol_of(name).startswith("@"):
            self.days[name] = int(value)
        elif name.startswith(PLUGIN):
            self.plugins[name] = msgspec.json.decode(value, type=Tally)
        elif name == "counts":
            self.counts = msgspec.json.decode(value, type=Counts)
        elif name == "runs":
            known = Runs()
            known.restore(value)
            self.runs = known.newest()
        elif name in ("version", "flush", "floor"):
            setattr(self, name, int(value))
        elif name == "life":
            self.life = value.decode()
        elif name == ahead.FIELD:
            self.ahead = {(source, stream): at for source, stream, at in ahead.places(value)}
        elif name != "lags":  # of a feed's clock: the next events say it anew
            raise ValueError("this version knows none of that name")

    def lost_behind(self) -> dict[str, int]:
        """Return `source/stream` → events that only the symbols ahead have had, and that nobody gets again."""
        found = {}
        for (source, stream), at in self.ahead.items():
            safe = self.positions.get((source, stream), Position("", 0))
            if safe.epoch == at.epoch and at.seq > safe.seq:
                found[f"{source}/{stream}"] = at.seq - safe.seq
        return found


def is_own(cell: str) -> bool:
    """Return whether a cell belongs to no symbol."""
    symbol = symbol_of(cell)
    return not symbol or symbol.startswith("@")


def newest_runs(owns: Iterable[Own]) -> dict[str, Run]:
    """Return source → the newest run that one of the partitions has seen."""
    found: dict[str, Run] = {}
    for own in owns:
        for source, run in own.runs.items():
            found[source] = max(found.get(source, run), run)
    return found


def newest_days(owns: Iterable[Own], runs: Mapping[str, Run]) -> dict[str, int]:
    """Return calendar's cell → the newest event that a partition in the newest run of its source has seen."""
    found: dict[str, int] = {}
    for own in owns:
        for cell, newest_ms in own.days.items():
            source = calendar_of(cell).partition("|")[0].partition("/")[0]  # a queue of a source has calendars of its own
            if own.runs.get(source) == runs.get(source):
                found[cell] = max(found.get(cell, 0), newest_ms)
    return found


def is_behind(own: Own, runs: Mapping[str, Run], days: Mapping[str, int]) -> bool:
    """Return whether a partition's symbols stand in an earlier run, session or day than those of others."""
    calendars = Calendars()
    for cell, newest_ms in own.days.items():
        calendars.restore(f"@{calendar_of(cell)}", b"%d" % newest_ms)
    return any(runs[source] != run for source, run in own.runs.items()) or bool(calendars.behind(by_calendar(days)))


def by_calendar(days: Mapping[str, int]) -> dict[str, int]:
    """Return calendar → newest event, from the cells of all analyzers that have it."""
    found: dict[str, int] = {}
    for cell, newest_ms in days.items():
        found[calendar_of(cell)] = max(found.get(calendar_of(cell), 0), newest_ms)
    return found


def calendar_of(cell: str) -> str:
    """Return the name of the calendar whose cell this is."""
    return cell.partition("@")[2]


def common_cells(owns: list[Own]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the own cells of every new partition but the first, and those of the first, which has the counts.

    All partitions stand in the same runs and days already.  Nobody is ahead any more: what was not read is lost, and counted.
    """
    flush, floor = (max((getattr(own, name) for own in owns), default=0) for name in ("flush", "floor"))
    lives, runs = {own.life for own in owns if own.life}, Runs()
    runs.catch_up(newest_runs(owns))
    shared = {
        "version": b"%d" % VERSION,
        "life": (lives.pop() if len(lives) == 1 else "").encode(),
        "flush": b"%d" % flush,
        "floor": b"%d" % floor,
        "runs": runs.cell(),
        "counts": msgspec.json.encode(Counts()),
    }
    shared |= {cell: b"%d" % newest_ms for cell, newest_ms in newest_days(owns, runs.newest()).items()}
    first: dict[str, bytes] = {}
    for cell in sorted({cell for own in owns for cell in own.plugins}):
        shared[cell], first[cell] = _plugin_cells([own.plugins.get(cell) for own in owns])
    for (source, stream), at in _furthest(owns).items():
        (shared if stream in PARTITIONED else first)[f"{POSITION}{source}/{stream}"] = msgspec.json.encode(at)
    return shared, shared | first | {"counts": encoded_counts(owns)}


def _plugin_cells(tallies: Iterable[Tally | None]) -> tuple[bytes, bytes]:
    """Return what the new partitions remember of a plug-in: the first, which has the counts of events, all that was missed."""
    known = [tally for tally in tallies if tally is not None]
    first = Tally(*(sum(getattr(tally, name) for tally in known) for name in Tally.__struct_fields__))
    return msgspec.json.encode(Tally()), msgspec.json.encode(first)


def encoded_counts(owns: Iterable[Own]) -> bytes:
    """Return what all partitions have counted, with what is lost behind the symbols ahead."""
    owns = list(owns)
    behind = [Counts(expired=own.lost_behind()) for own in owns]
    return msgspec.json.encode(add_up([*(own.counts for own in owns), *behind]))


def _furthest(owns: Iterable[Own]) -> dict[tuple[str, str], Position]:
    """Return how far a publisher was read that speaks no more: its epoch fences it off, and the next one counts from 0."""
    found: dict[tuple[str, str], Position] = {}
    for own in owns:
        for places in (own.positions, own.ahead):
            for key, at in places.items():
                known = found.get(key)
                if known is None or (at.epoch, at.seq) > (known.epoch, known.seq):
                    found[key] = at
    return found


def deal_shares(shares: Iterable[bytes], partitions: int) -> dict[int, bytes]:
    """Return new partition → its share of a board: together they rank what the old shares did."""
    dealt: defaultdict[int, list[Row]] = defaultdict(list)
    for body in shares:
        for row in msgspec.json.decode(body, type=list[Row]):
            dealt[partition_of(row[1], partitions)].append(row)
    return {number: msgspec.json.encode(sorted(rows, key=lambda row: (-row[0], row[1]))) for number, rows in dealt.items()}
