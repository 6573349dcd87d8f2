"""Knows what a key lets its bearer do, how one is written, and how it is recognised without being kept.

A key is `tl_<id>_<secret>`: the id is for people, lists and the audit, the secret 256 random bits. Kept is the secret's SHA-256.
A slow hash as for passwords would protect nothing here, because nobody can try 2**256 secrets however fast the hash is, and it
would cost every request tens of milliseconds of the one loop: a flood of wrong keys would stop the exchange.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import msgspec

from engine.core.units import WHOLE_MAX, iso, time_ns

FORMAT = re.compile(r"tl_([a-z0-9]{8})_([0-9a-f]{64})")
KEYS_MAX = 1_000
RANGES_MAX = 1_000
STORES_MAX = 64
NAME_LENGTH_MAX = 64
ALL_CUSTOMERS = ((1, WHOLE_MAX),)
# Senders that are no keys: ourselves, ENGINE_API_TOKEN, ENGINE_MARKET_DATA_TOKEN, the public.
ENGINE, TOKEN, READER, NOBODY = "engine", "token", "market-data-token", ""

Ranges = tuple[tuple[int, int], ...]  # first and last account of each, inclusive


class Role(StrEnum):
    """What a key is for."""

    TRADER = "trader"  # orders and money of its accounts
    MARKET_DATA = "market-data"  # message stores and `/joined`
    REPLICA = "replica"  # the whole journal, as a standby copies it
    OPERATOR = "operator"  # everything, every account, INSURANCE and FEES too


class KeyInvalid(ValueError):
    """What was asked for is no key; the text says why."""


class Key(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """One key as the file has it. Times are ISO 8601; an empty one means never."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]{8}\Z")]
    role: Role
    hash: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    created: str
    name: Annotated[str, msgspec.Meta(max_length=NAME_LENGTH_MAX)] = ""
    accounts: Ranges = ()
    stores: tuple[str, ...] = ()  # empty: every store
    expires: str = ""
    withdrawn: str = ""


class Caller(msgspec.Struct, frozen=True):
    """Who sent a request, as far as it matters: the sender in the journal, the role, accounts and stores."""

    sender: str
    role: Role | None = None  # None: nobody showed a key
    accounts: Ranges = ()
    stores: tuple[str, ...] = ()

    @property
    def is_operator(self) -> bool:
        return self.role is Role.OPERATOR

    def may_use(self, account: int) -> bool:
        """Return whether orders and money of an account are this caller's to move and to see."""
        if self.role is Role.OPERATOR:
            return True
        return self.role is Role.TRADER and any(first <= account <= last for first, last in self.accounts)

    def may_see(self, account: int) -> bool:
        """Return whether this caller may look at an account: its own, or all that message stores tell it of anyway."""
        return self.may_use(account) or (self.role is Role.MARKET_DATA)

    def may_read(self, store_id: str) -> bool:
        """Return whether a message store is this caller's to read and to purge."""
        return self.role is Role.OPERATOR or (self.role is Role.MARKET_DATA and (not self.stores or store_id in self.stores))


PUBLIC = Caller(NOBODY)
OURSELVES = Caller(ENGINE, Role.OPERATOR)
HOLDER_OF_TOKEN = Caller(TOKEN, Role.OPERATOR)
READER_OF_ALL = Caller(READER, Role.MARKET_DATA)


def digest(secret: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def written(key_id: str, secret: str) -> str:
    """Return a key as its bearer gets it."""
    return f"tl_{key_id}_{secret}"


def parts(text: str) -> tuple[str, str] | None:
    """Return id and secret of a key, None when it is none."""
    found = FORMAT.fullmatch(text)
    return (found[1], found[2]) if found else None


def same(given: bytes, kept: bytes) -> bool:
    """Compare two digests in constant time."""
    return hmac.compare_digest(given, kept)


def checked(key: Key) -> Key:
    """Return a key that makes sense.  Raises: KeyInvalid."""
    if (key.role is Role.TRADER) != bool(key.accounts):
        raise KeyInvalid("a trader has accounts, like 7, 100-199 or all; the other roles have none")
    if key.stores and key.role is not Role.MARKET_DATA:
        raise KeyInvalid("only a market-data key names stores")
    if any(not 1 <= first <= last <= WHOLE_MAX for first, last in key.accounts):
        raise KeyInvalid("accounts are customers' numbers from 1 up; INSURANCE and FEES belong to operators")
    if len(key.accounts) > RANGES_MAX or len(key.stores) > STORES_MAX:
        raise KeyInvalid(f"a key has at most {RANGES_MAX} ranges of accounts and {STORES_MAX} stores")
    for name in ("created", "expires", "withdrawn"):
        if value := getattr(key, name):
            try:
                time_ns(value)
            except ValueError as error:
                raise KeyInvalid(f"{name}: {error}") from None
    return key


def ranges(text: str) -> Ranges:
    """Return accounts as people write them: `7`, `7,100-199`, `all` for every customer.  Raises: KeyInvalid."""
    if text.strip() == "all":
        return ALL_CUSTOMERS
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and len(first) < 17) or (
            dash and not (last.isascii() and last.isdigit() and len(last) < 17)
        ):
            raise KeyInvalid(f"{part[:40]!r} is no account: write 7, 7,100-199 or all")
        found.append((int(first), int(last or first)))
    return tuple(sorted(found))


def shown(accounts: Ranges) -> str:
    """Return accounts as `ranges` takes them."""
    if accounts == ALL_CUSTOMERS:
        return "all"
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in accounts)


class KeyRing:
    """The keys of one file, found by their id."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        """Raises: KeyInvalid."""
        self.keys: dict[str, Key] = {}
        self._known: dict[str, tuple[bytes, int, Caller]] = {}  # of keys that count: digest, end in ns (0 = none), caller
        for key in keys:
            if key.id in self.keys:
                raise KeyInvalid(f"the key {key.id} is there twice")
            self.keys[key.id] = checked(key)
            if not key.withdrawn:
                caller = Caller(key.id, key.role, key.accounts, key.stores)
                self._known[key.id] = bytes.fromhex(key.hash), time_ns(key.expires) if key.expires else 0, caller
        if len(self.keys) > KEYS_MAX:
            raise KeyInvalid(f"there are {len(self.keys)} keys; {KEYS_MAX} is the most")

    def bearer(self, text: str, now_ns: int) -> Caller | None:
        """Return who shows this key, None when it does not count (any more)."""
        found = parts(text)
        known = self._known.get(found[0]) if found else None
        if found is None or known is None or not same(digest(found[1]), known[0]):
            return None
        return known[2] if not known[1] or now_ns < known[1] else None

    def counts(self, caller: Caller, now_ns: int) -> bool:
        """Return whether what a caller was let in with is still good."""
        if caller.sender in (ENGINE, TOKEN, READER):
            return True
        known = self._known.get(caller.sender)
        return known is not None and known[2] == caller and (not known[1] or now_ns < known[1])


def made(  # one line of terms for the file, the command and the API alike
    key_id: str, secret: str, now_ns: int, role: Role, name: str = "", accounts: Ranges = (), stores: tuple[str, ...] = (),
    expires: str = "",
) -> Key:  # fmt: skip
    """Return a new key.  Raises: KeyInvalid."""
    if len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise KeyInvalid(f"a name has up to {NAME_LENGTH_MAX} printable characters")
    key = Key(
        id=key_id, role=role, hash=digest(secret).hex(), created=iso(now_ns), name=name, accounts=accounts, stores=stores,
        expires=expires,
    )  # fmt: skip
    checked(key)
    if expires and time_ns(expires) <= now_ns:
        raise KeyInvalid("the key would have expired already")
    return key
