"""Holds what a command has left to be done in later steps, so that no command and no record is without a bound.

It is part of the state: only events change it, and a restart goes on where the journal ends.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.events import CancelReason

LOWEST = -(2**62)  # below every account's number


class Funding(msgspec.Struct):
    """A charge under way, at one rate and one mark. Holders up to `after` are charged, others ahead of their turn.

    `held_units`: what was paid and not yet received; it lies in the account CLEARING, and what rounding leaves goes to INSURANCE.
    """

    symbol: str
    rate_ppm: int
    mark_ticks: int
    after: int = LOWEST
    held_units: int = 0
    ahead: dict[int, None] = {}


class Review(msgspec.Struct):
    """The margin of a contract's holders under way, by rising number: from `after` to the highest, then up to `until`."""

    symbol: str
    after: int = LOWEST
    until: int = LOWEST
    wrapped: bool = False


class Work:
    """What is left, each kind in its order."""

    def __init__(self) -> None:
        self.entering: dict[int, None] = {}  # orders whose matching goes on; they rest in no book meanwhile
        self.fundings: dict[str, Funding] = {}
        self.reviews: dict[str, Review] = {}
        self.suspects: dict[int, None] = {}  # accounts whose margin may be short
        self.cancels: dict[tuple[int, str], tuple[int, CancelReason]] = {}  # account, symbol or "" → up to which index, why
        self.delistings: dict[str, None] = {}  # contracts whose orders and positions are being closed

    def __bool__(self) -> bool:
        return bool(self.entering or self.fundings or self.reviews or self.suspects or self.cancels or self.delistings)

    def snapshot(self) -> list[Any]:
        """Return it as plain values."""
        fundings = [[f.symbol, f.rate_ppm, f.mark_ticks, f.after, f.held_units, list(f.ahead)] for f in self.fundings.values()]
        reviews = [[r.symbol, r.after, r.until, r.wrapped] for r in self.reviews.values()]
        cancels = [[*key, *value] for key, value in self.cancels.items()]
        ends = [[cancels, list(self.delistings)]] if cancels or self.delistings else []
        return [list(self.entering), fundings, reviews, list(self.suspects), *ends]

    def restore(self, stored: list[Any]) -> None:
        """Take what `snapshot` returned.  Raises: ValueError, TypeError for anything else."""
        entering, fundings, reviews, suspects, *ends = stored
        self.entering = dict.fromkeys(entering)
        for symbol, rate_ppm, mark_ticks, after, held_units, ahead in fundings:
            self.fundings[symbol] = Funding(symbol, rate_ppm, mark_ticks, after, held_units, dict.fromkeys(ahead))
        self.reviews = {symbol: Review(symbol, after, until, wrapped) for symbol, after, until, wrapped in reviews}
        self.suspects = dict.fromkeys(suspects)
        for cancels, delistings in ends:
            self.cancels = {(account, symbol): (upto, CancelReason(reason)) for account, symbol, upto, reason in cancels}
            self.delistings = dict.fromkeys(delistings)
