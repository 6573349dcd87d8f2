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


def reference_csv(listed: Universe) -> str:
    """Return `symbol,prev_close,avg_volume` lines with a header, as the processors read them."""
    rows = zip(listed.symbols, listed.closes_cents, listed.volumes, strict=True)
    return "symbol,prev_close,avg_volume\n" + "".join(f"{s},{c / 100:.2f},{v}\n" for s, c, v in rows)


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
