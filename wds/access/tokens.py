"""Verifies and mints tokens: EdDSA JWT with `iss aud=wds sub exp jti ch`. Key sets are arguments.

Invariant: only EdDSA is ever accepted, whatever a token's header asks for, and only by a key we hold under its `kid`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE = "wds"
COMPAT_AUDIENCE = "wds-compat"  # of keys for the original service's app: as long as a sign-in, and good at its own path alone
ISSUER = "tapeline"
GLOBS_MAX = 64
KEYS_MAX = 32
GLOB_CHARS_MAX = 96
LEEWAY_S = 5
REQUIRED = ["iss", "aud", "sub", "exp", "jti"]

Refusal = Literal["unauthorized", "token_expired", "unknown_key", "unavailable"]


class TokenRefused(Exception):
    """A token that does not open the door; `code` is the protocol's error code."""

    def __init__(self, code: Refusal, message: str, unknown_kid: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.unknown_kid = unknown_kid


@dataclass(frozen=True, slots=True)
class Claims:
    """Who a client is, until when (seconds since the epoch), and which channels it may see."""

    sub: str
    exp_s: int
    jti: str
    globs: tuple[str, ...]
    sid: str = ""  # the control plane's session that it belongs to; when that ends, so does what the token opened

    def allows(self, channel: str, operators_only: bool = False) -> bool:
        """Whether a glob covers `channel`. Operators' kinds must be named: `*` alone does not open them."""
        kind = channel.partition(":")[0] + ":"
        return any(glob_matches(glob, channel) and (not operators_only or glob.startswith(kind)) for glob in self.globs)


def glob_matches(glob: str, text: str) -> bool:
    """Whether `text` matches `glob`, in which only `*` (any run of characters) is special.  Cost: linear per star."""
    head, star, _ = glob.partition("*")
    if not star:
        return glob == text
    if glob.endswith("*") and glob.count("*") == 1:
        return text.startswith(head)
    return re.fullmatch(".*?".join(map(re.escape, glob.split("*"))), text) is not None


class KeyRing:
    """Public keys by `kid`: local ones for ever, the control plane's as its JWKS last said."""

    def __init__(self, issuers: Sequence[str] = (ISSUER,)) -> None:
        self._issuers = list(issuers)
        self._local: dict[str, Ed25519PublicKey] = {}
        self._remote: dict[str, Ed25519PublicKey] = {}

    def add_local(self, key: Ed25519PublicKey) -> None:
        """Trust `key` for ever."""
        self._local[kid_of(key)] = key

    def install(self, jwks: bytes) -> int:
        """Replace the control plane's keys by those of a JWKS; return how many.  Raises: ValueError when it is none."""
        document = json.loads(jwks)
        keys = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(keys, list):
            raise ValueError("no `keys` array")
        found = [_public_key(item) for item in keys[:KEYS_MAX]]
        self._remote = dict(filter(None, found))
        return len(self._remote)

    def verify(self, token: str, now_s: float, audiences: Sequence[str] = (AUDIENCE,)) -> Claims:
        """Return the claims of a good token.  Raises: TokenRefused; `unknown_kid` says a key refresh may help."""
        key = self._key(token)
        options: Any = {"require": REQUIRED, "verify_exp": False, "verify_iat": False, "verify_nbf": False}
        try:
            body = jwt.decode(token, key, algorithms=["EdDSA"], audience=list(audiences), issuer=self._issuers, options=options)
        except jwt.PyJWTError as bad:
            raise TokenRefused("unauthorized", f"bad token: {bad}") from None
        return _claims(body, now_s)

    def _key(self, token: str) -> Ed25519PublicKey:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as bad:
            raise TokenRefused("unauthorized", f"not a JWT: {bad}") from None
        kid = str(header.get("kid", ""))[:128]
        key = self._local.get(kid) or self._remote.get(kid)
        if key is None:
            raise TokenRefused("unknown_key", "signed by an unknown key", unknown_kid=kid)
        return key


def _claims(body: dict[str, Any], now_s: float) -> Claims:
    exp, nbf, globs = body["exp"], body.get("nbf", 0), body.get("ch")
    if not isinstance(exp, int | float) or not isinstance(nbf, int | float) or not abs(exp) < 1e15:
        raise TokenRefused("unauthorized", "exp and nbf must be numbers")
    if not isinstance(globs, list) or not 0 < len(globs) <= GLOBS_MAX or not all(map(_is_glob, globs)):
        raise TokenRefused("unauthorized", f"ch must be 1 to {GLOBS_MAX} channel globs of at most three stars")
    if now_s >= exp:
        raise TokenRefused("token_expired", f"expired {int(now_s - exp)} s ago")
    if now_s < nbf - LEEWAY_S:
        raise TokenRefused("unauthorized", "not valid yet")
    return Claims(str(body["sub"])[:128], int(exp), str(body["jti"])[:128], tuple(globs), str(body.get("sid", ""))[:64])


def _is_glob(item: Any) -> bool:
    # More stars would let a token make matching slow.
    return isinstance(item, str) and len(item) <= GLOB_CHARS_MAX and item.count("*") <= 3


def _public_key(item: Any) -> tuple[str, Ed25519PublicKey] | None:
    if not isinstance(item, dict) or item.get("kty") != "OKP" or item.get("crv") != "Ed25519":
        return None
    try:
        raw = base64.urlsafe_b64decode(str(item["x"]) + "==")
        key = Ed25519PublicKey.from_public_bytes(raw)
    except (KeyError, ValueError):
        return None
    return str(item.get("kid") or kid_of(key)), key


def kid_of(key: Ed25519PublicKey) -> str:
    """Return the key's RFC 7638 thumbprint."""
    text = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": _x(key)}, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _x(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwks_of(*keys: Ed25519PublicKey) -> bytes:
    """Return the JWKS document of `keys`."""
    items = [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid_of(key), "x": _x(key)} for key in keys]
    return json.dumps({"keys": items}).encode()


def mint(
    key: Ed25519PrivateKey, sub: str, globs: Sequence[str], ttl_s: int, now_s: float, jti: str, issuer: str = ISSUER,
    audience: str = AUDIENCE, sid: str = "",
) -> str:  # fmt: skip
    """Return a signed token; `globs` are the channels it opens, `jti` its own name, `sid` the session it ends with."""
    body = {
        "iss": issuer, "aud": audience, "sub": sub, "iat": int(now_s), "exp": int(now_s) + ttl_s,
        "jti": jti, "ch": list(globs), **({"sid": sid} if sid else {}),
    }  # fmt: skip
    return jwt.encode(body, key, algorithm="EdDSA", headers={"kid": kid_of(key.public_key())})
