"""Checks the processors' defaults, and that a wrong value is refused with its variable's name."""

from __future__ import annotations

import pytest

from mdp.settings import MdpSettings
from service.errors import OperatorError
from service.settings import load


def test_defaults_run_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing set: all analyzers, a flush every 50 ms."""
    settings = load(MdpSettings)
    assert settings.analyzer_names == ["quote", "bars", "trades", "stats", "halts", "news", "boards", "range", "book"]
    assert (settings.flush_ms, settings.admin_port) == (50, 9102)
    assert settings.flush_ms_max >= 5 * settings.flush_ms


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MDP_ANALYZERS", "quote,nonsense", "unknown analyzers nonsense"),
        ("MDP_ANALYZERS", ",", "unknown analyzers"),
        ("MDP_FLUSH_MS", "0", "MDP_FLUSH_MS"),
        ("MDP_FLUSH_MS", "600", "MDP_FLUSH_MS must not be above MDP_FLUSH_MS_MAX"),
        ("MDP_PREFETCH", "many", "MDP_PREFETCH"),
        ("MDP_BOARD_ROWS", "501", "MDP_BOARD_ROWS"),
        ("MDQ_PARTITIONS", "0", "MDQ_PARTITIONS"),
    ],
)
def test_a_wrong_value_is_told_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    """The operator learns which variable and why."""
    monkeypatch.setenv(name, value)
    with pytest.raises(OperatorError, match=says):
        load(MdpSettings)


def test_spaces_between_analyzers_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """`quote, bars` is what people write."""
    monkeypatch.setenv("MDP_ANALYZERS", "quote, bars")
    assert load(MdpSettings).analyzer_names == ["quote", "bars"]
