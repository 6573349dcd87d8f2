"""The engine's settings from the environment, or one line that says what to do."""

from __future__ import annotations

import pytest

from engine.settings import EngineSettings
from service.errors import OperatorError
from service.settings import load


def test_defaults_are_those_of_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback, the published ports, no servers needed, a snapshot a minute."""
    settings = load(EngineSettings)
    assert (settings.host, settings.port, settings.admin_port) == ("127.0.0.1", 8181, 9104)
    assert (settings.orders_url, settings.streams_url, settings.risk) == ("", "", False)
    assert (settings.snapshot_interval_ms, settings.snapshots_kept) == (60_000, 3)
    monkeypatch.setenv("SNAPSHOT_INTERVAL_MS", "5000")
    assert load(EngineSettings).snapshot_interval_ms == 5_000
    monkeypatch.setenv("ENGINE_SNAPSHOT_INTERVAL_MS", "7000")
    assert load(EngineSettings).snapshot_interval_ms == 7_000


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ENGINE_PORT", "70000", "ENGINE_PORT"),
        ("ENGINE_GROUP_MAX", "0", "ENGINE_GROUP_MAX"),
        ("ENGINE_ORDERS_URL", "redis://127.0.0.1", "amqp://"),
        ("ENGINE_STREAMS_URL", "127.0.0.1:6379", "redis://"),
        ("ENGINE_RISK", "perhaps", "ENGINE_RISK"),
    ],
)
def test_bad_settings_name_the_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str) -> None:
    """One error each, exit code 2."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(OperatorError, match=said) as error:
        load(EngineSettings)
    assert variable in str(error.value)
    assert error.value.exit_code == 2


def test_segments_are_removed_or_moved_not_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for an archive wants to keep it."""
    monkeypatch.setenv("ENGINE_PRUNE", "true")
    assert load(EngineSettings).prune
    monkeypatch.setenv("ENGINE_ARCHIVE_DIR", "archive")
    with pytest.raises(OperatorError, match="exclude each other"):
        load(EngineSettings)
