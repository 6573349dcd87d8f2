"""scp/settings.py: what the environment may say, and that the page stays on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from scp.settings import ScpSettings, is_loopback, refuse_public_address
from service.errors import OperatorError
from service.settings import load


def test_the_stream_is_on_this_machine_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without WDS_PUBLIC_URL the browser opens WDS_PORT here; with it, what it says."""
    monkeypatch.setenv("WDS_PORT", "8444")
    assert load(ScpSettings).wds_url == "ws://127.0.0.1:8444/v1/stream"
    monkeypatch.setenv("WDS_PUBLIC_URL", "wss://data.example.com/v1/stream")
    settings = load(ScpSettings)
    assert (settings.wds_url, settings.wds_address) == ("wss://data.example.com/v1/stream", ("data.example.com", 443))


@pytest.mark.parametrize(("name", "value"), [("WDS_PUBLIC_URL", "http://x"), ("SCP_PORT", "eighty"), ("SCP_TOKEN_S", "86400")])
def test_a_bad_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The operator reads which variable is wrong."""
    monkeypatch.setenv(name, value)
    with pytest.raises(OperatorError, match=name):
        load(ScpSettings)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
def test_addresses_of_this_machine_are_allowed(host: str) -> None:
    """Loopback in all its spellings."""
    assert is_loopback(host)
    refuse_public_address(ScpSettings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "localhost.example.com", "desk", ""])
def test_other_addresses_need_https_before_them(host: str) -> None:
    """Passwords never pass readable; a proxy that ends TLS has its address in SCP_PUBLIC_URL."""
    with pytest.raises(OperatorError, match="SCP_PUBLIC_URL=https"):
        refuse_public_address(ScpSettings(host=host))
    refuse_public_address(ScpSettings(host=host, public_url="https://desk.example.com"))
    refuse_public_address(ScpSettings(host=host, public_url="http://127.0.0.1:8000"))  # a container published on loopback


def test_the_probe_of_wds_may_go_another_way_than_browsers() -> None:
    """Inside a network of containers WDS has another address than outside."""
    settings = ScpSettings(wds_public_url="wss://desk.example.com/v1/stream", wds_probe_url="ws://wds:8400")
    assert (settings.wds_url, settings.wds_address) == ("wss://desk.example.com/v1/stream", ("wds", 8400))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCP_PUBLIC_URL", "http://desk.example.com"), ("SCP_PUBLIC_URL", "https://desk.example.com/page"),
        ("SCP_PUBLIC_URL", "https://me@desk.example.com"), ("SCP_PUBLIC_URL", "desk.example.com"),
        ("SCP_TRUSTED_PROXIES", "10.0.0.0/8,proxy"), ("SCP_DATABASE_URL", "mysql://x/y"), ("SCP_DATABASE_URL", "postgresql://x"),
        ("SCP_OIDC_ISSUER", "http://id.example.com"), ("SCP_OIDC_ISSUER", "https://id.example.com"), ("SCP_OIDC_ROLE", "admin"),
        ("SCP_SMTP_URL", "mail.example.com"), ("SCP_SESSION_S", "1"), ("SCP_REST_URL", "https://me@api.example.com"),
        ("SCP_REST_URL", "http://mdl:9101/simulated"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Before anything is opened; the line says how to write it."""
    monkeypatch.setenv(name, value)
    with pytest.raises(OperatorError, match=name):
        load(ScpSettings)


def test_the_vendors_key_goes_in_clear_only_to_hosts_of_a_network_of_our_own() -> None:
    """Each is named whole; a longer name, an address that is not named, and everybody when nobody is named are others."""
    url = "http://mdl:9101/simulated"
    assert ScpSettings(rest_url=url, private_hosts="engine, MDL").rest_url == url
    for other, hosts in (
        (url, ""),
        (url, ","),
        (url, "mdl2,l"),
        ("http://mdl.evil.example/x", "mdl"),
        ("http://10.0.0.7", "mdl"),
    ):
        with pytest.raises(ValueError, match=r"SCP_PRIVATE_HOSTS when nobody else is on that network"):
            ScpSettings(rest_url=other, private_hosts=hosts)


def test_the_vendors_key_may_come_from_a_file_that_is_filled_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack gives everybody the file; without a key in it the page starts, and a new key needs no new start."""
    file = tmp_path / "key"
    file.write_text("")
    monkeypatch.setenv("SCP_REST_KEY_FILE", str(file))
    settings = load(ScpSettings)
    assert settings.rest_key_now() == ""
    file.write_text("later\n")
    assert settings.rest_key_now() == "later"
    file.unlink()
    assert settings.rest_key_now() == ""
    assert ScpSettings(rest_key_file=file, rest_key="given").rest_key_now() == "given"
