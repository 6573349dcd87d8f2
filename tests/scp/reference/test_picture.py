"""Checks which bytes pass for a picture."""

from __future__ import annotations

import pytest

from mdl.simulation.company import logo
from scp.reference.picture import PICTURE_BYTES_MAX, kind_of

JPEG = b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x11\x08\0\x20\0\x40" + b"\0" * 40


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (logo(3), "image/png"), (JPEG, "image/jpeg"), (JPEG.replace(b"\0\x40", b"\xf0\0"), None), (b"", None), (b"\xff\xd8\xff", None),
        (b"\xff\xd8\xff\xe0\0\0" + b"\0" * 40, None), (b"GIF89a" + b"\0" * 40, None), (b"<svg/>", None),
        (b"\x89PNG\r\n\x1a\n<svg/>", None), (logo(3) + b"\0" * PICTURE_BYTES_MAX, None),
    ],
)  # fmt: skip
def test_only_pictures_of_bounded_size_pass(data: bytes, kind: str | None) -> None:
    """PNG and JPEG by their own first bytes, with their sides; nothing else, whatever it is called."""
    assert kind_of(data) == kind
