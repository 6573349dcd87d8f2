"""scp/tokens.py: that WDS accepts what we sign, and what a viewer may see."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from mdc.channels import KINDS
from scp.security.second_factor import Box
from scp.security.stream_keys import StreamKeys, Turns
from scp.store.database import Store
from scp.tokens import Minter
from wds.access.tokens import KeyRing, TokenRefused


@pytest.fixture
def keys(tmp_path: Path) -> StreamKeys:
    """Keys in a database of their own."""
    store = Store("", tmp_path)
    store.migrate()
    return StreamKeys(store, Box(Fernet.generate_key()), Turns(300, 600, 86_400), time.time)


@pytest.fixture
def ring(keys: StreamKeys) -> KeyRing:
    """What a data service knows that has fetched them."""
    made = KeyRing()
    assert made.install(json.dumps(keys.jwks()).encode()) == 1
    return made


def test_the_stream_accepts_our_tokens(keys: StreamKeys, ring: KeyRing) -> None:
    """By the keys that we show."""
    now = int(time.time())
    token = Minter(keys.signing, 600).token("local", "s1", False, now)
    claims = ring.verify(token.text, now)
    assert (claims.sub, claims.exp_s, token.expires_s) == ("local", now + 600, 600)


@pytest.mark.parametrize("operator", [False, True])
def test_operators_channels_are_for_operators(keys: StreamKeys, ring: KeyRing, operator: bool) -> None:
    """Every kind is covered by a glob of its own, never by a bare star, which would not open them."""
    token = Minter(keys.signing, 600).token("local", "s1", operator, int(time.time()))
    claims = ring.verify(token.text, time.time())
    for kind in KINDS.values():
        assert claims.allows(f"{kind.name}:X", kind.operators_only) is (operator or not kind.operators_only)
    assert claims.sid == "s1", "by which the stream knows when the session has ended"


def test_a_token_ends(keys: StreamKeys, ring: KeyRing) -> None:
    """After its life the stream refuses it."""
    token = Minter(keys.signing, 300).token("local", "s1", False, 1000)
    with pytest.raises(TokenRefused, match="expired"):
        ring.verify(token.text, 1300)


def test_two_tokens_are_never_the_same(keys: StreamKeys) -> None:
    """Each has its own jti."""
    minter = Minter(keys.signing, 300)
    assert minter.token("a", "s", False, 1000).text != minter.token("a", "s", False, 1000).text
