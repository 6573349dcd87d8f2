"""Tells where a URL leads, and whether a secret could be read on the way there."""

from __future__ import annotations

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


def exposed(url: str) -> bool:
    """Return whether what is sent to `url` crosses a network unencrypted."""
    parts = urlsplit(url)
    return parts.scheme in ("ws", "http") and not _loopback(parts.hostname or "")


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
