"""scp/tokens.py: that WDS accepts what we sign, and what a viewer may see."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest

from mdc.channels import KINDS
from scp.tokens import KEY_FILE, Minter, jwks, signing_key
from service.errors import OperatorError
from wds.access.keys import local_key
from wds.access.tokens import KeyRing, TokenRefused


def test_the_stream_accepts_our_tokens_whoever_made_the_key(tmp_path: Path) -> None:
    """SCP and WDS share one key file, whichever starts first."""
    for first, second in ((signing_key, local_key), (local_key, signing_key)):
        run_dir = tmp_path / first.__module__
        assert first(run_dir).private_bytes_raw() == second(run_dir).private_bytes_raw()
        ring = KeyRing()
        ring.add_local(local_key(run_dir).public_key())
        now = int(time.time())
        token = Minter(signing_key(run_dir), 600).token("local", "s1", False, now)
        claims = ring.verify(token.text, now)
        assert (claims.sub, claims.exp_s, token.expires_s) == ("local", now + 600, 600)


def test_a_viewer_sees_all_but_the_operators_channels(tmp_path: Path) -> None:
    """Every public kind is covered by a glob of its own, never by a bare star."""
    ring = KeyRing()
    ring.add_local(local_key(tmp_path).public_key())
    claims = ring.verify(Minter(signing_key(tmp_path), 600).token("local", "s1", False, int(time.time())).text, time.time())
    for kind in KINDS.values():
        assert claims.allows(f"{kind.name}:X") is not kind.operators_only
    assert not claims.allows("admin:orders", operators_only=True)
    assert claims.sid == "s1", "by which the stream knows when the session has ended"


def test_an_operator_sees_the_operators_channels_too(tmp_path: Path) -> None:
    """By name: a bare star would not open them."""
    ring = KeyRing()
    ring.add_local(local_key(tmp_path).public_key())
    claims = ring.verify(Minter(signing_key(tmp_path), 600).token("op", "s1", True, int(time.time())).text, time.time())
    for kind in KINDS.values():
        assert claims.allows(f"{kind.name}:X", kind.operators_only)


def test_a_token_ends(tmp_path: Path) -> None:
    """After its life the stream refuses it."""
    ring = KeyRing()
    ring.add_local(local_key(tmp_path).public_key())
    token = Minter(signing_key(tmp_path), 300).token("local", "s1", False, 1000)
    with pytest.raises(TokenRefused, match="expired"):
        ring.verify(token.text, 1300)


def test_two_tokens_are_never_the_same(tmp_path: Path) -> None:
    """Each has its own jti."""
    minter = Minter(signing_key(tmp_path), 300)
    assert minter.token("a", "s", False, 1000).text != minter.token("a", "s", False, 1000).text


def test_the_key_is_for_its_owner_only(tmp_path: Path) -> None:
    """Mode 0600."""
    signing_key(tmp_path)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


def test_a_spoilt_key_file_is_one_clear_line(tmp_path: Path) -> None:
    """The operator reads which file to remove."""
    (tmp_path / KEY_FILE).write_text("not a key")
    with pytest.raises(OperatorError, match=KEY_FILE):
        signing_key(tmp_path)


def test_a_data_service_elsewhere_learns_the_key_over_the_network(tmp_path: Path) -> None:
    """The key set that the admin port serves is all that WDS needs; the private part is not in it."""
    key, now = signing_key(tmp_path), int(time.time())
    ring = KeyRing()
    assert ring.install(json.dumps(jwks(key.public_key())).encode()) == 1
    assert ring.verify(Minter(key, 60).token("ann", "s1", False, now).text, now).sub == "ann"
    assert '"d"' not in json.dumps(jwks(key.public_key()))


def test_several_control_planes_sign_with_one_given_key(tmp_path: Path) -> None:
    """SCP_SIGNING_KEY stands above the folder, in which nothing is made then."""
    pem = (signing_key(tmp_path / "a"), (tmp_path / "a" / KEY_FILE).read_text())[1]
    assert signing_key(tmp_path / "b", pem).private_bytes_raw() == signing_key(tmp_path / "a").private_bytes_raw()
    assert not (tmp_path / "b").exists()
    with pytest.raises(OperatorError, match="SCP_SIGNING_KEY is not an Ed25519 private key"):
        signing_key(tmp_path / "b", "no key")
