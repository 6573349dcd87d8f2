"""Checks which analyzers are built from a list of names, and in which order."""

from __future__ import annotations

import pytest

from mdp import roster
from mdp.analyzers.boards import BoardsAnalyzer
from mdp.analyzers.quote import QuoteAnalyzer


def test_all_are_built_in_their_order() -> None:
    """Boards rank what quote, stats and halts know, so these see every event first; names in checkpoints are unique."""
    made = roster.build(roster.ANALYZERS, {}, 500)
    assert [a.name for a in made] == [
        "quote",
        "bars:1s",
        "bars:5s",
        "bars:1m",
        "bars:5m",
        "bars:1h",
        "bars:1d",
        "trades",
        "stats",
        "halts",
        "news",
        "headlines",
        "boards",
        "range",
        "gap",
        "volume",
        "news_alerts",
        "book",
    ]


@pytest.mark.parametrize("names", [("boards",), ("boards", "quote"), ("quote", "boards")])
def test_boards_bring_their_quotes(names: tuple[str, ...]) -> None:
    """Boards alone would rank nothing."""
    made = roster.build(names, {}, 500)
    assert [type(a) for a in made] == [QuoteAnalyzer, BoardsAnalyzer]
    assert made[1]._quotes is made[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "brings"),
    [
        ("range", ["quote", "range"]),
        ("gap", ["quote", "gap"]),
        ("volume", ["quote", "stats", "volume"]),
        ("news_alerts", ["quote", "range", "news_alerts"]),
    ],
)
def test_alerts_bring_what_they_look_at(name: str, brings: list[str]) -> None:
    """Their quotes, and the windows; what nobody asked for is told nothing."""
    made = roster.build((name,), {}, 5)
    assert [a.name for a in made] == brings
    quotes = made[0]
    assert isinstance(quotes, QuoteAnalyzer)
    assert (quotes.on_open is None) is (name != "gap")


def test_partitions_share_nothing() -> None:
    """Each call makes new ones."""
    assert not set(map(id, roster.build(("bars",), {}, 5))) & set(map(id, roster.build(("bars",), {}, 5)))
