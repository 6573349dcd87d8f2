"""Keeps tickets: each stands for a token's claims, opens one event stream, once, within half a minute.

A ticket is a file of RUN_DIR, which all workers of the machine share: whoever takes it away first has it, so none is used
twice. Its name is a hash of the ticket: who can list the folder cannot use what is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections import Counter, deque
from pathlib import Path

from wds.access.tokens import Claims, TokenRefused

TTL_S = 30
TICKETS_MAX = 10_000  # of a worker, not expired


class Tickets:
    """The tickets of one worker; what it issued any worker of the machine takes."""

    def __init__(self, folder: Path, per_user_max: int) -> None:
        self._folder = folder
        self._per_user_max = per_user_max
        self._issued: deque[tuple[float, Path, str]] = deque()  # when it expires, its file, whose it is
        self._users: Counter[str] = Counter()

    def issue(self, claims: Claims, now_s: float) -> str:
        """Return a new ticket.  Raises: TokenRefused when there are too many, or RUN_DIR cannot be written."""
        self.sweep(now_s)
        if len(self._issued) >= TICKETS_MAX or self._users[claims.sub] >= self._per_user_max:
            raise TokenRefused("unavailable", f"too many tickets at once: they expire after {TTL_S} s")
        ticket = secrets.token_urlsafe(24)
        path = self._path(ticket)
        said = {
            "sub": claims.sub,
            "exp_s": claims.exp_s,
            "jti": claims.jti,
            "globs": claims.globs,
            "sid": claims.sid,
            "until_s": now_s + TTL_S,
        }
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            path.touch(0o600, exist_ok=False)
            path.write_text(json.dumps(said))
        except OSError as fault:
            raise TokenRefused("unavailable", f"tickets cannot be kept in RUN_DIR: {fault.strerror}") from None
        self._issued.append((now_s + TTL_S, path, claims.sub))
        self._users[claims.sub] += 1
        return ticket

    def redeem(self, ticket: str, now_s: float) -> Claims:
        """Return whom the ticket stands for; it is used up.  Raises: TokenRefused."""
        path = self._path(ticket)
        own = path.with_suffix(f".{secrets.token_hex(4)}")
        try:
            path.rename(own)  # atomic: of two only one finds it
            said = json.loads(own.read_text())
            own.unlink()
            claims = Claims(said["sub"], said["exp_s"], said["jti"], tuple(said["globs"]), said["sid"])
        except (OSError, ValueError, KeyError):
            raise TokenRefused(
                "unauthorized", "no such ticket: each is good for one stream, ask POST /v1/ticket for another"
            ) from None
        if now_s >= said["until_s"]:
            raise TokenRefused("unauthorized", f"the ticket is older than {TTL_S} s: ask POST /v1/ticket for another")
        return claims

    def sweep(self, now_s: float) -> None:
        """Remove what has expired."""
        while self._issued and self._issued[0][0] <= now_s:
            _, path, user = self._issued.popleft()
            path.unlink(missing_ok=True)
            self._users[user] -= 1
            if not self._users[user]:
                del self._users[user]

    def close(self) -> None:
        """Remove all."""
        with contextlib.suppress(OSError):
            self.sweep(float("inf"))

    def _path(self, ticket: str) -> Path:
        return self._folder / hashlib.sha256(ticket.encode()).hexdigest()
