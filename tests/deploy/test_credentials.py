"""deploy/credentials.py: the secrets of a stack fit each other, are made once, and are closed to others."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.fernet import Fernet

from deploy.credentials import make
from scp.settings import check_database_url
from service.errors import OperatorError
from service.settings import ComponentSettings, load


def test_what_is_made_fits_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers' settings, URLs and passwords are of one piece, and the settings classes take the URLs from their files."""
    make(tmp_path / "s")
    read = lambda name: (tmp_path / "s" / name).read_text()  # noqa: E731
    assert f"default_pass = {read('rabbitmq_password')}\n" in read("rabbitmq.conf")
    assert f"requirepass {read('redis_password')}\n" in read("redis.conf")
    assert "appendonly yes" in read("streams.conf")
    for name in ("MDQ_URL", "MDC_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "s" / name.lower()))
    settings = load(ComponentSettings)
    assert urlsplit(settings.mdq_url).password == read("rabbitmq_password")
    assert urlsplit(settings.mdc_url).password == read("redis_password")
    check_database_url(read("scp_database_url"))
    Fernet(read("scp_secret_key").encode())
    assert len({read(name) for name in ("engine_token", "market_data_token", "admin_token")}) == 3


def test_a_second_run_changes_nothing_and_tls_keeps_the_passwords(tmp_path: Path) -> None:
    """A stack that is started again finds its servers' passwords; what was put there by hand stays."""
    make(tmp_path)
    (tmp_path / "mdl_api_key").chmod(0o644)
    (tmp_path / "mdl_api_key").write_text("the vendor's")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert make(tmp_path) == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    make(tmp_path, tls=True)
    assert (tmp_path / "mdq_url").read_text().startswith("amqps://")
    assert (tmp_path / "mdc_url").read_text().startswith("rediss://")
    assert (tmp_path / "redis_password").read_bytes() == before["redis_password"]


def test_the_url_of_a_server_of_ones_own_stays(tmp_path: Path) -> None:
    """Written before the first `make up` or after it, with TLS inside or without: it is nothing that this command made."""
    tmp_path.joinpath("mdc_url").write_text("rediss://:secret@cache.example.com:6380/0")
    make(tmp_path)
    tmp_path.joinpath("mdq_url").chmod(0o644)
    tmp_path.joinpath("mdq_url").write_text("amqps://me:secret@queues.example.com/desk\n")
    make(tmp_path, tls=True)
    make(tmp_path)
    assert tmp_path.joinpath("mdc_url").read_text() == "rediss://:secret@cache.example.com:6380/0"
    assert tmp_path.joinpath("mdq_url").read_text() == "amqps://me:secret@queues.example.com/desk\n"
    assert tmp_path.joinpath("streams_url").read_text().startswith("redis://")


def test_the_certificate_is_signed_by_the_ca_for_every_server(tmp_path: Path) -> None:
    """A client that trusts `ca.pem` alone accepts the servers under their names in the stack."""
    make(tmp_path, tls=True, hosts=("desk.example.com", "192.0.2.7"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    for host in ("rabbitmq", "redis", "streams", "desk.example.com", "192.0.2.7"):
        client = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        assert shake_hands(client, server, host)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(ssl.create_default_context(cafile=tmp_path / "ca.pem"), server, "evil.example.com")


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> bool:
    """Let two contexts meet in memory."""
    wires = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(*wires, server_hostname=host)
    theirs = server.wrap_bio(wires[1], wires[0], server_side=True)
    for _ in range(6):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours.version() is not None


def test_others_on_the_host_read_nothing(tmp_path: Path) -> None:
    """The folder is the owner's; the files are readable for the containers they are mounted into, and written by nobody."""
    make(tmp_path / "s")
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "s").iterdir()} == {0o444}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """The operator reads which folder, and what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match=r"cannot keep secrets in .*file"):
        make(tmp_path / "file" / "s")
