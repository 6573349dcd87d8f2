"""Tells where a URL leads, and whether a secret could be read on the way there."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}


class Address(NamedTuple):
    """One server: two ports of a host are two servers, and may be two people's."""

    host: str
    port: int


def address_of(url: str) -> Address:
    """Return where `url` leads, which is one of ws, wss, http, https."""
    parts = urlsplit(url)
    return Address((parts.hostname or "").lower(), parts.port or PORTS[parts.scheme])


def one_host_each(url: str) -> list[str]:
    """Return a URL for every host of `url`, which may name several: scheme://user:password@a:5672,b:5672/path?query."""
    scheme, slashes, rest = url.partition("://")
    end = min((place for mark in "/?#" if (place := rest.find(mark, rest.rfind("@") + 1)) >= 0), default=len(rest))
    user, at, hosts = rest[:end].rpartition("@")
    return [f"{scheme}{slashes}{user}{at}{host}{rest[end:]}" for host in hosts.split(",")]


def exposed(url: str, private: Collection[str] = ()) -> bool:
    """Return whether what is sent to `url` crosses a network unencrypted on which others may read it.

    `private` are the host names, in lower case, that lie on a network of our own.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    return parts.scheme in ("ws", "http") and not _loopback(host) and host not in private


def hosts_of(words: str) -> frozenset[str]:
    """Return the host names of a comma-separated setting, in lower case."""
    return frozenset(filter(None, (word.strip().lower() for word in words.split(","))))


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
