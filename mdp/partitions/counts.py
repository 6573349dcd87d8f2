"""Defines what a partition counts since its cache began."""

from __future__ import annotations

import msgspec


class Counts(msgspec.Struct):
    """What happened to a partition since its cache began; they survive hand-overs with the checkpoint. All in events.

    The keys of the dicts are `source/stream`; of `unknown` the types; of `discarded` the reasons, in events:
    bad, time_ahead, time_behind, no_room, misplaced, failed (dead letters), earlier_run, earlier_day (trades), repeated
    (articles), and late_bar (of each width).
    `bad` counts the dead letters, `forgotten` the symbols that were not traded any more.
    """

    events: dict[str, int] = {}
    expired: dict[str, int] = {}
    dropped: dict[str, int] = {}
    fenced: dict[str, int] = {}
    redelivered: int = 0
    bad: int = 0
    malformed_batches: int = 0
    unreadable_cells: int = 0
    unknown: dict[str, int] = {}
    discarded: dict[str, int] = {}
    forgotten: int = 0
