"""scp/security/stream_keys.py: a key is shown before it signs and until its last token has ended; none is ever unknown."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.fernet import Fernet

from scp.security.audit import fault_of
from scp.security.second_factor import Box
from scp.security.stream_keys import StreamKey, StreamKeys, Turns
from scp.tokens import Minter
from tests.scp.security.conftest import Rig
from wds.access.tokens import KeyRing, TokenRefused

TURNS = Turns(fetch_s=300, token_s=120, key_s=86_400)


def keys_of(rig: Rig, box: Box | None = None) -> StreamKeys:
    """Return what a control plane keeps: another one each time, on the same database."""
    own = rig.folder / "box"
    if not own.exists():
        own.write_bytes(Fernet.generate_key())
    return StreamKeys(rig.store, box or Box(own.read_bytes()), TURNS, lambda: rig.now_s)


def kids(keys: StreamKeys) -> list[str]:
    return [key["kid"] for key in keys.jwks()["keys"]]


def good(ring: KeyRing, token: str, now_s: float) -> bool:
    """Whether a token has not ended. A token that is refused for another reason fails the test."""
    try:
        return bool(ring.verify(token, now_s))
    except TokenRefused as refused:
        if refused.code != "token_expired":
            raise
        return False


def test_the_first_key_signs_at_once_and_stays_over_restarts(rig: Rig) -> None:
    """Nobody has fetched anything yet."""
    first = keys_of(rig).signing()
    assert keys_of(rig).signing().kid == first.kid
    assert kids(keys_of(rig)) == [first.kid]


def test_the_next_key_is_shown_one_fetch_before_it_signs(rig: Rig) -> None:
    """And the one before it until its last token has ended."""
    keys = keys_of(rig)
    first = keys.signing().kid
    second = keys.make_next("ann", rig.asked()).kid
    assert keys.make_next("ann", rig.asked()).kid == second, "one waits already"
    assert kids(keys) == [first, second]
    rig.now_s += 329
    assert keys.signing().kid == first
    rig.now_s += 1
    assert keys.signing().kid == second
    assert [key["state"] for key in keys.listed()] == ["passing", "signing"]
    rig.now_s += 149
    assert kids(keys) == [first, second]
    rig.now_s += 1
    assert kids(keys) == [second]
    with rig.store.transaction() as db:
        assert fault_of(db) is None


def test_an_old_key_is_followed_by_itself(rig: Rig) -> None:
    """Its time is over: the next one is made, and what is over is deleted."""
    keys = keys_of(rig)
    keys.turn()
    for _ in range(5):
        rig.now_s += TURNS.key_s
        keys.turn()
        assert len(kids(keys)) == 2
        rig.now_s += 3600
        keys.turn()
        assert len(kids(keys)) == 1
    with rig.store.transaction() as db:
        assert db(db.stream_key).count() == 1


def test_a_data_service_never_meets_a_token_it_does_not_know(rig: Rig) -> None:
    """Whatever turns keys take, with fetches as rare as allowed, over three control planes."""
    dice, planes = random.Random(5), [keys_of(rig) for _ in range(3)]
    minters = [Minter(plane.signing, TURNS.token_s) for plane in planes]
    ring, fetched_s = KeyRing(), float("-inf")
    living: list[str] = []
    for _ in range(1_000):
        rig.now_s += dice.choice((1, 5, 10, 20))
        if dice.random() < 0.02:
            dice.choice(planes).make_next("ann", rig.asked())
        if dice.random() < 0.05:
            dice.choice(planes).turn()
        minted = dice.choice(minters).token("ann", "s", False, int(rig.now_s)).text
        if rig.now_s >= fetched_s + TURNS.fetch_s:
            fetched_s = rig.now_s
            ring.install(json.dumps(dice.choice(planes).jwks()).encode())
        living.append(minted)
        living = [token for token in living if good(ring, token, rig.now_s)]


def test_a_withdrawn_key_is_gone_at_once(rig: Rig) -> None:
    """On every control plane within its few seconds; another key signs, the waiting one if there is one."""
    keys, other = keys_of(rig), keys_of(rig)
    first = other.signing().kid
    keys.withdraw(first, "ann", rig.asked())
    assert keys.signing().kid != first
    rig.now_s += 6
    assert first not in kids(other)
    waiting = keys.make_next("ann", rig.asked()).kid
    keys.withdraw(keys.signing().kid, "ann", rig.asked())
    assert keys.signing().kid == waiting
    with pytest.raises(KeyError):
        keys.withdraw(first, "ann", rig.asked())


def test_keys_closed_with_a_lost_secret_sign_no_more(rig: Rig) -> None:
    """A new one signs at once; tokens of the old one go on until they end."""
    old = keys_of(rig).signing().kid
    changed = keys_of(rig, Box(Fernet.generate_key()))
    new = changed.signing()
    assert new.kid != old
    assert kids(changed) == [old, new.kid]


def test_many_at_once_make_one_first_key(rig: Rig) -> None:
    """Control planes that start together."""
    planes = [keys_of(rig) for _ in range(8)]

    def sign(plane: StreamKeys) -> StreamKey:
        return plane.signing()

    with ThreadPoolExecutor(8) as pool:
        assert len({key.kid for key in pool.map(sign, planes)}) == 1


def test_the_database_holds_no_key_that_signs(rig: Rig) -> None:
    """Closed: who reads the database cannot mint."""
    keys_of(rig).signing()
    with rig.store.transaction() as db:
        assert "PRIVATE" not in str(db.executesql("SELECT * FROM stream_key"))
