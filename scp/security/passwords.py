"""Judges new passwords, hashes them with argon2id, and compares. Any characters are allowed; length and the commonest count.

Invariant: comparing takes as long for somebody who does not exist as for somebody who does.
"""

from __future__ import annotations

import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.resources import files

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

CHARS_MIN, CHARS_MAX = 12, 256
HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)  # OWASP's first choice of 2024: 19 MiB, two passes
AT_ONCE = 2
# In threads of their own: an allocator keeps the 19 MiB for each thread that ever hashed, which were all of the server's.
_workers = ThreadPoolExecutor(AT_ONCE, "argon2")
WORDS = ("tapeline", "password", "passwort", "welcome", "letmein", "qwerty", "administrator", "changeme", "trading", "market")


def normal(password: str) -> str:
    """Return the form that is compared: the same letters typed on another keyboard are the same password."""
    return unicodedata.normalize("NFKC", password)


def fault_of(password: str, username: str) -> str | None:
    """Return what is wrong with a new password, in words for who chose it; None when it is good."""
    own = normal(password)
    if not CHARS_MIN <= len(own) <= CHARS_MAX:
        return (
            f"A password has {CHARS_MIN} to {CHARS_MAX} characters; yours has {len(own)}. A few words with spaces are a good one."
        )
    small = own.casefold()
    if len(set(small)) < 5 or small in common() or small in (small + small)[1:-1]:
        return "This password is among the first that somebody would try. Take a few words that belong to you alone."
    left = small
    for word in (*WORDS, username.casefold()):
        left = left.replace(word, "") if word else left
    if len(left) < CHARS_MIN // 2 and len(left) < len(small):
        return "Without its common words and your name this password is too short. Take a few words that belong to you alone."
    return None


@cache
def common() -> frozenset[str]:
    """Return the commonest passwords that are long enough to pass the rule of length, in small letters."""
    text = files("scp.security").joinpath("common_passwords.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def hashed(password: str) -> str:
    """Return the argon2id hash, with its parameters and a salt of its own in it. Cost: some 30 ms and 19 MiB."""
    return _workers.submit(HASHER.hash, normal(password)).result()


def matches(password: str, stored: str | None) -> bool:
    """Whether `password` is the one that `stored` was made of. None = nobody: it takes as long, and is False."""
    try:
        right: bool = _workers.submit(HASHER.verify, stored or nobodys(), normal(password)).result()
        return right and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def is_old(stored: str) -> bool:
    """Whether the hash was made with weaker parameters than today's: make it anew at the next sign-in."""
    return HASHER.check_needs_rehash(stored)


@cache
def nobodys() -> str:
    """Return a hash that no password of anybody has."""
    return HASHER.hash("\0nobody")
