"""scp/security/: passwords, forms and codes, without a database."""

from __future__ import annotations

import secrets

import pyotp
import pytest

from scp.security import forms, passwords
from scp.security.people import EMAIL, USERNAME
from scp.security.roles import ROLES, TOKEN_SCOPES, scopes_of
from scp.security.rules import PAGES, Rules
from scp.security.second_factor import Box, new_codes, plain, step_of


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "",
        "x" * 300,
        "aaaaaaaaaaaaaaa",
        "abcabcabcabc",
        "passwordpassword",
        "Password123456",
        "ann-ann-ann-",
        "qwertyuiopasdfghjkl",
    ],
)
def test_what_would_be_guessed_first_is_refused(password: str) -> None:
    """With words that say what a good one is."""
    fault = passwords.fault_of(password, "ann")
    assert fault is not None
    assert fault.endswith(".")


@pytest.mark.parametrize(
    "password", ["green tractors at dawn", "пароль из трёх слов", "🦉🦊🐝🐢 in the woods", " spaces  count ", "a" * 30 + "bcdef"]
)
def test_any_characters_are_allowed(password: str) -> None:
    """Length counts, not kinds of letters."""
    assert passwords.fault_of(password, "ann") is None
    assert passwords.matches(password, passwords.hashed(password))


def test_two_hashes_of_one_password_differ_and_nobodys_matches_nothing() -> None:
    """argon2id with a salt of its own; an unreadable hash is no match, never an error."""
    one, two = passwords.hashed("green tractors at dawn"), passwords.hashed("green tractors at dawn")
    assert one != two
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert not passwords.is_old(one)
    for stored in (None, "", "x", "$argon2id$broken"):
        assert not passwords.matches("green tractors at dawn", stored)
    assert passwords.matches("ﬁne tractors at dawn", passwords.hashed("fine tractors at dawn")), "NFKC"


def test_codes_of_the_wrong_time_or_form_are_refused() -> None:
    """Half a minute early or late is right; the same step again is not."""
    secret = pyotp.random_base32()
    totp, now = pyotp.TOTP(secret), 1_800_000_015
    step = now // 30
    for drift, wanted in ((-60, None), (-30, step - 1), (0, step), (30, step + 1), (60, None)):
        assert step_of(secret, totp.at(now + drift), now, 0) == wanted, drift
    assert step_of(secret, totp.at(now), now, step) is None
    assert step_of(secret, f" {totp.at(now)[:3]} {totp.at(now)[3:]} ", now, 0) == step
    for wrong in ("", "12345", "1234567", "abcdef", "１２３４５６", "-12345"):
        assert step_of(secret, wrong, now, 0) is None


def test_recovery_codes_are_many_and_random() -> None:
    """Ten of fifteen letters that do not look alike."""
    codes = [code for _ in range(20) for code in new_codes(secrets.token_urlsafe)]
    assert len(set(map(plain, codes))) == 200
    assert all(len(plain(code)) == 15 and not set(plain(code)) & set("ilo01") for code in codes)


def test_a_secret_closed_with_another_key_is_none() -> None:
    """RUN_DIR was lost: the second factor has to be set anew, and nothing breaks."""
    from cryptography.fernet import Fernet

    one, other = Box(Fernet.generate_key()), Box(Fernet.generate_key())
    assert one.open(one.close("SECRET")) == "SECRET"
    assert other.open(one.close("SECRET")) is None


def test_only_hashes_of_secrets_are_kept() -> None:
    """And a page's word cannot be had from them."""
    secret = secrets.token_urlsafe(32)
    assert secret not in forms.kept(secret)
    assert forms.csrf_of(secret) != forms.csrf_of(forms.kept(secret))
    assert not forms.same("ä", "b")


@pytest.mark.parametrize("name", ["", "-ann", "ann-", "a b", "a\nb", "é", "x" * 65, "a/b", "<b>"])
def test_odd_names_are_refused(name: str) -> None:
    """Names stand in logs, mail and pages."""
    assert not USERNAME.fullmatch(name)


@pytest.mark.parametrize("address", ["ann", "ann@", "@x.y", "a b@x.y", "a@x", "a@x.y\nBcc: b@x.y", "a,b@x.y", "<a@x.y>"])
def test_odd_addresses_are_refused(address: str) -> None:
    """An address stands in the head of a letter."""
    assert not EMAIL.fullmatch(address)


def test_a_role_has_no_more_than_it_is_given() -> None:
    """An unknown role has nothing; a token has what both have."""
    assert scopes_of("root") == frozenset()
    assert scopes_of("viewer", frozenset({"people", "view"})) == {"view"}
    assert "account" not in scopes_of("admin", frozenset(ROLES["admin"]))
    assert "account" not in TOKEN_SCOPES


@pytest.mark.parametrize("path", ["/static/app/door/../index.html", "/static/app//x", "/static/app/door/.git", "/a\\b", "/a\x00"])
def test_a_crooked_path_has_no_rule(path: str) -> None:
    """An open folder does not lead into a closed one."""
    assert Rules(PAGES).find("GET", path) is None
