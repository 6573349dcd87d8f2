"""Checks how the environment of `make run` becomes settings, and that what cannot work is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.settings import read
from service.errors import OperatorError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("MDL_", "MDP_", "MDQ_", "MDC_", "WDS_", "SCP_", "ENGINE_", "BOTS_")
    words = ("FEED", "TAPE", "SPEED", "LOOP", "SYMBOLS", "RATE", "SEED", "API_KEY", "MARKET", "RUN_DIR", "LOG_LEVEL")
    for name in os.environ:
        if name.startswith(ours) or name in words:
            monkeypatch.delenv(name)


def test_nothing_set_is_simulator_and_exchange_with_embedded_servers() -> None:
    """`make run` alone needs nothing."""
    settings = read()
    assert settings.sources == ("simulator", "engine", "news")
    assert settings.embedded_queue
    assert settings.embedded_cache


def test_a_tape_alone_is_a_replay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TAPE without FEED replays it; a pattern that matches is a tape, too."""
    (tmp_path / "day.ndjson").write_text("")
    for tape in (tmp_path / "day.ndjson", tmp_path, tmp_path / "*.ndjson"):
        monkeypatch.setenv("TAPE", str(tape))
        assert read().source == "replay"


def test_real_servers_are_named_by_their_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    """MDQ_URL and MDC_URL switch, each for itself."""
    monkeypatch.setenv("MDQ_URL", "amqp://guest:guest@127.0.0.1:5672/")
    assert (read().embedded_queue, read().embedded_cache) == (False, True)
    monkeypatch.setenv("MDC_URL", "redis://127.0.0.1:6379/0")
    assert (read().embedded_queue, read().embedded_cache) == (False, False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"FEED": "telegraph"}, "FEED='telegraph'"),
        ({"FEED": "simulator+simulator"}, "must be massive, replay, simulator, engine or news, or several of them joined by +"),
        ({"FEED": "replay+engine"}, "FEED=replay needs a recording. Set TAPE"),
        ({"FEED": "replay+engine", "TAPE": __file__, "SPEED": "max"}, "Set SPEED to a number, or FEED=replay"),
        ({"FEED": "engine+massive"}, "FEED=massive needs the vendor's key. Set API_KEY"),
        ({"BOTS_RATE": "-1"}, "BOTS_RATE='-1'"),
        ({"FEED": "replay"}, "FEED=replay needs a recording. Set TAPE"),
        ({"FEED": "replay", "TAPE": "/no/such.ndjson.gz"}, "/no/such.ndjson.gz': there is no such file. Set TAPE"),
        ({"FEED": "massive"}, "FEED=massive needs the vendor's key. Set API_KEY"),
        ({"FEED": "engine+news"}, "FEED=…+news needs the vendor's key. Set API_KEY, or NEWS_URL=simulated"),
        ({"SPEED": "fast"}, "SPEED='fast': must be a number like 1, 0.5 or 20, or max"),
        ({"SPEED": "0"}, "SPEED='0'"),
        ({"SYMBOLS": "0"}, "SYMBOLS='0'"),
        ({"RATE": "-1"}, "RATE='-1'"),
        ({"SCP_PORT": "70000"}, "SCP_PORT='70000'"),
        ({"MARKET": "tulips"}, "MARKET='tulips'"),
        ({"MDQ_URL": "rabbit"}, "MDQ_URL='rabbit'"),
        ({"MDP_WORKERS": "3"}, "Set MDQ_URL"),
    ],
)
def test_what_cannot_work_is_one_line(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], says: str) -> None:
    """The line names the variable and what to set."""
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OperatorError) as failed:
        read()
    assert says in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_key_may_come_in_either_variable_or_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """API_KEY is short for MDL_API_KEY; MDL_API_KEY_FILE keeps the key out of the environment."""
    monkeypatch.setenv("FEED", "massive")
    for name in ("API_KEY", "MDL_API_KEY", "MDL_API_KEY_FILE"):
        with monkeypatch.context() as only:
            only.setenv(name, "key")
            assert read().source == "massive"
