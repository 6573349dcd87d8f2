"""Checks the processors' defaults, and that a wrong value is refused with its variable's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdp.analyzers.alerts.alert import Thresholds
from mdp.settings import MdpSettings
from service.errors import OperatorError
from service.settings import load, shown


def test_defaults_run_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing set: all analyzers, a flush every 50 ms."""
    settings = load(MdpSettings)
    assert settings.analyzer_names == [
        "quote",
        "bars",
        "trades",
        "stats",
        "halts",
        "news",
        "boards",
        "range",
        "gap",
        "volume",
        "news_alerts",
        "book",
    ]
    assert (settings.flush_ms, settings.admin_port) == (50, 9102)
    assert settings.thresholds == Thresholds()
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
        ("MDP_ALERT_PAUSE_MS", "-1", "MDP_ALERT_PAUSE_MS"),
        ("MDP_ALERT_GAP_PCT", "nan", "MDP_ALERT_GAP_PCT"),
        ("MDP_ALERT_NEWS_MIN", "2000", "MDP_ALERT_NEWS_MIN"),
        ("MDP_ALERT_VOLUME_TIMES", "-1", "MDP_ALERT_VOLUME_TIMES"),
        ("MDP_ALERT_VOLUME_PAUSE_S", "1.5", "MDP_ALERT_VOLUME_PAUSE_S"),
        ("MDP_ALERT_REL_VOLUME", "5,2", "ascending numbers above 0"),
        ("MDP_ALERT_REL_VOLUME", "1,nan", "ascending numbers above 0"),
        ("MDP_ALERT_REL_VOLUME", "much", "ascending numbers above 0"),
        ("MDP_REST_URL", "api.example.com", "MDP_REST_URL.*https://api.massive.com"),
        ("MDP_REST_URL", "wss://api.example.com", "MDP_REST_URL.*https://api.massive.com"),
        ("MDP_REST_URL", "http://api.example.com", "the vendor's key in clear: write https://"),
        ("MDP_REST_RATE", "0", "MDP_REST_RATE"),
    ],
)
def test_a_wrong_value_is_told_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    """The operator learns which variable and why."""
    monkeypatch.setenv(name, value)
    with pytest.raises(OperatorError, match=says):
        load(MdpSettings)


def test_thresholds_of_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its variable; `none` means no multiples."""
    for name, value in (
        ("PAUSE_MS", "0"),
        ("GAP_PCT", "2.5"),
        ("VOLUME_TIMES", "3"),
        ("VOLUME_PAUSE_S", "60"),
        ("REL_VOLUME", "1, 3.5"),
    ):
        monkeypatch.setenv(f"MDP_ALERT_{name}", value)
    assert load(MdpSettings).thresholds == Thresholds(0, 3, 60_000, (1, 3.5), 2.5)
    monkeypatch.setenv("MDP_ALERT_REL_VOLUME", "none")
    assert load(MdpSettings).thresholds.rel_volumes == ()


def test_spaces_between_analyzers_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """`quote, bars` is what people write."""
    monkeypatch.setenv("MDP_ANALYZERS", "quote, bars")
    assert load(MdpSettings).analyzer_names == ["quote", "bars"]


@pytest.mark.parametrize(("value", "names"), [("*", ["*"]), ("none", ["none"]), (" bursts , spread_2 ", ["bursts", "spread_2"])])
def test_plugins_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch, value: str, names: list[str]) -> None:
    """All that are installed, none, or those that are named."""
    monkeypatch.setenv("MDP_PLUGINS", value)
    assert load(MdpSettings).plugin_names == names


@pytest.mark.parametrize("value", ["", "a,,b", "Bursts", "a b", "../x"])
def test_what_is_no_name_of_a_plugin_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """In a line that says what is meant."""
    monkeypatch.setenv("MDP_PLUGINS", value)
    if value:
        with pytest.raises(OperatorError, match=r"MDP_PLUGINS.*list of names such as"):
            load(MdpSettings)
    else:
        assert load(MdpSettings).plugin_names == ["*"]  # an empty variable is none


def test_the_rest_key_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the variable, else from the file as it is now; without either there is none, and nothing of it is shown."""
    file = tmp_path / "key"
    monkeypatch.setenv("MDP_REST_KEY_FILE", str(file))
    settings = load(MdpSettings)
    assert settings.rest_key_now() == ""
    file.write_text("first\n")
    assert settings.rest_key_now() == "first"
    monkeypatch.delenv("MDP_REST_KEY_FILE")
    monkeypatch.setenv("MDP_REST_KEY", "given")
    settings = load(MdpSettings)
    assert settings.rest_key_now() == "given"
    assert "given" not in str(shown(settings))
