"""A naive model of range alerts that keeps every trade of one day."""

from __future__ import annotations

from typing import Any

from mdp.analyzers.alerts.alert import decimal
from mdp.events.conditions import EXTENDED, HIGH_LOW, rule_of
from tests.mdp.feed import START_MS, Event

DAY_MS = 86_400_000
OPENS_MS = START_MS - START_MS % DAY_MS + 14 * 3_600_000 + 1_800_000  # 09:30 in New York
CLOSES_MS = OPENS_MS + 23_400_000
PAUSE_MS = 1_000
WORDS = {"pre": "the pre-market", "regular": "the regular session's", "post": "the after-hours", "": "the day's"}


class PlainRanges:
    """Goes over all trades of one day in their order, keeps each session's prices, and tells what its rules say."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []  # (symbol, kind, price, prev, note, ts)
        self.prices: dict[str, dict[str, list[float]]] = {}
        self.chains: dict[tuple[str, str, str], dict[str, Any]] = {}

    def end(self) -> None:
        """Tell what still waits."""
        self._release_until(float("inf"))

    def take(self, event: Event) -> None:
        sym, ts, price = event.get("sym") or event["pair"], event["t"], event["p"]
        self._release_until(ts)
        rule = rule_of(event["c"]) if event["ev"] == "T" else HIGH_LOW
        if not rule & HIGH_LOW:
            return
        session = "" if event["ev"] == "XT" else "regular"
        if rule & EXTENDED:
            if OPENS_MS <= ts < CLOSES_MS:
                return
            session = "pre" if ts < OPENS_MS else "post"
        day = self.prices.setdefault(sym, {})
        others = {name: prices for name, prices in day.items() if name != session}
        seen = list(day.get(session, ())) or [price for prices in others.values() for price in prices]
        day.setdefault(session, []).append(price)
        if not seen or (session == "pre" and "regular" in day):
            return
        for kind, edge, sign, words in (
            (
                "new_high",
                max,
                1,
                "above",
            ),
            ("new_low", min, -1, "below"),
        ):
            before = edge(seen)
            if sign * price > sign * before:
                self._beyond(
                    sym, session, kind, words, price, before, ts, {name: edge(prices) for name, prices in others.items()}
                )

    def _beyond(
        self, sym: str, session: str, kind: str, words: str, price: float, prev: float, ts: int, others: dict[str, float]
    ) -> None:  # fmt: skip
        chain = self.chains.setdefault((sym, ("pre", "", "regular", "post").index(session), kind), {"told": None, "waits": None})
        late = chain["told"] is not None and abs(ts - chain["told"]) < PAUSE_MS
        if late and chain["waits"]:
            prev = chain["waits"][3]
        elif not late:
            self._release(chain)
        low, high = sorted((prev, price))
        passed = {name: value for name, value in others.items() if low <= value <= high and value != price}
        best = (max if kind == "new_high" else min)([prev, *passed.values()])
        whose = next((name for name in ("post", "regular", "pre") if passed.get(name) == best), session)
        told = (sym, kind, price, prev, f"{words} {WORDS[whose]} {kind[4:]} of {decimal(best)}", ts)
        if late:
            chain["waits"] = told
        else:
            self.told.append(told)
            chain["told"] = ts

    def _release_until(self, ts: float) -> None:
        waiting = [(chain["told"] + PAUSE_MS, key, chain) for key, chain in self.chains.items() if chain["waits"]]
        for due_ms, _, chain in sorted(waiting, key=lambda one: (one[0], one[1][0], one[1][1], one[1][2] == "new_high")):
            if due_ms <= ts:
                self._release(chain)

    def _release(self, chain: dict[str, Any]) -> None:
        if chain["waits"]:
            self.told.append(chain["waits"])
            chain["waits"], chain["told"] = None, chain["told"] + PAUSE_MS
