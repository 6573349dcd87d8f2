"""Says what a trade's condition codes let it change, for the codes that the simulated tapes have; from the vendor's tables."""

from __future__ import annotations

from typing import Any, NamedTuple


class Rule(NamedTuple):
    """Whether a trade may be the last one, make a high or low, and count as volume; and whether it is of the extended hours."""

    last: bool
    range: bool
    volume: bool
    extended: bool

    @property
    def nothing(self) -> bool:
        return not (self.last or self.range or self.volume)


NO_LAST = {2, 5, 7, 10, 13, 15, 22, 32, 33, 37, 44, 52}
NO_RANGE = {2, 7, 15, 37, 44, 52}
NO_VOLUME = {15, 38, 44}
EXTENDED = {12, 13}


def rule_of(event: dict[str, Any]) -> Rule:
    """Return the rule of a trade: every code forbids what it forbids."""
    codes = set(event.get("c") or ())
    return Rule(not codes & NO_LAST, not codes & NO_RANGE, not codes & NO_VOLUME, bool(codes & EXTENDED))
