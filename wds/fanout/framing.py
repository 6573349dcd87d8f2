"""Encodes a text payload as one whole unmasked WebSocket frame (RFC 6455, 5.2), made once and written to every member."""

from __future__ import annotations

from struct import pack

TEXT_FIN = 0x81


def text_frame(payload: bytes) -> bytes:
    """Return the frame; never compressed, never fragmented."""
    size = len(payload)
    if size < 126:
        return pack("!BB", TEXT_FIN, size) + payload
    if size < 65_536:
        return pack("!BBH", TEXT_FIN, 126, size) + payload
    return pack("!BBQ", TEXT_FIN, 127, size) + payload
