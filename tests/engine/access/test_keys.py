"""What a key lets its bearer do, how it is written and recognised, and which keys make no sense."""

from __future__ import annotations

import pytest

from engine.access.keys import (
    ALL_CUSTOMERS,
    ENGINE,
    Caller,
    Key,
    KeyInvalid,
    KeyRing,
    Role,
    digest,
    made,
    parts,
    ranges,
    shown,
    written,
)
from engine.core.units import iso

NOW = 1_800_000_000 * 10**9
SECRET = "ab" * 32


def key(role: Role = Role.OPERATOR, key_id: str = "abcdefgh", **more: object) -> Key:
    return made(key_id, SECRET, NOW, role, **more)  # type: ignore[arg-type]


def test_a_key_is_recognised_by_its_whole_text() -> None:
    """Another secret, another id, a letter more or less is nobody."""
    ring = KeyRing([key()])
    good = written("abcdefgh", SECRET)
    found = ring.bearer(good, NOW)
    assert found == Caller("abcdefgh", Role.OPERATOR)
    for bad in (
        good[:-1],
        good + "a",
        good.upper(),
        good + "\n",
        "",
        "tl__",
        written("abcdefgi", SECRET),
        written("abcdefgh", "cd" * 32),
    ):
        assert ring.bearer(bad, NOW) is None, bad


def test_the_secret_is_not_kept() -> None:
    """What is kept is its hash, from which nobody gets it back."""
    one = key()
    assert SECRET not in str(one)
    assert bytes.fromhex(one.hash) == digest(SECRET)
    assert parts(written("abcdefgh", SECRET)) == ("abcdefgh", SECRET)


def test_a_key_ends_at_its_time_or_when_it_is_withdrawn() -> None:
    """Also for whoever was let in before."""
    ring = KeyRing([key(expires=iso(NOW + 10**9))])
    caller = ring.bearer(written("abcdefgh", SECRET), NOW)
    assert caller is not None
    assert ring.counts(caller, NOW)
    assert ring.bearer(written("abcdefgh", SECRET), NOW + 10**9) is None
    assert not ring.counts(caller, NOW + 10**9)
    assert not KeyRing([]).counts(caller, NOW)
    assert KeyRing([]).counts(Caller(ENGINE, Role.OPERATOR), NOW)


@pytest.mark.parametrize(
    ("text", "found", "again"),
    [("7", ((7, 7),), "7"), ("100-199, 7", ((7, 7), (100, 199)), "7,100-199"), ("all", ALL_CUSTOMERS, "all"), ("", (), "")],
)
def test_accounts_are_written_as_numbers_and_ranges(text: str, found: object, again: str) -> None:
    """And shown again as they can be written."""
    assert ranges(text) == found
    assert shown(ranges(text)) == again


@pytest.mark.parametrize("text", ["x", "-1", "1-", "1-x", "1--2", "9" * 30, "²", "1.5"])
def test_what_is_no_account_is_refused(text: str) -> None:
    """With what can be written."""
    with pytest.raises(KeyInvalid, match="write 7, 7,100-199 or all"):
        ranges(text)


@pytest.mark.parametrize(
    "terms",
    [
        {"role": Role.TRADER}, {"role": Role.OPERATOR, "accounts": ((1, 2),)}, {"role": Role.TRADER, "accounts": ((0, 2),)},
        {"role": Role.TRADER, "accounts": ((-1, -1),)}, {"role": Role.TRADER, "accounts": ((5, 4),)}, {"role": Role.OPERATOR, "stores": ("a",)},
        {"role": Role.OPERATOR, "expires": "tomorrow"}, {"role": Role.OPERATOR, "expires": iso(NOW)}, {"role": Role.OPERATOR, "name": "a\nb"},
        {"role": Role.OPERATOR, "name": "x" * 65},
    ],
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_not_made(terms: dict[str, object]) -> None:
    """A trader without accounts, the house's accounts for a trader, a time that is none or is over."""
    with pytest.raises(KeyInvalid):
        key(**terms)  # type: ignore[arg-type]


def test_roles_move_and_read_what_is_theirs() -> None:
    """A trader its accounts, market data its stores or all, an operator INSURANCE and FEES as well."""
    trader = Caller("t", Role.TRADER, ((7, 7), (100, 199)))
    assert [n for n in (-1, 0, 1, 7, 8, 100, 199, 200) if trader.may_use(n)] == [7, 100, 199]
    assert not trader.may_read("oms")
    data = Caller("m", Role.MARKET_DATA, (), ("oms",))
    assert (data.may_read("oms"), data.may_read(""), data.may_use(7)) == (True, False, False)
    assert Caller("m", Role.MARKET_DATA).may_read("anything")
    operator = Caller("o", Role.OPERATOR)
    assert all(operator.may_use(n) for n in (-1, 0, 7))
    assert operator.may_read("oms")
    assert not Caller("").may_use(7)
    assert not Caller("").may_read("")
