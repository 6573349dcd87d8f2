"""Makes up what is known of a simulated stock's company: the same for the same stock and day, whoever asks."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from mdl.simulation.universe import Universe, free_float

LOGO_PX, LOGO_CELLS = 64, 8
SECTORS = (
    ("3674", "SEMICONDUCTORS & RELATED DEVICES"), ("7372", "SERVICES-PREPACKAGED SOFTWARE"), ("6022", "STATE COMMERCIAL BANKS"),
    ("2834", "PHARMACEUTICAL PREPARATIONS"), ("1311", "CRUDE PETROLEUM & NATURAL GAS"), ("5331", "RETAIL-VARIETY STORES"),
    ("3711", "MOTOR VEHICLES & PASSENGER CAR BODIES"), ("4911", "ELECTRIC SERVICES"),
)  # fmt: skip
CITIES = (("Springfield", "IL"), ("Portland", "OR"), ("Austin", "TX"), ("Boston", "MA"), ("Columbus", "OH"), ("Reno", "NV"))
EXCHANGES = ("XNAS", "XNYS", "XNAS", "XASE")
FORMS = ("8-K", "10-Q", "4", "8-K", "4", "10-K", "8-K", "4", "144", "DEF 14A")
RATIOS = ((1, 2), (1, 3), (2, 3), (1, 4), (10, 1), (1, 5))  # from, to; one is a reverse split
SPLIT_EVERY, RENAMED_EVERY = 4, 7  # of the stocks
NOT_SPLIT_DAYS = 120  # the newest split is at least so old: prices of the last weeks are not to be worked over


@dataclass(frozen=True, slots=True)
class Split:
    """On the morning of `on`, `before` shares became `after`."""

    on: date
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Company:
    """One company; `shares` outstanding."""

    name: str
    about: str
    sic: tuple[str, str]
    city: tuple[str, str]
    exchange: str
    employees: int
    listed_on: date
    shares: int
    cik: str
    phone: str
    formerly: str  # its ticker until `renamed_on`; empty = it never had another one
    renamed_on: date


def company(listed: Universe, number: int) -> Company:
    """Return the company behind the stock at `number`."""
    symbol, dice = listed.symbols[number], Random(f"company {number}")
    sic, city = dice.choice(SECTORS), dice.choice(CITIES)
    listed_on = date(1975, 1, 2) + timedelta(days=dice.randrange(15_000))
    renamed = number % RENAMED_EVERY == 3
    name = f"{symbol.title()} {dice.choice(('Holdings', 'Industries', 'Group', 'Corporation'))} Inc."
    about = f"{name} of {city[0]} is a company of a simulated market. Its business: {sic[1].lower()}."
    return Company(
        name, about, sic, city, EXCHANGES[dice.randrange(4)], dice.randrange(40, 160_000), listed_on,
        round(free_float(listed, number) / 0.8), f"{1_000_000 + number:010d}",
        f"({dice.randrange(200, 990)}) 555-{dice.randrange(100, 200):04d}", f"{symbol[:3]}Q" if renamed else "",
        listed_on + timedelta(days=dice.randrange(200, 2_000)),
    )  # fmt: skip


def splits(number: int, today: date) -> list[Split]:
    """Return the splits of a stock, the newest first. Most have none; none is of the last months."""
    if number % SPLIT_EVERY:
        return []
    dice = Random(f"splits {number}")
    ends = date(2026, 1, 5) - timedelta(days=dice.randrange(400))
    days = [_workday(ends - timedelta(days=dice.randrange(600, 1_500) * n)) for n in range(1 + number % 3)]
    found = [Split(on, *dice.choice(RATIOS)) for on in days]
    return [one for one in found if one.on <= today - timedelta(days=NOT_SPLIT_DAYS)]


def became(number: int, on: date, today: date) -> float:
    """Return how many of today's shares one share of that date has become."""
    times = 1.0
    for split in splits(number, today):
        if split.on > on:
            times *= split.after / split.before
    return times


def short_interest(listed: Universe, number: int, settled: date) -> int:
    """Return how many shares were sold short on a settlement date."""
    return round(free_float(listed, number) * Random(f"short {number} {settled}").uniform(0.005, 0.2))


def short_share(number: int, on: date) -> float:
    """Return which part of a day's volume was sold short."""
    return Random(f"short volume {number} {on}").uniform(0.25, 0.65)


def settlements(today: date, many: int) -> list[date]:
    """Return the settlement dates (the middle and the end of months) that are published by today, the newest first."""
    found: list[date] = []
    on = today - timedelta(days=11)
    while len(found) < many:
        if (on.day == 15 or (on + timedelta(days=1)).day == 1) and on not in found:
            found.append(_workday(on))
        on -= timedelta(days=1)
    return found


def filings(number: int, today: date, many: int) -> list[tuple[date, str, str]]:
    """Return the newest filings: date, form, accession number."""
    on, found = today - timedelta(days=today.toordinal() % 9), []
    for at in range(many):
        day = _workday(on - timedelta(days=9 * at + number % 5))
        form = FORMS[(day.toordinal() // 9 + number) % len(FORMS)]
        found.append((day, form, f"{1_000_000 + number:010d}-{day:%y}-{day.toordinal() % 10**6:06d}"))
    return found


def logo(number: int) -> bytes:
    """Return a PNG of 64 × 64 pixels: a pattern of the stock's own, the same left and right."""
    dice = Random(f"logo {number}")
    ink, ground = bytes(dice.randrange(30, 170) for _ in range(3)), b"\xf4\xf5\xf7"
    cells = [[dice.random() < 0.5 for _ in range(LOGO_CELLS // 2)] for _ in range(LOGO_CELLS)]
    size, rows = LOGO_PX // LOGO_CELLS, []
    for cell in cells:
        line = b"".join((ink if on else ground) * size for on in (*cell, *reversed(cell)))
        rows += [b"\0" + line] * size
    head = struct.pack(">IIBBBBB", LOGO_PX, LOGO_PX, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _workday(on: date) -> date:
    return on - timedelta(days=max(0, on.weekday() - 4))
