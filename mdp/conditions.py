"""Trade condition codes in, what the trade may change out: last and open, high and low, volume.

Source: the consolidated update rules of the vendor's stock conditions (from the CTA and UTP plan specifications), looked
up 2026-11-20. Codes that are not listed update everything. Crypto conditions only tell the aggressor.
"""

from __future__ import annotations

LAST = 1
HIGH_LOW = 2
VOLUME = 4
ALL = LAST | HIGH_LOW | VOLUME

NO_VOLUME = frozenset({15, 16, 38})  # official open and close, corrected close: repeats of trades already counted
NO_HIGH_LOW = frozenset({2, 7, 12, 13, 15, 16, 20, 21, 29, 37, 52, 53})  # average price, cash, form T, next day, odd lot …
NO_LAST = NO_HIGH_LOW | {5, 10, 22, 32, 33}  # also bunched sold, derivatively or previously priced, out of sequence


def rule_of(conditions: list[int] | None) -> int:
    """Return the bits LAST, HIGH_LOW, VOLUME that a trade with `conditions` may change: the strictest code wins."""
    if not conditions:
        return ALL
    codes = set(conditions)
    rule = ALL
    if codes & NO_LAST:
        rule &= ~LAST
    if codes & NO_HIGH_LOW:
        rule &= ~HIGH_LOW
    if codes & NO_VOLUME:
        rule &= ~VOLUME
    return rule


class Rules:
    """Remembers the rule of each combination of codes: a day has a few dozen."""

    COMBINATIONS_MAX = 10_000

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], int] = {}

    def of(self, conditions: list[int]) -> int:
        """Return `rule_of(conditions)`."""
        key = tuple(conditions)
        rule = self._known.get(key)
        if rule is None:
            if len(self._known) >= self.COMBINATIONS_MAX:
                self._known.clear()
            rule = self._known[key] = rule_of(conditions)
        return rule
