"""Tells whether bytes are a picture that may be shown under our own address: PNG or JPEG of bounded size. Pure.

SVG is a document that may hold scripts and addresses of others; it is refused, whatever its sender calls it.
"""

from __future__ import annotations

PICTURE_KINDS = ("image/png", "image/jpeg")
PICTURE_BYTES_MAX = 256 * 1024
PIXELS_MAX = 1_024  # a side; a picture of a few bytes may unpack to gigabytes
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # where a JPEG says its size; other codings browsers do not show


def kind_of(data: bytes) -> str | None:
    """Return the media type of a picture that may be shown, None for anything else."""
    if len(data) > PICTURE_BYTES_MAX:
        return None
    if data.startswith(PNG) and data[12:16] == b"IHDR" and len(data) > 32:
        size = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        return "image/png" if all(0 < one <= PIXELS_MAX for one in size) else None
    if data.startswith(JPEG):
        found = _jpeg_size(data)
        return "image/jpeg" if found is not None and all(0 < one <= PIXELS_MAX for one in found) else None
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in FRAMES:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        if length < 2 or marker == 0xDA:
            return None
        at += 2 + length
    return None
