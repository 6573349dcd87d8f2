"""Says what a board ranks by, and which symbols it takes: the built-in boards and those that operators define in a TOML file.

```toml
[low_float_runners]              # the channel is board:low_float_runners
rank = "gainers"                 # any built-in board
session = ["pre", "regular"]     # of these sessions only; none = of all
where.last = [1, 20]             # from 1 to 20, of any number of a row; "" = no bound on that side
where.float = ["", 20_000_000]
```

Filters are applied before a board is cut to its length: it is the top of those that fit.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mdc.channels import BOARDS, OWN_BOARD
from mdp.analyzers.quote import QuoteData
from mdp.analyzers.stats import Activity
from service.errors import OperatorError

SESSIONS = ("pre", "regular", "post", "closed", "continuous")
QUICK_MS, CALM_MS = 250, 1_000  # how often a board is ranked
IDLE_MS = 3_000  # one that nobody watches
QUICK = ("volume", "gainers", "losers", "gappers")
OWN_MAX = 50
UNUSUAL_TIMES = 3.0  # the last minute's volume against the average minute of the hour
UNUSUAL_MINUTES = 10  # of history, before anything is unusual
INFINITY = float("inf")


class Row(msgspec.Struct, gc=False):
    """One row; fields in the order of mdc.channels.BOARD_FIELDS; null = not known."""

    sym: str
    last: float
    change: float | None
    change_pct: float | None
    volume: int | float
    gap_pct: float | None
    open_change_pct: float | None
    dollar_volume: float | None
    rel_volume: float | None
    free_float: float | None = msgspec.field(name="float")
    trades: int
    news_ts: int | None


class Facts(NamedTuple):
    """What a rank may look at. `halted_ms` = since when the symbol is halted, 0 = it is not."""

    quote: QuoteData
    row: Row
    activity: Activity | None
    halted_ms: int


Rank = Callable[[Facts], float | None]  # higher is better, None = not on this board


@dataclass(frozen=True, slots=True)
class Board:
    """A board: its name, what it ranks by, who is let on it, and how often it is ranked. `bounds` = (field, from, to)."""

    name: str
    rank: Rank
    every_ms: int = CALM_MS
    bounds: tuple[tuple[str, float, float], ...] = ()
    sessions: frozenset[str] = frozenset()

    @property
    def filters(self) -> bool:
        """Whether not every symbol that has a rank is on it."""
        return bool(self.bounds or self.sessions)

    def value(self, facts: Facts) -> float | None:
        """Return what a symbol is sorted by, None when it is not on this board."""
        if self.sessions and facts.quote.session not in self.sessions:
            return None
        for field, least, most in self.bounds:
            value = getattr(facts.row, field)
            if value is None or not least <= value <= most:
                return None
        return self.rank(facts)


def row_of(symbol: str, quote: QuoteData, news_ms: int | None = None) -> Row:
    """Return the row of a symbol that has traded; `news_ms` = when its newest article was published."""
    assert quote.last is not None
    worth = None if quote.vwap is None else round(quote.vwap * quote.volume, 2)
    return Row(
        symbol, quote.last, quote.change, quote.change_pct, quote.volume, _percent(quote.open, quote.prev_close),
        _percent(quote.last, quote.open), worth, quote.rel_volume, quote.free_float, quote.trades, news_ms,
    )  # fmt: skip


def _percent(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else round(100 * (value - base) / base, 4)


def _above(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _loss(facts: Facts) -> float | None:
    change = facts.row.change_pct
    return -change if change is not None and change < 0 else None


def _range(facts: Facts) -> float | None:
    quote = facts.quote
    return _above(_percent(quote.high, quote.low)) if quote.high is not None else None


def _trades(minutes: int) -> Rank:
    def rank(facts: Facts) -> float | None:
        return facts.activity.trades(minutes) or None if facts.activity is not None else None

    return rank


def _unusual(facts: Facts) -> float | None:
    """The last minute against the average of the hour's minutes, at least three times as much."""
    activity = facts.activity
    if activity is None or len(activity.minutes) < UNUSUAL_MINUTES:
        return None
    usual = activity.volume_minutes / len(activity.minutes)
    times = activity.volume(1) / usual if usual else 0.0
    return round(times, 4) if times >= UNUSUAL_TIMES else None


RANKS: dict[str, Rank] = {
    "volume": lambda facts: facts.row.volume or None,
    "gainers": lambda facts: _above(facts.row.change_pct),
    "losers": _loss,
    "gappers": lambda facts: abs(facts.row.gap_pct or 0) or None,
    "rel_volume": lambda facts: _above(facts.row.rel_volume),
    "dollar_volume": lambda facts: _above(facts.row.dollar_volume),
    "range": _range,
    "open_gainers": lambda facts: _above(facts.row.open_change_pct),
    "trades_1m": _trades(1),
    "trades_5m": _trades(5),
    "trades_60m": _trades(60),
    "unusual": _unusual,
    "halted": lambda facts: facts.halted_ms or None,
}
assert tuple(RANKS) == BOARDS, "every board has a rank"
BUILT_IN = tuple(Board(name, rank, QUICK_MS if name in QUICK else CALM_MS) for name, rank in RANKS.items())
NUMBERS = dict(zip(Row.__struct_encode_fields__[1:], Row.__struct_fields__[1:], strict=True))  # as published → as it is here


def read_boards(path: Path | None) -> tuple[Board, ...]:
    """Return the operators' own boards of a TOML file, none without a path.  Raises: OperatorError naming board and fault."""
    if path is None:
        return ()
    try:
        found = tomllib.loads(path.read_text())
        if len(found) > OWN_MAX:
            raise ValueError(f"{len(found)} boards; at most {OWN_MAX} can be ranked")
        return tuple(_own(name, said) for name, said in found.items())
    except OSError as error:
        raise OperatorError(
            f"cannot read MDP_BOARDS={path}: {error.strerror}", "Give an existing TOML file or unset it"
        ) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise OperatorError(f"MDP_BOARDS={path}: {error}", "mdp/README.md shows how a board is written") from None


def _own(name: str, said: Any) -> Board:
    if not isinstance(said, dict):
        raise ValueError(f"{name} stands outside of a table; a board begins with [{name}]")
    if not OWN_BOARD.fullmatch(name) or name in RANKS:
        raise ValueError(f"[{name}]: a board's name is a-z, 0-9 and _, at most 32, and none of {', '.join(RANKS)}")
    if unknown := said.keys() - {"rank", "session", "where"}:
        raise ValueError(f"[{name}]: {', '.join(sorted(unknown))} is not known; there are rank, session, where")
    if said.get("rank") not in RANKS:
        raise ValueError(f"[{name}]: rank is one of {', '.join(RANKS)}")
    sessions = said.get("session", [])
    if not isinstance(sessions, list) or not set(map(str, sessions)) <= set(SESSIONS):
        raise ValueError(f"[{name}]: session is a list of {', '.join(SESSIONS)}")
    where = said.get("where", {})
    if not isinstance(where, dict) or where.keys() - NUMBERS.keys():
        raise ValueError(f"[{name}]: where has bounds of {', '.join(NUMBERS)}")
    bounds = tuple((NUMBERS[field], *_bounds(name, field, pair)) for field, pair in where.items())
    return Board(name, RANKS[said["rank"]], CALM_MS, bounds, frozenset(sessions))


def _bounds(name: str, field: str, pair: Any) -> tuple[float, float]:
    if isinstance(pair, list) and len(pair) == 2:
        least, most = (none if one == "" else one for one, none in zip(pair, (-INFINITY, INFINITY), strict=True))
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in (least, most)) and least <= most:
            return float(least), float(most)
    raise ValueError(f'[{name}]: where.{field} is [from, to], two numbers or "" for no bound, as in where.{field} = [1, ""]')


def names_of(boards: Sequence[Board]) -> tuple[str, ...]:
    """Return the names in the order in which they are ranked."""
    return tuple(board.name for board in boards)
