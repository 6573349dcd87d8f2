"""Says what a trade may change, by its condition codes: last and open, high and low, volume.

A trade with several codes may change only what each of them allows. Codes that are not in its table forbid nothing.

Sources, looked up 2026-11-21:
- The vendor's conditions (`/v3/reference/conditions?data_type=trade`, `update_rules.consolidated`): of stocks, taken from the
  CTA and UTP output specifications (sale condition matrices), and of options, taken from OPRA's.
- "How does Massive create the OHLCV bars": those tables are for a day's official values; for minute bars "trades in
  extended-hours markets can update OHLC", or there would be none before 09:30 and after 16:00. Codes 12, 13 and 248 are
  such trades: they are marked EXTENDED and change everything but the regular session's open, high, low and close.
  13 (and OPRA's late ones) are sold out of sequence: `t` is when they were reported, so they never move last.
- Crypto: codes 1 and 2 only name the aggressor. Forex and indices have no trades. Futures trades come without codes.
"""

from __future__ import annotations

LAST = 1
HIGH_LOW = 2
VOLUME = 4
ALL = LAST | HIGH_LOW | VOLUME
EXTENDED = 8  # outside the regular session: its official values stay
CANCEL = 16  # takes back an earlier trade of this price and size, and is none itself

STOCKS = {
    2: VOLUME,  # average price
    5: HIGH_LOW | VOLUME,  # bunched, sold out of sequence
    7: VOLUME,  # cash sale
    10: HIGH_LOW | VOLUME,  # derivatively priced
    12: ALL | EXTENDED,  # form T: extended hours
    13: HIGH_LOW | VOLUME | EXTENDED,  # extended hours, sold out of sequence
    15: 0,  # market center's official close: repeats a trade already counted
    16: 0,  # market center's official open
    20: VOLUME,  # next day
    21: VOLUME,  # price variation
    22: HIGH_LOW | VOLUME,  # prior reference price
    29: VOLUME,  # seller
    32: HIGH_LOW | VOLUME,  # sold out of sequence
    33: HIGH_LOW | VOLUME,  # stopped stock, sold out of sequence
    37: VOLUME,  # odd lot
    38: LAST | HIGH_LOW,  # corrected consolidated close: a price, no new volume
    44: 0,  # canceled
    49: 0,  # as of, canceled
    52: VOLUME,  # contingent
    53: VOLUME,  # qualified contingent
    54: 0,  # errored
}
OPTIONS = {
    201: CANCEL,  # CANC: canceled
    202: 0,  # OSEQ: late and out of sequence
    203: CANCEL,  # CNCL: the last one is canceled
    204: 0,  # LATE: late
    205: CANCEL,  # CNCO: the opening one is canceled
    206: 0,  # OPEN: the opening one, late and out of sequence
    207: CANCEL,  # CNOL: the only one is canceled
    246: VOLUME,  # CBMO: multi-leg floor trade of proprietary products
    247: VOLUME,  # MCTP: multilateral compression of proprietary products
    248: ALL | EXTENDED,  # EXHT: extended hours
}
OPTION = "O:"  # how the symbol of every option begins
FLAGS = EXTENDED | CANCEL


def rule_of(conditions: list[int] | None, table: dict[int, int] = STOCKS) -> int:
    """Return the bits LAST, HIGH_LOW, VOLUME that a trade with `conditions` may change, with EXTENDED and CANCEL."""
    rule, flags = ALL, 0
    for code in conditions or ():
        bits = table.get(code, ALL)
        rule &= bits
        flags |= bits & FLAGS
    return rule | flags


class Rules:
    """Remembers the rule of each combination of codes: a day has a few dozen."""

    COMBINATIONS_MAX = 10_000

    def __init__(self) -> None:
        self._stocks: dict[tuple[int, ...], int] = {}
        self._options: dict[tuple[int, ...], int] = {}

    def of(self, conditions: list[int], symbol: str) -> int:
        """Return `rule_of(conditions)` by the table of the symbol's asset class."""
        option = symbol.startswith(OPTION)
        known = self._options if option else self._stocks
        key = tuple(conditions)
        rule = known.get(key)
        if rule is None:
            if len(known) >= self.COMBINATIONS_MAX:
                known.clear()
            rule = known[key] = rule_of(conditions, OPTIONS if option else STOCKS)
        return rule
