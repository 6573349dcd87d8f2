"""scp/security/: times that end, and limits that outlive a restart, by a clock turned by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyotp
import pytest

from scp.security import api_tokens, links, people
from scp.security.account import Account
from scp.security.people import Refused
from scp.security.sign_in import SignIn, Wrong
from scp.security.throttle import TooMany
from tests.scp.security.conftest import PASSWORD, Rig

NEW = "three owls on a fence"


def test_a_session_ends_when_idle_and_in_any_case(rig: Rig) -> None:
    """An hour without a request; a day with one each half hour."""
    first, second = rig.admin(), rig.sign_in.by_password("ann", PASSWORD, rig.asked()).secret
    for _ in range(47):
        rig.now_s += 1800
        assert rig.session(second) is not None
    assert rig.session(first) is None
    rig.now_s += 1800
    assert rig.session(second) is None


def test_a_half_open_session_ends_after_five_minutes(rig: Rig) -> None:
    """Whoever has the password alone has no more time than that."""
    me = rig.session(rig.admin())
    assert me is not None
    offered = rig.account.offer_factor(me.user_id, PASSWORD, rig.asked())
    rig.account.set_factor(me.user_id, pyotp.TOTP(offered.secret).at(int(rig.now_s)), rig.asked())
    way = rig.sign_in.by_password("ann", PASSWORD, rig.asked())
    assert way.half_open
    rig.now_s += 299
    assert rig.session(way.secret) is not None
    rig.now_s += 2
    assert rig.session(way.secret) is None


def test_lockouts_outlive_a_restart_and_end(rig: Rig) -> None:
    """Fifteen minutes from the first wrong try; another address is not locked out with it."""
    rig.admin()
    for _ in range(5):
        with pytest.raises(Wrong):
            rig.sign_in.by_password("ann", "wrong and wrong again", rig.asked())
    rig.open()
    with pytest.raises(TooMany) as stopped:
        rig.sign_in.by_password("ann", PASSWORD, rig.asked())
    assert 0 < stopped.value.after_s <= 900
    assert rig.sign_in.by_password("ann", PASSWORD, rig.asked("192.0.2.77")).secret
    rig.now_s += stopped.value.after_s + 1
    assert rig.sign_in.by_password("ann", PASSWORD, rig.asked()).secret
    rig.guard.sweep()


def test_many_addresses_together_are_stopped_as_well(rig: Rig) -> None:
    """Thirty tries at one name, wherever they come from."""
    rig.admin()
    found = []
    for number in range(40):
        with pytest.raises((Wrong, TooMany)) as refused:
            rig.sign_in.by_password("ann", "wrong and wrong again", rig.asked(f"198.51.100.{number}"))
        found.append(refused.type)
    assert found == [Wrong] * 30 + [TooMany] * 10


def test_tries_side_by_side_are_counted_one_by_one(rig: Rig) -> None:
    """Whoever sends forty at once has five at the most."""
    rig.admin()

    def guess(number: int) -> str:
        try:
            rig.sign_in.by_password("ann", f"wrong and wrong {number}", rig.asked())
        except (Wrong, TooMany) as refused:
            return type(refused).__name__
        return "in"

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(guess, range(40)))
    assert found.count("Wrong") <= 5
    assert found.count("Wrong") + found.count("TooMany") == 40


def test_links_end(rig: Rig) -> None:
    """A reset link after a quarter of an hour, the first administrator's after a day; a wrong password does not use one up."""
    first = rig.sign_in.first_link(rig.asked())
    rig.now_s += 24 * 3600
    with pytest.raises(Wrong):
        rig.sign_in.by_link(str(first), "ann", PASSWORD, rig.asked())
    rig.admin()
    assert rig.sign_in.first_link(rig.asked()) is None
    for late_s in (14 * 60, 16 * 60):
        with rig.store.transaction() as db:
            link = links.make(db, "reset", 1, rig.asked().now_ms, rig.sign_in._draw)
        with pytest.raises(Refused):
            rig.sign_in.by_link(link, None, "short", rig.asked())
        rig.now_s += late_s
        if late_s < 15 * 60:
            assert rig.sign_in.by_link(link, None, NEW, rig.asked()).secret
        else:
            with pytest.raises(Wrong):
                rig.sign_in.by_link(link, None, NEW, rig.asked())


def test_of_two_who_use_a_link_at_once_one_gets_in(rig: Rig) -> None:
    """Each of them would be administrator."""
    link = rig.sign_in.first_link(rig.asked())

    def use(number: int) -> bool:
        try:
            return bool(rig.sign_in.by_link(str(link), f"admin-{number}", PASSWORD, rig.asked()).secret)
        except Wrong:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(use, range(4))) == 1
    with rig.store.transaction() as db:
        assert len(people.listed(db, 0, 10)) == 1


def test_who_has_no_address_gets_no_reset_link(rig: Rig) -> None:
    """And who is there cannot be told by whoever asks: the caller answers the same."""
    rig.admin()
    assert rig.sign_in.reset_link("ann", rig.asked()) is None
    assert rig.sign_in.reset_link("nobody", rig.asked()) is None
    with rig.store.transaction() as db:
        people.change(db, 1, "ann", rig.asked(), None, None, "ann@example.com")
    found = rig.sign_in.reset_link("ANN", rig.asked())
    assert found is not None
    assert found[0] == "ann@example.com"


def test_a_code_that_was_used_is_wrong_for_changes_too(rig: Rig) -> None:
    """The code that set the second factor does not open a session."""
    rig.admin()
    assert isinstance(rig.account, Account)
    assert isinstance(rig.sign_in, SignIn)
    totp = pyotp.TOTP(rig.account.offer_factor(1, PASSWORD, rig.asked()).secret)
    code = totp.at(int(rig.now_s))
    assert len(rig.account.set_factor(1, code, rig.asked())) == 10
    half = rig.session(rig.sign_in.by_password("ann", PASSWORD, rig.asked()).secret)
    assert half is not None
    with pytest.raises(Wrong):
        rig.sign_in.by_code(half, code, rig.asked())
    rig.now_s += 30
    assert not rig.sign_in.by_code(half, totp.at(int(rig.now_s)), rig.asked()).half_open


def test_a_token_ends_on_its_day(rig: Rig) -> None:
    """Not a millisecond later."""
    rig.admin()
    now_ms = rig.asked().now_ms
    with rig.store.transaction() as db:
        _, text = api_tokens.make(db, 1, "t", frozenset({"view"}), now_ms + 1000, now_ms, rig.sign_in._draw)
        assert api_tokens.find(db, text, now_ms + 999) is not None
        assert api_tokens.find(db, text, now_ms + 1000) is None


def test_one_person_has_fifty_sessions_at_most(rig: Rig) -> None:
    """The oldest end: a script that signs in on and on fills nothing."""
    first = rig.admin()
    for _ in range(50):
        rig.now_s += 60
        last = rig.sign_in.by_password("ann", PASSWORD, rig.asked()).secret
    assert rig.session(first) is None
    assert rig.session(last) is not None
