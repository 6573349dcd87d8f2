"""Signs short-lived stream tokens with the key file shared with WDS. Operators' channels open for operators only."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mdc.channels import KINDS
from scp.settings import ScpSettings
from service.errors import OperatorError
from service.settings import secret_file

KEY_FILE = "wds.key"  # in RUN_DIR; whichever of SCP and WDS starts first makes it
ISSUER = "tapeline"
AUDIENCE = "wds"
VIEWER_CHANNELS = tuple(f"{kind.name}:*" for kind in KINDS.values() if not kind.operators_only)
OPERATOR_CHANNELS = tuple(f"{kind.name}:*" for kind in KINDS.values())


@dataclass(frozen=True, slots=True)
class StreamToken:
    """A signed token and how long it opens the stream, in seconds."""

    text: str
    expires_s: int


class Minter:
    """Signs with the local key."""

    def __init__(self, key: Ed25519PrivateKey, life_s: int) -> None:
        self._key = key
        self._headers = {"kid": key_id(key.public_key())}
        self._life_s = life_s

    def token(self, subject: str, session: str, operator: bool, now_s: int) -> StreamToken:
        """Return a token for `subject`, good from `now_s` for the configured life unless `session` ends before."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now_s,
            "exp": now_s + self._life_s,
            "jti": secrets.token_urlsafe(12),
            "sid": session,
            "ch": list(OPERATOR_CHANNELS if operator else VIEWER_CHANNELS),
        }
        return StreamToken(jwt.encode(claims, self._key, algorithm="EdDSA", headers=self._headers), self._life_s)


def key_of(settings: ScpSettings) -> Ed25519PrivateKey:
    """Return the key that the settings give or RUN_DIR holds.  Raises: OperatorError."""
    return signing_key(settings.run_dir, settings.signing_key.get_secret_value() if settings.signing_key else "")


def signing_key(run_dir: Path, pem: str = "") -> Ed25519PrivateKey:
    """Return the signing key: `pem`, or the one in `run_dir`, made on first use.  Raises: OperatorError for no Ed25519 key."""
    path = run_dir / KEY_FILE
    try:
        key = serialization.load_pem_private_key(pem.encode() or secret_file(path, _new_pem), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        what, fix = (
            ("SCP_SIGNING_KEY", "Make one with: openssl genpkey -algorithm ed25519")
            if pem
            else (path, "Remove the file and restart SCP and WDS; they make a new one")
        )
        raise OperatorError(f"{what} is not an Ed25519 private key", fix)
    return key


def jwks(key: Ed25519PublicKey) -> dict[str, list[dict[str, str]]]:
    """Return the public key as a JSON Web Key Set (RFC 7517, 8037)."""
    x = _base64url(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": key_id(key), "alg": "EdDSA", "use": "sig"}]}


def key_id(key: Ed25519PublicKey) -> str:
    """Return the key's RFC 7638 thumbprint, by which WDS finds it."""
    x = _base64url(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))
    members = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(members.encode()).digest())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _new_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
