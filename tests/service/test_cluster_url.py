"""Checks how the address of a Redis Cluster is read, and that a wrong one is told in a line that says what to write."""

from __future__ import annotations

import pytest

from service.cluster_url import NODES_MAX, is_cluster, parse_cluster_url
from service.errors import OperatorError
from service.settings import ComponentSettings, hide_password, load


def test_nodes_credentials_and_options_are_the_same_for_all() -> None:
    """Each node gets a URL of its own; a port that is not given is 6379."""
    found = parse_cluster_url("rediss-cluster://me:p%40ss@a:7000,b,[::1]:7002?ssl_cert_reqs=none")
    assert found.nodes == (("a", 7000), ("b", 6379), ("::1", 7002))
    assert found.secure
    assert [found.of(node) for node in found.nodes] == [
        "rediss://me:p%40ss@a:7000/0?ssl_cert_reqs=none",
        "rediss://me:p%40ss@b:6379/0?ssl_cert_reqs=none",
        "rediss://me:p%40ss@[::1]:7002/0?ssl_cert_reqs=none",
    ]
    assert is_cluster("redis-cluster://a")
    assert not is_cluster("redis://a")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis-cluster://", "names no node"),
        ("redis-cluster://a,,b", "names no node"),
        ("redis-cluster://:word@", "names no node"),
        ("redis-cluster://a,b/2", "only number 0"),
        ("redis-cluster://a,redis://b", "scheme more than once"),
        ("redis-cluster://a:0,b", "cannot be reached"),
        ("redis-cluster://a:70000,b", "no number from 1 to 65535"),
        ("redis-cluster://a:x", "no number from 1 to 65535"),
        ("redis-cluster://" + ",".join(["a"] * (NODES_MAX + 1)), "names no node"),
        ("redis://a,b", "write a cluster like redis-cluster://"),
        ("redis+cluster://a,b", "write a cluster like redis-cluster://"),
        ("cluster://a", "schemes: redis"),
    ],
)
def test_a_wrong_address_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, url: str, words: str) -> None:
    """It names the variable and says what to write."""
    monkeypatch.setenv("MDC_URL", url)
    with pytest.raises(OperatorError) as caught:
        load(ComponentSettings)
    assert words in str(caught.value)
    assert str(caught.value).startswith("MDC_URL=")
    assert "\n" not in str(caught.value)


def test_a_right_address_is_taken_and_its_password_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a single server is."""
    url = "redis-cluster://:secret-word@a:7000,b:7001"
    monkeypatch.setenv("MDC_URL", url)
    assert load(ComponentSettings).mdc_url == url
    assert "secret-word" not in hide_password(url)
