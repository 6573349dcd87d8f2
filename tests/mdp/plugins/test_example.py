"""The worked example against plain arithmetic over all trades, and over a hand-over in the middle."""

from __future__ import annotations

import random
from statistics import fmean
from typing import Any

from mdp.plugins.example.tapeline_big_prints import TIMES, TRADES_MIN, BigPrints
from tests.mdp.plugins.desk import BASE_MS, PluginDesk


def trades(count: int, seed: int = 5) -> list[dict[str, Any]]:
    """Return trades of three symbols, of which a few are large."""
    dice, made = random.Random(seed), []
    for n in range(count):
        size = dice.randint(1, 100) * (40 if dice.random() < 0.02 else 1)
        codes = [44] if dice.random() < 0.05 else []  # canceled: no volume
        price = round(dice.uniform(90, 110), 2)
        sym = dice.choice("ABC")
        made.append({"ev": "T", "sym": sym, "p": price, "s": size, "t": BASE_MS + n, "c": codes, "x": 4, "i": str(n)})
    return made


def test_big_prints_are_those_of_plain_arithmetic() -> None:
    """Each report, the totals and the board's order, however often was flushed and whoever owned the partition."""
    desk, made = PluginDesk(BigPrints, names=("big_prints",)), trades(3_000)
    wanted: dict[str, list[tuple[float, int]]] = {sym: [] for sym in "ABC"}
    values: dict[str, list[float]] = {sym: [] for sym in "ABC"}
    for trade in made:
        if not trade["c"]:
            value, before = trade["p"] * trade["s"], values[trade["sym"]]
            if len(before) >= TRADES_MIN and value >= TIMES * fmean(before):
                wanted[trade["sym"]].append((trade["p"], trade["s"]))
            before.append(value)
    for at in range(0, len(made), 100):
        desk.feed(*made[at : at + 100])
        desk.flush(700)
        if at == 1_500:
            desk.next_owner()
    desk.flush(1_100)
    parts = {}
    for sym, big in wanted.items():
        told = desk.cache.events(f"ownlog:big_prints:{sym}")
        assert [(one["price"], one["size"]) for one in told] == big
        assert all(one["vwap_gap_pct"] is not None and abs(one["vwap_gap_pct"]) < 20 for one in told)
        found = desk.own(f"own:big_prints:{sym}")
        parts[sym] = round(sum(p * s for p, s in big) / sum(values[sym]), 4)
        assert (found["big"], found["part"], found["trades"]) == (len(big), parts[sym], len(values[sym]))
    assert min(map(len, wanted.values())) > 5
    import json

    share = json.loads(desk.cache.shares["board:big_prints"])
    assert [(sym, row["part"]) for _, sym, row in share] == sorted(parts.items(), key=lambda item: -item[1])
