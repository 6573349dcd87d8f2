"""Signs stream tokens, with the key whose turn it is. Operators' channels open for operators only."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from mdc.channels import FAMILIES, KINDS
from scp.security.stream_keys import StreamKey

ISSUER = "tapeline"
AUDIENCE = "wds"
COMPAT_AUDIENCE = "wds-compat"  # of keys for the original service's app, which are good at its own path alone
_ALL = (*KINDS.values(), *FAMILIES.values())
VIEWER_CHANNELS = tuple(f"{kind.name}:*" for kind in _ALL if not kind.operators_only)
OPERATOR_CHANNELS = tuple(f"{kind.name}:*" for kind in _ALL)


@dataclass(frozen=True, slots=True)
class StreamToken:
    """A signed token and how long it opens the stream, in seconds."""

    text: str
    expires_s: int


class Minter:
    """Signs with whatever `signing` returns at that moment."""

    def __init__(self, signing: Callable[[], StreamKey], life_s: int) -> None:
        self._signing = signing
        self._life_s = life_s

    def token(
        self, subject: str, session: str, operator: bool, now_s: int, channels: list[str] | None = None, life_s: int = 0
    ) -> StreamToken:
        """Return a token for `subject`, good from `now_s` for the configured life (or less) unless `session` ends before.

        `channels` are fewer than the role has; the caller has looked at them with `covered`.
        """
        life_s = min(life_s or self._life_s, self._life_s)
        return self._sign(AUDIENCE, subject, session, channels or list(allowed(operator)), now_s, life_s)

    def compat_key(self, subject: str, session: str, operator: bool, now_s: int, ends_s: int) -> StreamToken:
        """Return a key for the original service's app, which never renews it: good until `ends_s`, or `session` ends before."""
        return self._sign(COMPAT_AUDIENCE, subject, session, list(allowed(operator)), now_s, ends_s - now_s)

    def _sign(self, audience: str, subject: str, session: str, channels: list[str], now_s: int, life_s: int) -> StreamToken:
        key = self._signing()
        assert key.private is not None
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "sub": subject,
            "iat": now_s,
            "exp": now_s + life_s,
            "jti": secrets.token_urlsafe(12),
            "sid": session,
            "ch": channels,
        }
        signed = f"{_part({'alg': 'EdDSA', 'kid': key.kid, 'typ': 'JWT'})}.{_part(claims)}"
        return StreamToken(f"{signed}.{_text(key.private.sign(signed.encode()))}", life_s)


def _part(said: dict[str, Any]) -> str:
    return _text(msgspec.json.encode(said))


def _text(raw: bytes) -> str:
    """Return base 64 as RFC 7515 wants it. A JWT by hand: the library takes three times as long as the signature itself."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def allowed(operator: bool) -> tuple[str, ...]:
    """Return the channels that a role has."""
    return OPERATOR_CHANNELS if operator else VIEWER_CHANNELS


def covered(channel: str, operator: bool) -> bool:
    """Return whether a role has every channel of a glob: it names one kind of the role's."""
    return any(channel.startswith(glob.removesuffix("*")) for glob in allowed(operator))
