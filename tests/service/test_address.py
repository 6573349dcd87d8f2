"""Where a URL leads, and whether what is sent there can be read on the way."""

from __future__ import annotations

import pytest

from service.address import address_of, exposed, hosts_of, one_host_each


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://Some.Host", ("some.host", 80)),
        ("wss://some.host/path", ("some.host", 443)),
        ("http://[::1]:8181", ("::1", 8181)),
        ("wss://socket.massive.com@evil.example", ("evil.example", 443)),
    ],
)
def test_an_address_is_host_and_port(url: str, address: tuple[str, int]) -> None:
    """With the scheme's port when none is written; what stands before an @ is no host."""
    assert address_of(url) == address


@pytest.mark.parametrize(
    ("url", "open_"),
    [
        ("ws://some.host", True),
        ("http://10.0.0.1", True),
        ("wss://some.host", False),
        ("https://10.0.0.1", False),
        ("ws://127.0.0.1:1", False),
        ("ws://127.9.9.9", False),
        ("http://[::1]", False),
        ("ws://LOCALHOST", False),
        ("ws://localhost.evil.example", True),
        ("ws://127.0.0.1.evil.example", True),
        ("ws://127.0.0.1@evil.example", True),
        ("ws://0.0.0.0", True),
    ],
)
def test_only_tls_and_loopback_hide_what_is_sent(url: str, open_: bool) -> None:
    """Names that only look like this machine are other machines."""
    assert exposed(url) is open_


def test_a_network_of_our_own_is_named_host_by_host() -> None:
    """Containers of one deployment may speak unencrypted to each other; a longer name is another host."""
    assert not exposed("http://Engine:8181", {"engine"})
    assert exposed("http://engine.evil.example:8181", {"engine"})
    assert hosts_of(" Engine,,standby ") == {"engine", "standby"}
    assert not hosts_of(" , ")


@pytest.mark.parametrize(
    ("url", "each"),
    [
        ("amqp://host", ["amqp://host"]),
        ("amqp://u:p@a:1,b,c:3/v?x=1,2", ["amqp://u:p@a:1/v?x=1,2", "amqp://u:p@b/v?x=1,2", "amqp://u:p@c:3/v?x=1,2"]),
        ("amqps://u:a,b@[::1]:1,[::2]/", ["amqps://u:a,b@[::1]:1/", "amqps://u:a,b@[::2]/"]),
        ("amqp://a,b?heartbeat=1", ["amqp://a?heartbeat=1", "amqp://b?heartbeat=1"]),
    ],
)
def test_several_hosts_are_several_urls(url: str, each: list[str]) -> None:
    """Credentials, path and query belong to each of them; a comma in one of those separates nothing."""
    assert one_host_each(url) == each
