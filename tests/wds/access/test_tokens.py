"""Checks which tokens are accepted, and with which errors all others are refused."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wds.access.tokens import Claims, KeyRing, TokenRefused, glob_matches, jwks_of, kid_of, mint

KEY = Ed25519PrivateKey.generate()
NOW = 1_800_000_000


def ring() -> KeyRing:
    made = KeyRing()
    made.add_local(KEY.public_key())
    return made


def forged(headers: dict[str, Any] | None = None, **body: Any) -> str:
    full = {"iss": "tapeline", "aud": "wds", "sub": "u", "exp": NOW + 60, "jti": "j", "ch": ["*"], **body}
    return jwt.encode({name: value for name, value in full.items() if value is not None}, KEY, "EdDSA",
                      headers={"kid": kid_of(KEY.public_key()), **(headers or {})})  # fmt: skip


def test_a_minted_token_is_good_until_it_expires() -> None:
    """Claims come back; after exp the error is token_expired."""
    token = mint(KEY, "me", ["quote:*"], 60, NOW, "j1")
    assert ring().verify(token, NOW) == Claims("me", NOW + 60, "j1", ("quote:*",))
    with pytest.raises(TokenRefused) as refused:
        ring().verify(token, NOW + 60)
    assert refused.value.code == "token_expired"


@pytest.mark.parametrize(
    "token",
    [
        "", "a.b.c", "é", forged(aud="other"), forged(iss="other"), forged(jti=None), forged(sub=None), forged(exp=None),
        forged(ch=None), forged(ch=[]), forged(ch="quote:*"), forged(ch=[1]), forged(ch=["*" * 5]), forged(ch=["x"] * 65),
        forged(exp="soon"), forged(nbf=NOW + 60), forged(exp=1e300), forged({"kid": "other"}),
        jwt.encode({"iss": "tapeline", "aud": "wds"}, "secret" * 8, "HS256", headers={"kid": kid_of(KEY.public_key())}),
        jwt.encode({"iss": "tapeline", "aud": "wds"}, None, "none", headers={"kid": kid_of(KEY.public_key())}),
    ],
)  # fmt: skip
def test_everything_else_is_unauthorized(token: str) -> None:
    """Wrong audience, issuer, claims, algorithm or key: one code, no exception but ours."""
    with pytest.raises(TokenRefused) as refused:
        ring().verify(token, NOW)
    assert refused.value.code == ("unknown_key" if refused.value.unknown_kid else "unauthorized")


def test_the_control_planes_keys_are_replaced_as_a_whole() -> None:
    """A JWKS installs its Ed25519 keys; the next one drops the old; rubbish changes nothing."""
    made, other = KeyRing(), Ed25519PrivateKey.generate()
    token = mint(other, "u", ["*"], 60, NOW, "j")
    with pytest.raises(TokenRefused) as refused:
        made.verify(token, NOW)
    assert refused.value.unknown_kid == kid_of(other.public_key())
    assert made.install(jwks_of(other.public_key())) == 1
    assert made.verify(token, NOW).sub == "u"
    for rubbish in (b"", b"[]", b"{}", b"\xff"):
        with pytest.raises(ValueError):
            made.install(rubbish)
    assert made.verify(token, NOW).sub == "u"
    assert made.install(json.dumps({"keys": [{"kty": "RSA"}, 7, {"kty": "OKP", "crv": "Ed25519", "x": "?"}]}).encode()) == 0
    with pytest.raises(TokenRefused):
        made.verify(token, NOW)


@pytest.mark.parametrize(("glob", "text", "fits"), [
    ("*", "quote:A", True), ("quote:*", "quote:A", True), ("quote:*", "quotes:A", False), ("quote:A", "quote:AB", False),
    ("*:A", "quote:A", True), ("bars:*:A", "bars:1m:A", True), ("bars:*:A", "bars:1m:B", False), ("quote:A.B", "quote:AxB", False),
])  # fmt: skip
def test_globs_know_only_the_star(glob: str, text: str, fits: bool) -> None:
    """Every other character stands for itself."""
    assert glob_matches(glob, text) is fits


def test_operators_channels_must_be_named() -> None:
    """`*` does not open an operators-only kind."""
    assert not Claims("u", 0, "j", ("*",)).allows("admin:x", operators_only=True)
    assert Claims("u", 0, "j", ("admin:*",)).allows("admin:x", operators_only=True)
