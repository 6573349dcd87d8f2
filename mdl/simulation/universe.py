"""Generates a universe of listed stocks from a seed: tickers, previous closes, usual volumes and activity.

The first n symbols of a larger universe with the same seed are the same symbols.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

KNOWN = (
    "NVDA TSLA AAPL AMD AMZN SPY MSFT PLTR QQQ META GOOGL F INTC SOFI BAC NIO T PFE AAL CCL SNAP UBER DIS XOM WFC C KO CSCO VZ "
    "MU GM JPM RIVN LCID MARA COIN HOOD BABA NFLX ORCL CRM ADBE AVGO QCOM TXN IBM WMT TGT HD LOW NKE SBUX MCD PEP PG JNJ MRK "
    "ABBV LLY UNH CVS BMY GILD AMGN MRNA CVX COP OXY SLB HAL DVN BA LMT RTX NOC GD GE CAT DE MMM HON UPS FDX UNP CSX DAL UAL "
    "LUV MAR ABNB BKNG RCL GS MS SCHW AXP V MA PYPL SQ AFRM UPST BLK USB PNC TFC COF ALLY NEE DUK SO D AEP EXC FCX NEM GOLD "
    "AA X CLF NUE STLD VALE RIO BHP SHOP SPOT ROKU ZM DOCU TWLO NET DDOG SNOW CRWD PANW ZS OKTA MDB TEAM WDAY NOW INTU ADSK "
    "ANET SMCI DELL HPQ WDC STX LRCX AMAT KLAC ASML TSM ARM MRVL ON NXPI IWM DIA XLF XLE XLK TLT GLD SLV USO EEM VXX HYG GME "
    "AMC BB KSS M JWN GPS ANF URBN LULU CROX DKNG PENN WYNN LVS MGM CHWY ETSY EBAY W PINS RBLX U PATH AI IONQ RKLB ASTS JOBY"
)
TAPES = (1, 3, 3, 2)  # NYSE, Nasdaq twice, regional
CLOSE_CENTS_MIN, CLOSE_CENTS_MAX = 200, 90_000


@dataclass(frozen=True, slots=True)
class Universe:
    """Parallel lists, most active first. Closes in cents, volumes in shares a day, weights add up to 1."""

    symbols: list[str]
    closes_cents: list[int]
    volumes: list[int]
    tapes: list[int]
    weights: list[float]


def universe(count: int, seed: int) -> Universe:
    """Return `count` stocks; activity falls with the rank as Zipf found it (exponent 1)."""
    dice = Random(f"universe {seed}")
    symbols = _tickers(count, dice)
    prices = Random(f"prices {seed}")
    closes = [_close_cents(prices) for _ in symbols]
    volumes = [int(60_000_000 / (rank + 1) ** 0.8 * prices.uniform(0.7, 1.3)) + 1_000 for rank in range(count)]
    tapes = [TAPES[prices.getrandbits(2)] for _ in symbols]
    total = sum(1 / (rank + 1) for rank in range(count))
    return Universe(symbols, closes, volumes, tapes, [1 / (rank + 1) / total for rank in range(count)])


@dataclass(frozen=True, slots=True)
class DayBefore:
    """What a stock did on some day before the simulated one; it closed at its previous close."""

    open_cents: int
    high_cents: int
    low_cents: int
    volume: int
    vwap: float


def day_before(listed: Universe, number: int, salt: int = 0) -> DayBefore:
    """Return the day of the stock at `number`; another `salt` gives another day. Volumes average out near the usual one."""
    bits, close = _mixed(number, salt), listed.closes_cents[number]
    first = close * (985 + bits % 31) // 1000
    high = max(first, close) * (1000 + (bits >> 5) % 21) // 1000
    low = min(first, close) * (1000 - (bits >> 10) % 21) // 1000
    volume = listed.volumes[number] * (60 + (bits >> 15) % 81) // 100
    return DayBefore(first, high, low, volume, round((first + high + low + close) / 400, 4))


def free_float(listed: Universe, number: int) -> int:
    """Return how many shares of a stock are traded freely: some ten to some hundred times a usual day's volume."""
    return listed.volumes[number] * (10 + _mixed(number, 1) % 190)


def reference_csv(listed: Universe) -> str:
    """Return lines with a header, as the processors read them (`MDP_REFERENCE`)."""
    names = "symbol,prev_close,avg_volume,float,prev_open,prev_high,prev_low,prev_volume,prev_vwap\n"
    return names + "".join(_reference_line(listed, number) for number in range(len(listed.symbols)))


def _reference_line(listed: Universe, number: int) -> str:
    day = day_before(listed, number)
    prices = f"{day.open_cents / 100:.2f},{day.high_cents / 100:.2f},{day.low_cents / 100:.2f}"
    known = f"{listed.closes_cents[number] / 100:.2f},{listed.volumes[number]},{free_float(listed, number)}"
    return f"{listed.symbols[number]},{known},{prices},{day.volume},{day.vwap}\n"


def _mixed(number: int, salt: int) -> int:
    """Return 32 bits that look like dice, quicker than dice: a stock has another day for each of thirty dates."""
    bits = (number * 2_654_435_761 ^ salt * 2_246_822_519) & 0xFFFFFFFF
    bits = (bits ^ bits >> 15) * 2_246_822_519 & 0xFFFFFFFF
    return bits ^ bits >> 13


def _close_cents(dice: Random) -> int:
    cents = round(100 * math.exp(dice.gauss(3.8, 0.9)))  # median 45 dollars
    return min(CLOSE_CENTS_MAX, max(CLOSE_CENTS_MIN, cents))


def _tickers(count: int, dice: Random) -> list[str]:
    """Well-known tickers first, then invented ones of three to five letters that no known one has."""
    known = KNOWN.split()
    made, taken = known[:count], set(known)
    while len(made) < count:
        size = 3 if len(taken) < 3_000 else 4 if len(taken) < 50_000 else 5
        ticker = "".join(dice.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(size))
        if ticker not in taken:
            taken.add(ticker)
            made.append(ticker)
    return made
