"""Makes the tape of some days in the vendor's shape, the same for the same seed.

What the tape promises, so that the order of one queue decides every number and no other queue has a say:
- Each partition has a symbol that trades in the first moment of each session: nobody joins a session late.
- A trade that is reported late follows one of its symbol that is not.
- Trades stay on their side of a middle that all quotes of their symbol have, so that it is known who took.
- Nothing trades in the last 20 s; then every symbol is quoted at the very end, on a whole second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from random import Random
from string import ascii_uppercase
from typing import Any
from zlib import crc32

from tests.days.calendar import DAYS, at, session_of

PARTITIONS = 8
QUIET_MS = 20_000
FRAME_EVENTS = 40
REGULAR_CODES: tuple[list[int] | None, ...] = (None, [], [14, 41], [37], [10], [2], [52], [22], [41, 37], [7], [44], [33])
EXTENDED_CODES: tuple[list[int], ...] = ([12], [12], [12], [12, 37], [13], [12, 2])
LATE_CODES: tuple[list[int] | None, ...] = (None, [32], [37], [5])

Event = dict[str, Any]


@dataclass
class Issue:
    """A symbol and how it behaves. `cent` is the step of its price, `middle` and `spread` count such steps."""

    symbol: str
    middle: int
    cent: float
    days: frozenset[date]
    trades: bool = True
    quotes: bool = True
    reference: dict[str, float | str] = field(default_factory=dict)

    def price(self, steps: int) -> float:
        return round((self.middle + steps) * self.cent, 4)


@dataclass
class Plan:
    """What is simulated: `symbols` many, on `days`, until `end_ms`; `trades` are those of a symbol in a regular session."""

    symbols: int
    days: Sequence[date]
    end_ms: int
    strays: date | None = None  # a holiday with a few prints
    trades: int = 90
    seed: int = 7


def issues(plan: Plan) -> list[Issue]:
    """Return the symbols: anchors of the partitions, twins, those of one day, one that never trades, and ordinary ones."""
    dice, every = Random(f"{plan.seed} issues"), frozenset(plan.days)
    names = [f"{'ABCDEFGHJKLM'[n % 12]}{n:04d}" for n in range(plan.symbols)]
    anchors = [_anchor(number) for number in range(PARTITIONS)]
    made = [Issue(name, dice.randrange(2_000, 40_000), 0.01, every) for name in anchors]
    for n, name in enumerate(names):
        days = every if n % 10 else frozenset([plan.days[n // 10 % len(plan.days)]])
        if n % 13 == 0:
            made.append(Issue(name, dice.randrange(3_000, 9_900), 0.0001, days))
        else:
            made.append(Issue(name, dice.randrange(500, 40_000), 0.01, days))
        if n % 3:
            row = {"prev_close": made[-1].price(dice.randrange(-made[-1].middle // 12, made[-1].middle // 12))}
            made[-1].reference = row | {"avg_volume": dice.randrange(2_000, 60_000), "float": dice.choice(["", 10**6 + n])}
    # The last one ends in the letter and digit of a delivery month, and is a stock for all that.
    middle = dice.randrange(1_000, 9_000)
    made += [Issue(name, middle, 0.01, every) for name in ("TWINA", "TWINB", "TWIH1")]
    made.append(Issue("SILENT", 1_000, 0.01, every, trades=False, reference={"prev_close": 10.0, "avg_volume": 5_000}))
    made.append(Issue("UNQUOTED", 1_000, 0.01, every, quotes=False))
    return made


def _anchor(partition: int) -> str:
    pairs = (f"ANCHOR{first}{second}" for first in ascii_uppercase for second in ascii_uppercase)
    return next(name for name in pairs if crc32(name.encode()) % PARTITIONS == partition)


def write(path: Path, plan: Plan) -> int:
    """Write the tape; return how many events it has."""
    events = 0
    with path.open("w") as out:
        for frame_ms, frame in frames(plan):
            body = json.dumps(frame, separators=(",", ":"))
            out.write(f'{{"received_ns":{frame_ms}000000,"frame":{body}}}\n')
            events += len(frame)
    return events


def excerpt(whole: Path, path: Path, from_ms: int, until_ms: int) -> int:
    """Write the part of a tape between two moments, then quotes at its very end; return how many events it has."""
    lines, events = [], 0
    for line in whole.open():
        recorded = json.loads(line)
        if from_ms <= recorded["received_ns"] // 1_000_000 < until_ms - QUIET_MS:
            lines.append(line)
            events += len(recorded["frame"])
    closing = [
        {"ev": "Q", "sym": symbol, "bp": 9.9, "ap": 10.1, "bs": 1, "as": 1, "t": until_ms, "z": 3}
        for symbol in sorted({event.get("sym") or event["T"] for line in lines for event in json.loads(line)["frame"]})
    ]
    lines.append(json.dumps({"received_ns": until_ms * 1_000_000, "frame": closing}, separators=(",", ":")) + "\n")
    path.write_text("".join(lines))
    return events + len(closing)


def write_reference(path: Path, plan: Plan) -> None:
    """Write what the processors are told of symbols beforehand."""
    rows = ["symbol,prev_close,avg_volume,float"]
    for issue in issues(plan):
        if known := issue.reference:
            rows.append(f"{issue.symbol},{known.get('prev_close', '')},{known.get('avg_volume', '')},{known.get('float', '')}")
    path.write_text("\n".join(rows) + "\n")


def frames(plan: Plan) -> Iterator[tuple[int, list[Event]]]:
    """Yield (ms of arrival, events): of one second at most, so that no frame reaches over the beginning of a session."""
    frame: list[Event] = []
    last_ms = 0
    for arrives_ms, event in arrivals(plan):
        if frame and (len(frame) >= FRAME_EVENTS or arrives_ms // 1000 != last_ms // 1000):
            yield last_ms, frame
            frame = []
        frame.append(event)
        last_ms = arrives_ms
    yield last_ms, frame


def arrivals(plan: Plan) -> list[tuple[int, Event]]:
    """Return all events with the ms of their arrival, in order."""
    made: list[tuple[int, int, Event]] = []
    known = issues(plan)
    for on in plan.days:
        for n, issue in enumerate(known):
            if on in issue.days:
                twin = issue.symbol.startswith("TWIN")
                dice = Random(f"{plan.seed} {on} {'twins' if twin else issue.symbol}")
                made += ((ms, n, event) for ms, event in _day(issue, on, plan, dice))
    for n, issue in enumerate(known):
        if issue.trades and n % 6 == 0 and plan.days[-1] in issue.days:
            made += ((ms, n, event) for ms, event in _last_minute(issue, plan, Random(f"{plan.seed} rush {n}")))
    if plan.strays is not None:
        for n, issue in enumerate(known):
            if issue.trades and n % 4 == 0:
                made += ((ms, n, event) for ms, event in _strays(issue, plan, Random(f"{plan.seed} stray {n}")))
    made = [one for one in made if one[0] <= plan.end_ms - QUIET_MS]
    made.sort(key=lambda one: one[:2])
    found = [(ms, event) for ms, _, event in made]
    closing = [issue for issue in known if issue.quotes and plan.days[-1] in issue.days]
    return found + [(plan.end_ms, _quote(issue, plan.end_ms, Random(f"{plan.seed} end {issue.symbol}"))) for issue in closing]


def _day(issue: Issue, on: date, plan: Plan, dice: Random) -> Iterator[tuple[int, Event]]:
    """Yield the events of a symbol on a day; what follows another one of the same ms stays behind it."""
    day = DAYS[on]
    if issue.quotes:
        yield day.start, _quote(issue, day.start, dice)
        for _ in range(plan.trades // 2):
            ms = dice.randrange(day.start, day.ends)
            yield ms, _quote(issue, ms, dice)
    if not issue.trades:
        return
    reach = max(2, round(issue.middle * dice.choice((0.01, 0.02, 0.03, 0.08))))
    sessions = (
        (day.start, day.opens, plan.trades // 4),
        (day.opens, day.closes, plan.trades),
        (day.closes, day.ends, plan.trades // 4),
    )
    anchor = issue.symbol.startswith("ANCHOR")
    for at_session, (begins, ends, many) in enumerate(sessions):
        regular = at_session == 1
        if anchor:
            yield begins, _trade(issue, begins, _steps(dice, reach), dice, None if regular else [12])
            yield ends - 1, _trade(issue, ends - 1, _steps(dice, reach), dice, None if regular else [12])
        if anchor or dice.random() < (0.95 if regular else 0.7):
            yield from _session(issue, begins, ends, many, reach, regular, dice)
    if dice.random() < 0.8:
        yield day.closes + 500, _trade(issue, day.closes + 400, _steps(dice, reach), dice, [15])
    if dice.random() < 0.2:
        yield day.closes + 900, _trade(issue, day.closes + 300, _steps(dice, reach), dice, [38])
    if dice.random() < 0.3:
        yield from _bands(issue, day.opens, day.closes, dice)


def _session(
    issue: Issue, begins: int, ends: int, many: int, reach: int, regular: bool, dice: Random
) -> Iterator[tuple[int, Event]]:
    times = [dice.randrange(begins, ends) for _ in range(many // 2)]
    burst = dice.randrange(begins, ends - 40_000)
    times += [burst + dice.randrange(3_000) for _ in range(many // 4)]  # several within the pause of a range alert
    times += [begins + round((ends - begins) * dice.random() ** 3) for _ in range(many // 4)]  # more in the first hours
    surge = dice.randrange(begins, ends - 40_000) if dice.random() < 0.4 else None
    for ms in sorted(times):
        codes = (
            dice.choice(REGULAR_CODES if dice.random() < 0.3 else (None, [], [14, 41]))
            if regular
            else dice.choice(EXTENDED_CODES)
        )
        yield ms, _trade(issue, ms, _steps(dice, reach), dice, codes)
        if dice.random() < 0.06 and codes in (None, [], [14, 41], [12]):
            late_ms = ms - dice.choice((300, 900, 2_400, 7_000, 40_000, 200_000, 3_000_000, 30_000_000))
            yield ms, _trade(issue, late_ms, _steps(dice, reach), dice, dice.choice(LATE_CODES) if regular else [12])
    if surge is not None:
        for n in range(6):
            yield surge + 700 * n, _trade(issue, surge + 700 * n, _steps(dice, reach), dice, None if regular else [12], 3_000)


def _last_minute(issue: Issue, plan: Plan, dice: Random) -> Iterator[tuple[int, Event]]:
    """More than usual, so that the boards of the last minutes have something to rank at the end."""
    codes = None if session_of(plan.end_ms) == "regular" else [12]
    for n in range(12):
        ms = plan.end_ms - 54_000 + 2_500 * n
        yield ms, _trade(issue, ms, _steps(dice, 3), dice, codes, dice.choice((500, 1_000, 2_500)))


def _strays(issue: Issue, plan: Plan, dice: Random) -> Iterator[tuple[int, Event]]:
    assert plan.strays is not None
    for _ in range(2):
        ms = dice.randrange(at(plan.strays, 6), at(plan.strays, 22))
        yield ms, _trade(issue, ms, _steps(dice, issue.middle // 10), dice, dice.choice([None, [12], [37]]))


def _steps(dice: Random, reach: int) -> int:
    return dice.choice((-1, 1)) * dice.randrange(1, reach + 1)


def _trade(issue: Issue, ms: int, steps: int, dice: Random, codes: list[int] | None, size: int = 0) -> Event:
    size = size or (dice.choice((1, 7, 30, 99)) if codes and 37 in codes else dice.choice((100, 100, 200, 300, 1_000)))
    event: Event = {
        "ev": "T",
        "sym": issue.symbol,
        "x": dice.randrange(1, 20),
        "i": f"{dice.getrandbits(40):x}",
        "z": 3,
        "p": issue.price(steps),
    }
    if dice.random() < 0.1:
        size += 1
        event["ds"] = f"{size}.{dice.choice(('5', '25', '1', '0001', '333333'))}"
    return event | {"s": size, "t": ms} | ({"c": codes} if codes is not None else {})


def _quote(issue: Issue, ms: int, dice: Random) -> Event:
    wide = dice.randrange(1, 4)
    return {
        "ev": "Q", "sym": issue.symbol, "bp": issue.price(-wide), "ap": issue.price(wide), "bs": dice.randrange(1, 90),
        "as": dice.randrange(1, 90), "t": ms, "z": 3,
    }  # fmt: skip


def _bands(issue: Issue, opens: int, closes: int, dice: Random) -> Iterator[tuple[int, Event]]:
    """Bands, a halt, its end (not always), and an event that comes too late to mean anything."""
    halt = dice.randrange(opens + 60_000, closes - 700_000)
    said = [(opens + 1_000, [1]), (halt, [17]), (halt + 200, [17, 1])]
    if dice.random() < 0.7:
        said.append((halt + dice.randrange(1_000, 600_000), [18]))
    for ms, codes in said:
        yield ms, _luld(issue, ms, codes)
    yield said[-1][0] + 5, _luld(issue, halt - 30_000, [18 if codes == [17, 1] else 17])


def _luld(issue: Issue, ms: int, codes: list[int]) -> Event:
    reach = issue.middle // 20
    return {"ev": "LULD", "T": issue.symbol, "h": issue.price(reach), "l": issue.price(-reach), "i": codes, "z": 3, "t": ms}
