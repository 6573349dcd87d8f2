"""Rules of message stores: where a consumer goes on, what is a gap, what suspends trading and what lifts that. Pure.

A store's reason to suspend is `store:<id>`; the operators' is `manual`. Catching up lifts the store's own and never a manual
one. An operator who resumes lifts all: a store that is behind is overlooked then, until it has caught up once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from engine.core.commands import STORE_REASON, Resume, Suspend
from engine.core.state import Store

MANUAL = "manual"
PREFIX = STORE_REASON
NS_PER_MS = 1_000_000


class Holding(NamedTuple):
    """A store and what it holds now; `oldest_ns` is 0 when that is nothing."""

    store_id: str
    purged_index: int
    messages: int
    oldest_ns: int
    age_ms_max: int
    waived: bool = False  # trading was resumed by hand although it was behind


def age_ms(holding: Holding, now_ns: int) -> int:
    """Return the age of the oldest unpurged message, 0 without any or when the clock went back."""
    return max(0, now_ns - holding.oldest_ns) // NS_PER_MS if holding.messages else 0


def distance_ms(holding: Holding, now_ns: int) -> int:
    """Return how much older the oldest message may become before trading is suspended; below zero it is."""
    return holding.age_ms_max - age_ms(holding, now_ns)


def due(holdings: Iterable[Holding], now_ns: int, suspended: Collection[str]) -> list[Suspend | Resume]:
    """Return the reasons to set or lift: one a store, by age; the reason of a store that is gone goes with it.

    A store that is overlooked sets none, and is told when it has caught up.
    """
    held = {PREFIX + holding.store_id: holding for holding in holdings}
    late = {reason for reason, holding in held.items() if distance_ms(holding, now_ns) < 0}
    waived = {reason for reason, holding in held.items() if holding.waived}
    found: list[Suspend | Resume] = [Suspend(reason) for reason in held if reason in late - waived - set(suspended)]
    mine = {reason for reason in suspended if reason.startswith(PREFIX)} | waived
    return found + [Resume(reason) for reason in sorted(mine - late)]


def store_of(text: str) -> str:
    """Return a store's id from a query: two quotation marks, as nothing, are the default store, which has no name."""
    return "" if text == '""' else text


def start(store: Store, last_seen: int | None, last_index: int) -> int | str:
    """Return the index a consumer's feed goes on after, or what it must be told instead: that messages are missing.

    Without `last_seen` it is all that the store holds. 0 is a consumer that has nothing yet: it misses nothing while nothing
    has been purged, and so does one that had everything before the store was made. `last_index` is the engine's last command.
    """
    if last_seen is None:
        return store.purged_index
    if last_seen > last_index:
        return (
            f"There is no message {last_seen} yet: the last command of this exchange has index {last_index}. Either lastSeen is "
            "of another exchange, or this one was restored from an older copy; nothing is sent, so that nothing is mixed up."
        )
    untouched = store.purged_index == store.first_index - 1
    made_at = store.first_index - 1  # the command that made the store has no message in it
    if last_seen >= store.purged_index or (untouched and last_seen in (0, made_at - 1)):
        return max(last_seen, store.purged_index)
    return gap(store.store_id, last_seen, store.purged_index)


def gap(store_id: str, last_seen: int, purged_index: int) -> str:
    """Return what a consumer is told that misses messages."""
    name = store_id or '""'
    return (
        f"There is a gap: messages of store {name} after {last_seen} are gone, it holds what follows {purged_index}. "
        "Someone else purged them, or the store was made later. Mend the copy, then connect with "
        f"lastSeen={purged_index} or without it."
    )


def first_item(store: Store) -> int:
    """Return the index that a consumer without anything gives as `lastSeen` to miss nothing: where the store begins."""
    return store.purged_index
