"""Keeps the keys that sign stream tokens: made here, closed in the database, shown to data services (JWKS), replaced in turn.

Invariant: a key is shown for as long as a data service may go on with keys it fetched before, and only then signs; it stays
shown until the last token that it signed has ended. Only the first key, and the one after a key was withdrawn, sign at once.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from scp.security.audit import Asked, note
from scp.security.second_factor import Box
from scp.store.database import Store

AGAIN_S = 5.0  # another control plane's new key, or a withdrawal, is seen within this time
SLACK_S = 30  # clocks and requests under way


@dataclass(frozen=True, slots=True)
class StreamKey:
    """A key; `private` is None when it was closed with another SCP_SECRET_KEY: it is shown, and never signs. Times in ms."""

    kid: str
    number: int
    public_x: str  # the public key's 32 bytes, URL-safe base 64 without padding
    private: Ed25519PrivateKey | None
    made_ms: int
    signs_ms: int


@dataclass(frozen=True, slots=True)
class Turns:
    """How keys follow each other, in seconds: a data service fetches every `fetch_s`, a token lives `token_s`, a key `key_s`."""

    fetch_s: int
    token_s: int
    key_s: int

    @property
    def lead_ms(self) -> int:
        """How long a key is shown before it signs."""
        return (self.fetch_s + SLACK_S) * 1000

    @property
    def tail_ms(self) -> int:
        """How long a key is shown after the next one signs."""
        return (self.token_s + SLACK_S) * 1000


class StreamKeys:
    """The keys of one database; every control plane on it sees the same ones."""

    def __init__(self, store: Store, box: Box, turns: Turns, now_s: Callable[[], float]) -> None:
        self._store = store
        self._box = box
        self._turns = turns
        self._now_s = now_s
        self._kept: list[StreamKey] = []
        self._read_s = float("-inf")
        self._opened: dict[str, StreamKey] = {}

    def signing(self) -> StreamKey:
        """Return the key that signs now; make one where there is none.  Raises: StoreUnavailable."""
        now_ms = self._now_ms()
        if (found := signing_key(self._known(), now_ms)) is None:
            self.turn()
            found = signing_key(self._known(), self._now_ms())
        assert found is not None
        return found

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as a JSON Web Key Set (RFC 7517, RFC 8037), oldest first.  Raises: StoreUnavailable."""
        self.signing()
        now_ms = self._now_ms()
        return {"keys": [jwk(key) for key in shown_keys(self._known(), now_ms, self._turns)]}

    def listed(self) -> list[dict[str, Any]]:
        """Return the keys for people: kid, state (next, signing, passing), made_ms, signs_ms."""
        self.signing()
        now_ms, keys = self._now_ms(), self._known()
        signs = signing_key(keys, now_ms)
        return [
            {"kid": key.kid, "state": _state(key, signs, now_ms), "made_ms": key.made_ms, "signs_ms": key.signs_ms}
            for key in shown_keys(keys, now_ms, self._turns)
        ]

    def turn(self) -> None:
        """Make the first key, or the next one when the newest is old; forget those that signed nothing that still lives."""
        with self._store.transaction() as db:
            keys, now_ms = self._begin(db)
            newest = keys[-1] if keys else None
            if signing_key(keys, now_ms) is None:
                self._make(db, keys, now_ms, now_ms)
            elif newest is not None and now_ms >= newest.signs_ms + self._turns.key_s * 1000:
                self._make(db, keys, now_ms, now_ms + self._turns.lead_ms)
            living = {key.kid for key in shown_keys(keys, now_ms, self._turns)}
            for key in keys:
                if key.kid not in living:
                    db(db.stream_key.kid == key.kid).delete()
        self._read_s = float("-inf")

    def make_next(self, who: str, asked: Asked) -> StreamKey:
        """Make the key that signs next, now; return the one that is waiting if there is one already."""
        with self._store.transaction() as db:
            keys, now_ms = self._begin(db)
            if keys and keys[-1].signs_ms > now_ms:
                return keys[-1]
            at_ms = now_ms + self._turns.lead_ms if signing_key(keys, now_ms) else now_ms
            made = self._make(db, keys, now_ms, at_ms)
            note(db, asked, who, "stream_key.make", made.kid, signs_ms=made.signs_ms)
        self._read_s = float("-inf")
        return made

    def withdraw(self, kid: str, who: str, asked: Asked) -> None:
        """Show and use a key no more, now: somebody else may have it.  Raises: KeyError when there is none.

        What it signed opens nothing after the data services' next fetch. When it was the signing one, another signs at once.
        """
        with self._store.transaction() as db:
            keys, now_ms = self._begin(db)
            if not db(db.stream_key.kid == kid).delete():
                raise KeyError(kid)
            left = [key for key in keys if key.kid != kid]
            if signing_key(left, now_ms) is None:
                waiting = [key for key in left if key.private is not None]
                if waiting:
                    db(db.stream_key.kid == waiting[0].kid).update(signs_ms=now_ms)
                else:
                    self._make(db, keys, now_ms, now_ms)
            note(db, asked, who, "stream_key.withdraw", kid)
        self._read_s = float("-inf")

    # Parts

    def _now_ms(self) -> int:
        return int(self._now_s() * 1000)

    def _known(self) -> list[StreamKey]:
        now_s = self._now_s()
        if abs(now_s - self._read_s) >= AGAIN_S:  # also when the clock was set back
            with self._store.transaction() as db:
                self._kept = self._rows(db)
            self._read_s = now_s
        return self._kept

    def _begin(self, db: Any) -> tuple[list[StreamKey], int]:
        """Let nobody else change keys until this transaction ends; return what there is, and the time."""
        db(db.audit_head.id == 1).update(entries=db.audit_head.entries)
        return self._rows(db), self._now_ms()

    def _rows(self, db: Any) -> list[StreamKey]:
        return [self._open(row) for row in db(db.stream_key.id > 0).select(orderby=db.stream_key.number)]

    def _open(self, row: Any) -> StreamKey:
        known = self._opened.get(row.kid)
        if known is None:
            pem = self._box.open(row.closed)
            private = serialization.load_pem_private_key(pem.encode(), None) if pem else None
            own = private if isinstance(private, Ed25519PrivateKey) else None
            known = StreamKey(row.kid, row.number, row.public_x, own, row.made_ms, row.signs_ms)
            if len(self._opened) > 100:
                self._opened.clear()
            self._opened[row.kid] = known
        return known if known.signs_ms == row.signs_ms else replace(known, signs_ms=row.signs_ms)

    def _make(self, db: Any, keys: list[StreamKey], now_ms: int, signs_ms: int) -> StreamKey:
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        x = public_x(private.public_key())
        made = StreamKey(thumbprint(x), keys[-1].number + 1 if keys else 1, x, private, now_ms, signs_ms)
        db.stream_key.insert(
            kid=made.kid, number=made.number, public_x=x, closed=self._box.close(pem), made_ms=now_ms, signs_ms=signs_ms
        )
        return made


def signing_key(keys: list[StreamKey], now_ms: int) -> StreamKey | None:
    """Return the newest key that may sign at `now_ms`."""
    return next((key for key in reversed(keys) if key.signs_ms <= now_ms and key.private is not None), None)


def shown_keys(keys: list[StreamKey], now_ms: int, turns: Turns) -> list[StreamKey]:
    """Return the keys that a data service must know at `now_ms`: all but those that were replaced long enough ago."""
    shown = []
    for at, key in enumerate(keys):
        replaced_ms = min((later.signs_ms for later in keys[at + 1 :] if later.private is not None), default=None)
        if replaced_ms is None or now_ms < replaced_ms + turns.tail_ms:
            shown.append(key)
    return shown


def jwk(key: StreamKey) -> dict[str, str]:
    """Return the public half as a JSON Web Key."""
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.kid, "x": key.public_x}


def public_x(key: Ed25519PublicKey) -> str:
    """Return a public key as a JWK's `x`."""
    return _base64url(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def thumbprint(x: str) -> str:
    """Return the RFC 7638 thumbprint of the key with this `x`, by which the data service finds it."""
    members = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(members.encode()).digest())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _state(key: StreamKey, signs: StreamKey | None, now_ms: int) -> str:
    if signs is not None and key.kid == signs.kid:
        return "signing"
    return "next" if key.signs_ms > now_ms else "passing"
