"""Works out which alerts the trades of a partition make, and in which order, by the table in mdp/README.md."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from tests.days.calendar import TradingDay
from tests.days.conditions import Rule
from tests.days.quote import Quote, percent
from tests.days.windows import SLICE_MS, Windows

PAUSE_MS, SURGE_PAUSE_MS, GAP_PCT, SURGE_TIMES, MULTIPLES = 1_000, 300_000, 4.0, 5, (1, 2, 5, 10)
SESSIONS = ("pre", "regular", "post")
WHOSE = {"pre": "the pre-market", "regular": "the regular session's", "post": "the after-hours"}
Alert = dict[str, Any]
Tell = Callable[[str, Alert], None]  # (channel, alert)


def price_text(value: float) -> str:
    """Return a price with two decimals at least."""
    text = f"{Decimal(repr(value)):f}"
    decimals = len(text.partition(".")[2])
    return text if decimals >= 2 else f"{value:.2f}"


def amount_text(value: float) -> str:
    """Return a number with two decimals at most."""
    return f"{value:,.2f}".rstrip("0").rstrip(".")


class Ranges:
    """The range alerts of one partition; `chains` = the highs and lows of symbol, session and side."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._day = 0
        self._of: dict[str, tuple[int, dict[str, list[float]]]] = {}  # symbol → its day and the prices of its sessions
        self._told: dict[tuple[str, int, int], int] = {}  # symbol, session, side (-1 low, 1 high) → when one was told
        self._waits: dict[tuple[str, int, int], Alert] = {}

    def time(self, ts: int) -> None:
        """A trade of the partition has this time: what waited until then is told."""
        due = [(self._told[key] + PAUSE_MS, key) for key in self._waits if self._told[key] + PAUSE_MS <= ts]
        for _, key in sorted(due):
            self._release(key)

    def take(self, event: dict[str, Any], rule: Rule, day: TradingDay, quote: dict[str, Any]) -> None:
        if not rule.range:
            return
        symbol, ts, price = event["sym"], event["t"], float(event["p"])
        self._day = max(self._day, day.start)
        if ts < self._day:
            return
        session = "regular"
        if rule.extended:
            if day.opens <= ts < day.closes:
                return
            session = "pre" if ts < day.opens else "post"
        if symbol not in self._of or self._of[symbol][0] < day.start:
            self._of[symbol] = day.start, {}
            for key in [key for key in self._told if key[0] == symbol]:
                self._release(key)
                del self._told[key]
        sessions = self._of[symbol][1]
        others = {name: prices for name, prices in sessions.items() if name != session}
        seen = list(sessions.get(session, ())) or [price for prices in others.values() for price in prices]
        sessions.setdefault(session, []).append(price)
        if not seen or (session == "pre" and "regular" in sessions):
            return
        for sign, edge in ((1, max(seen)), (-1, min(seen))):
            if sign * price > sign * edge:
                self._beyond(event, session, sign, price, edge, others, quote)

    def _beyond(
        self, event: dict[str, Any], session: str, sign: int, price: float, edge: float, others: dict[str, list[float]],
        quote: dict[str, Any],
    ) -> None:  # fmt: skip
        symbol, ts = event["sym"], event["t"]
        key = symbol, SESSIONS.index(session), sign
        paused = key in self._told and abs(ts - self._told[key]) < PAUSE_MS
        if paused and key in self._waits:
            edge = self._waits[key]["prev"]
        elif not paused:
            self._release(key)
        left, whose = edge, session
        for name in SESSIONS:  # of equal ranges the later session's is named
            extreme = sign * max((sign * one for one in others.get(name, ())), default=float("-inf"))
            if sign * edge <= sign * extreme < sign * price and sign * extreme >= sign * left:
                left, whose = extreme, name
        note = f"{'above' if sign > 0 else 'below'} {WHOSE[whose]} {'high' if sign > 0 else 'low'} of {price_text(left)}"
        alert = {
            "sym": symbol, "kind": "new_high" if sign > 0 else "new_low", "price": price, "prev": edge, "value": None,
            "session": session, "note": note, "ts": ts, "quote": quote,
        }  # fmt: skip
        if paused:
            self._waits[key] = alert
        else:
            self._told[key] = ts
            self._tell("alerts:range", alert)

    def _release(self, key: tuple[str, int, int]) -> None:
        if key in self._waits:
            self._tell("alerts:range", self._waits.pop(key))
            self._told[key] += PAUSE_MS

    def end(self) -> None:
        """The feed's time has gone on for longer than any pause."""
        self.time(2**60)


class Gaps:
    """The gap alerts: the first trade of the pre-market and the open, each once a day and symbol."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._opened: dict[str, tuple[int, bool]] = {}  # symbol → day, whether it has opened

    def take(self, event: dict[str, Any], rule: Rule, day: TradingDay, quote: dict[str, Any]) -> None:
        if not rule.last:
            return
        symbol, price, ts = event["sym"], float(event["p"]), event["t"]
        known = self._opened.get(symbol)
        if known is not None and known[0] == day.start and (known[1] or rule.extended):
            return
        if rule.extended and ts >= day.opens:
            return
        self._opened[symbol] = day.start, not rule.extended
        away = percent(price, quote["prev_close"])
        if away is None or abs(away) < GAP_PCT:
            return
        opens, side = "the pre-market opens" if rule.extended else "opens", "above" if away > 0 else "below"
        self._tell("alerts:gap", {
            "sym": symbol, "kind": "gap_up" if away > 0 else "gap_down", "price": price, "prev": quote["prev_close"], "value": away,
            "session": "pre" if rule.extended else "regular", "ts": ts, "quote": quote,
            "note": f"{opens} {amount_text(abs(away))} % {side} the previous close of {price_text(quote['prev_close'])}",
        })  # fmt: skip


class Volumes:
    """The alerts to unusual volume of a partition."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._surges: dict[str, int] = {}
        self._multiples: dict[str, tuple[int, int]] = {}  # symbol → day, how many multiples were reached

    def take(
        self, event: dict[str, Any], first: bool, windows: Windows, quote: Quote, day: TradingDay, said: dict[str, Any]
    ) -> None:
        """Look after a trade that counts as volume. `first` = it is the first one of its slice; `said` = the quote."""
        if first and said["avg_volume"]:
            self._look_at_day(event, quote, day, said)
        symbol, slice_ms = event["sym"], windows.slice_ms
        minutes, hour = windows.usual(slice_ms)
        if minutes < 10:
            return
        minute = sum((one.size for one in windows.last(1, slice_ms)), Decimal(0))
        if minute * minutes < hour * SURGE_TIMES or slice_ms - self._surges.get(symbol, -SURGE_PAUSE_MS) < SURGE_PAUSE_MS:
            return
        self._surges[symbol] = slice_ms
        times = round(float(minute * minutes / hour), 2)
        text = f"{amount_text(float(minute))} in a minute, {amount_text(times)} times the hour's average"
        self._say(event, "surge", times, text, said)

    def _look_at_day(self, event: dict[str, Any], quote: Quote, day: TradingDay, said: dict[str, Any]) -> None:
        reached = sum(quote.volume >= many * said["avg_volume"] for many in MULTIPLES)
        before = self._multiples.get(event["sym"])
        if event["t"] < day.start or (before is not None and before[0] == day.start and reached <= before[1]):
            return
        self._multiples[event["sym"]] = day.start, reached
        if before is not None and before[0] == day.start:
            crossed = MULTIPLES[reached - 1]
            self._say(event, "rel_volume", crossed, f"the day's volume is over {crossed} times the average day's", said)

    def _say(self, event: dict[str, Any], kind: str, value: float, note: str, said: dict[str, Any]) -> None:
        self._tell("alerts:volume", {
            "sym": event["sym"], "kind": kind, "price": float(event["p"]), "prev": None, "value": value, "session": said["session"],
            "note": note, "ts": event["t"], "quote": said,
        })  # fmt: skip


class Halts:
    """The states of symbols, and the alerts when they change."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.states: dict[str, dict[str, Any]] = {}
        self.since: dict[str, int] = {}

    def take(self, event: dict[str, Any]) -> None:
        symbol, ts, codes = event["T"], event["t"], set(event["i"])
        before = self.states.get(symbol, {"state": "trading", "ts": 0})
        if ts < before["ts"]:
            return
        state = "halted" if 17 in codes else "trading" if 18 in codes else before["state"]
        high, low = float(event["h"]), float(event["l"])
        self.states[symbol] = {"state": state, "high_band": high, "low_band": low, "indicators": sorted(codes), "ts": ts}
        if state == before["state"]:
            return
        note = "trading is halted"
        if state == "halted":
            self.since[symbol] = ts
        else:
            seconds = (ts - self.since.pop(symbol)) // 1000
            note = f"trading resumes after {seconds // 60} min {seconds % 60} s"
        self._tell("alerts:halts", {
            "sym": symbol, "kind": "halted" if state == "halted" else "resumed", "value": None, "prev": None, "ts": ts,
            "high_band": high, "low_band": low, "note": f"{note}, bands {price_text(low)} to {price_text(high)}",
        })  # fmt: skip


assert SURGE_PAUSE_MS % SLICE_MS == 0
