"""Time-based one-time codes (RFC 6238: six digits, 30 s, SHA-1, as every app does) and recovery codes.

Invariant: a code is good once; who saw it typed cannot use it again. A recovery code as well.
"""

from __future__ import annotations

import base64
import hmac

import pyotp
import segno
from cryptography.fernet import Fernet, InvalidToken

from scp.security.forms import Draw

STEP_S = 30
DRIFT_STEPS = 1  # a phone's clock may be half a minute off
CODES = 10
ISSUER = "Tapeline"
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike


def step_of(secret: str, code: str, now_s: float, last_step: int) -> int | None:
    """Return the step that `code` belongs to, None when it is wrong or not later than `last_step`."""
    digits = "".join(code.split())
    if len(digits) != 6 or not digits.isascii() or not digits.isdigit():
        return None
    totp, now = pyotp.TOTP(secret), int(now_s) // STEP_S
    found = [
        step for step in range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1) if hmac.compare_digest(totp.at(step * STEP_S), digits)
    ]
    return next((step for step in found if step > last_step), None)


def new_secret() -> str:
    """Return 160 random bits in base 32."""
    return pyotp.random_base32()


def address_of(secret: str, username: str) -> str:
    """Return the otpauth address that apps read."""
    return pyotp.TOTP(secret).provisioning_uri(name=username, issuer_name=ISSUER)


def picture_of(address: str) -> str:
    """Return the address as a QR code: an SVG document."""
    return str(segno.make(address, error="m").svg_inline(scale=4, border=4, dark="#000", light="#fff", omitsize=True))


def new_codes(draw: Draw) -> list[str]:
    """Return recovery codes to be written down, such as `k7m2p-x9qrt-4hwzn`: 74 bits each."""
    return [_code(draw) for _ in range(CODES)]


def plain(code: str) -> str:
    """Return a recovery code as it is compared: small letters without hyphens and spaces."""
    return "".join(letter for letter in code.lower() if letter.isascii() and letter.isalnum())


def _code(draw: Draw) -> str:
    chosen: list[str] = []
    while len(chosen) < 15:
        # Bytes beyond the last whole multiple are left out, so that every letter is as likely as the others.
        random = base64.urlsafe_b64decode(draw(48))
        chosen += [LETTERS[byte % len(LETTERS)] for byte in random if byte < 256 - 256 % len(LETTERS)]
    text = "".join(chosen[:15])
    return f"{text[:5]}-{text[5:10]}-{text[10:]}"


class Box:
    """Keeps second-factor secrets unreadable in the database; the key is a file beside it."""

    def __init__(self, key: bytes) -> None:
        self._fernet = Fernet(key)

    def close(self, secret: str) -> str:
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, closed: str) -> str | None:
        """Return the secret; None when it was closed with another key (RUN_DIR was lost)."""
        try:
            return self._fernet.decrypt(closed.encode()).decode()
        except InvalidToken:
            return None
