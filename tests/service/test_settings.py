"""Checks that environment variables become typed settings, and that bad values end in one clear line."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from pydantic import AliasChoices, Field, SecretStr

from service.errors import OperatorError
from service.settings import (
    ComponentSettings,
    admin_token,
    check_url,
    hide_password,
    load,
    secret_file,
    shown,
    variables,
)


class ReelSettings(ComponentSettings):
    """A component of this test."""

    width: int = Field(3, ge=1, le=9, validation_alias="REEL_WIDTH", description="heads")
    key: SecretStr = Field(
        SecretStr(""), max_length=9, validation_alias=AliasChoices("REEL_KEY", "COIL_KEY"), description="the door's"
    )
    list_path: Path | None = Field(None, validation_alias="REEL_LIST_FILE", description="a file that is read as a file")
    list: str = Field("", validation_alias="REEL_LIST", description="the list itself")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MDQ_URL", "MDC_URL", "RUN_DIR", "LOG_LEVEL", "ADMIN_TOKEN", "REEL_WIDTH", "MDQ_PARTITIONS", "REEL_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_becomes_typed_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable is read by its upper-case name, everything else has its default."""
    monkeypatch.setenv("REEL_WIDTH", "7")
    settings = load(ReelSettings)
    assert (settings.width, settings.mdq_partitions, settings.mdq_url) == (7, 8, "memory://")


def test_an_empty_variable_is_an_absent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`REEL_WIDTH=` means the default, as it does in a Makefile or a compose file that passes nothing on."""
    monkeypatch.setenv("REEL_WIDTH", "")
    assert load(ReelSettings).width == 3


def test_settings_cannot_be_changed() -> None:
    """Settings are read once; nothing changes them behind a component's back."""
    with pytest.raises(ValueError, match="frozen"):
        load(ReelSettings).width = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("REEL_WIDTH", "many", "REEL_WIDTH='many'"),
        ("REEL_WIDTH", "10", "less than or equal to 9"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL='loud'"),
        ("MDQ_URL", "http://127.0.0.1", "amqp://guest:guest@127.0.0.1:5672/"),
        ("MDQ_URL", "amqp://", "amqp://guest:guest@127.0.0.1:5672/"),
        ("MDC_URL", "redis://127.0.0.1:port", "redis://127.0.0.1:6379/0"),
        ("MDC_URL", "127.0.0.1:6379", "redis://127.0.0.1:6379/0"),
        ("MDC_URL", "redis://127.0.0.1:99999/0", "MDC_URL="),
        ("MDC_URL", "redis://[::1/0", "redis://127.0.0.1:6379/0"),
    ],
)
def test_a_bad_value_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    """The line names the variable, the value and what it must be."""
    monkeypatch.setenv(name, value)
    with pytest.raises(OperatorError) as failed:
        load(ReelSettings)
    assert name in str(failed.value)
    assert says in str(failed.value)
    assert "\n" not in str(failed.value)
    assert failed.value.exit_code == 2


def test_every_bad_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mistakes need one correction round, not two."""
    monkeypatch.setenv("REEL_WIDTH", "0")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(OperatorError, match=r"(?=.*REEL_WIDTH)(?=.*LOG_LEVEL)"):
        load(ReelSettings)


@pytest.mark.parametrize("url", ["http://user:hunter2@127.0.0.1/", "amqp://user:hunter2@[broken", "redis://:hunter2@:/0"])
def test_a_password_in_a_bad_url_is_not_printed(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """An error line ends up in terminals and logs: it never carries a password."""
    monkeypatch.setenv("MDQ_URL", url)
    with pytest.raises(OperatorError) as failed:
        load(ReelSettings)
    assert "hunter2" not in str(failed.value)
    assert "***" in str(failed.value)


def test_the_start_up_line_hides_secrets() -> None:
    """Settings are logged once at start; tokens and URL passwords are not in there."""
    settings = ReelSettings(mdc_url="redis://:hunter2@127.0.0.1:6379/0", admin_token=SecretStr("hunter3"))
    assert "hunter" not in str(shown(settings))
    assert "127.0.0.1:6379" in str(shown(settings))


@pytest.mark.parametrize("text", ["no url", "redis://127.0.0.1/0", "amqp://user@127.0.0.1/", "redis://[broken/0"])
def test_text_without_a_password_stays_as_it_is(text: str) -> None:
    """Hiding changes nothing but passwords."""
    assert hide_password(text) == text


def test_a_token_in_a_query_is_not_printed() -> None:
    """Some services take their key in the address."""
    assert hide_password("wss://h/a?x=1&apiToken=hunter2&y=2") == "wss://h/a?x=1&apiToken=***&y=2"


def test_urls_of_every_supported_kind_pass() -> None:
    """TLS, sockets and the in-process servers are URLs, too."""
    for url in ("amqps://q.example:5671/v", "amqp://[::1]:5672/"):
        assert check_url(url, ("amqp", "amqps"), "") == url
    for url in ("unix:///run/redis.sock", "memory://"):
        assert check_url(url, ("unix", "memory"), "") == url


def test_a_given_admin_token_wins(tmp_path: Path) -> None:
    """ADMIN_TOKEN is used as it is and nothing is written."""
    settings = ReelSettings(run_dir=tmp_path, admin_token=SecretStr("given"))
    assert admin_token(settings) == "given"
    assert list(tmp_path.iterdir()) == []


def test_an_admin_token_is_made_once(tmp_path: Path) -> None:
    """Without one, a long random token is kept in RUN_DIR for the owner only."""
    settings = ReelSettings(run_dir=tmp_path / "run")
    token = admin_token(settings)
    assert len(token) >= 40
    assert admin_token(settings) == token
    assert stat.S_IMODE((tmp_path / "run/admin.token").stat().st_mode) == 0o600


def test_processes_that_start_together_agree_on_a_secret(tmp_path: Path) -> None:
    """Whoever loses the race reads the winner's secret; nothing temporary stays behind."""
    together, made, got = threading.Barrier(8), iter(range(8)), []

    def make() -> bytes:
        together.wait(5)
        return b"secret %d" % next(made)

    def want() -> None:
        got.append(secret_file(tmp_path / "shared.key", make))

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len(set(got)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["shared.key"]


def test_an_unwritable_run_dir_is_one_clear_line(tmp_path: Path) -> None:
    """A path that cannot hold a secret names RUN_DIR."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OperatorError, match="Set RUN_DIR"):
        secret_file(tmp_path / "file" / "admin.token", lambda: b"x")


def test_every_variable_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NAME_FILE=/run/secrets/name is read once; the newline that editors add is not part of the value."""
    for name, text in (
        ("MDQ_URL", "amqp://u:p%0A@q/\r\n"),
        ("REEL_WIDTH", "5"),
        ("ADMIN_TOKEN", " spaced \n"),
        ("COIL_KEY", "k\n"),
    ):
        (tmp_path / name).write_bytes(text.encode())
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    settings = load(ReelSettings)
    assert (settings.mdq_url, settings.width, settings.key.get_secret_value()) == ("amqp://u:p%0A@q/", 5, "k")
    assert admin_token(settings) == " spaced "
    assert load(ReelSettings, log_level="debug").log_level == "debug"


def test_a_file_that_is_a_setting_of_its_own_stays_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """REEL_LIST_FILE is a field: its path is the value, and REEL_LIST is not filled from it."""
    (tmp_path / "list").write_text("a")
    monkeypatch.setenv("REEL_LIST_FILE", str(tmp_path / "list"))
    assert (load(ReelSettings).list_path, load(ReelSettings).list) == (tmp_path / "list", "")


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no such file"), (b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "UTF-8"), (b"x" * 65_537, "65536 bytes")],
)
def test_a_file_without_a_value_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, says: str
) -> None:
    """The line names the variable and the path; an empty secret never means an open door."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("ADMIN_TOKEN_FILE", str(path))
    monkeypatch.setenv("MDC_URL_FILE", str(tmp_path))
    with pytest.raises(OperatorError) as failed:
        load(ReelSettings)
    assert f"ADMIN_TOKEN_FILE='{path}'" in str(failed.value)
    assert says in str(failed.value)
    assert "is a directory" in str(failed.value), "every file at fault is named at once"
    assert "\n" not in str(failed.value)


def test_a_value_and_a_file_contradict_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody has to guess which of the two counts."""
    (tmp_path / "token").write_text("a")
    monkeypatch.setenv("ADMIN_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("ADMIN_TOKEN", "b")
    with pytest.raises(OperatorError, match="ADMIN_TOKEN is set, too"):
        load(ReelSettings)


def test_a_bad_secret_is_not_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a secret only its name, its file and what it must be are said."""
    (tmp_path / "key").write_text("hunter2hunter2")
    monkeypatch.setenv("COIL_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(OperatorError) as failed:
        load(ReelSettings)
    assert "hunter2" not in str(failed.value)
    assert "COIL_KEY='***' (from" in str(failed.value)


def test_the_variables_of_a_class_are_known() -> None:
    """Charts and compose files are checked against this list."""
    known = variables(ReelSettings)
    assert known["REEL_KEY"] is known["COIL_KEY"] is known["ADMIN_TOKEN"] is True
    assert known["MDQ_URL"] is known["REEL_WIDTH"] is False
