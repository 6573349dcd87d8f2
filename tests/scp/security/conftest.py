"""Everything for signing in, with a clock turned by hand, on a SQLite file of the test's own."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from scp.security.account import Account
from scp.security.audit import Asked
from scp.security.second_factor import Box
from scp.security.sessions import Lives, Session, find
from scp.security.sign_in import SignIn
from scp.security.throttle import Throttle
from scp.store.database import Store

PASSWORD = "green tractors at dawn"


class Rig:
    """The parts, and what time it is."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1_800_000_000.0
        self.folder = folder
        self.lives = Lives(idle_s=3600, whole_s=86_400)
        self.open()

    def open(self) -> None:
        """Open the database, as after a restart."""
        self.store = Store("", self.folder)
        self.store.migrate()
        self.guard = Throttle(self.store, lambda: self.now_s)
        box = Box((self.folder / "key").read_bytes() if (self.folder / "key").exists() else self._key())
        self.sign_in = SignIn(self.store, self.guard, self.lives, box, secrets.token_urlsafe)
        self.account = Account(self.store, self.guard, self.lives, box, secrets.token_urlsafe)

    def _key(self) -> bytes:
        (self.folder / "key").write_bytes(key := Fernet.generate_key())
        return key

    def asked(self, address: str = "192.0.2.1") -> Asked:
        """Return a request from there, now."""
        return Asked(address, self.now_s, secrets.token_hex(4))

    def session(self, secret: str) -> Session | None:
        """Return the session of a secret, if it is good now."""
        with self.store.transaction() as db:
            return find(db, secret, int(self.now_s * 1000), self.lives)

    def admin(self) -> str:
        """Make the first administrator and return their session's secret."""
        link = self.sign_in.first_link(self.asked())
        assert link is not None
        return self.sign_in.by_link(link, "ann", PASSWORD, self.asked()).secret


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)
