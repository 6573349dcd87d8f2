"""Loads the machine's own signing key, fetches the control plane's JWKS, and verifies tokens by both.

Invariant: keys that were once fetched stay in force while the control plane is away; it is asked at most once in `FETCH_PAUSE_S`
seconds, and for the same unknown key in `MISSED_S`, whatever tokens arrive. A key that is seconds old is found by that.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from service.errors import OperatorError
from service.settings import secret_file
from wds.access.tokens import AUDIENCE, Claims, KeyRing, TokenRefused, mint

KEY_FILE = "wds.key"
FETCH_TIMEOUT_S = 3.0
JWKS_BYTES_MAX = 65_536
RETRY_S = 10.0
FETCH_PAUSE_S = 1.0
MISSED_S = 3.0
MISSED_MAX = 256  # unknown keys that are remembered
log = structlog.get_logger()


def local_key(run_dir: Path) -> Ed25519PrivateKey:
    """Return the machine's own signing key, made once in RUN_DIR/wds.key (mode 0600)."""
    path = run_dir / KEY_FILE
    pem = secret_file(path, _new_pem)
    try:
        key = load_pem_private_key(pem, None)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise OperatorError(f"{path} is not an Ed25519 private key", "Remove the file; a new key is made at the next start")
    return key


def _new_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def mint_local(run_dir: Path, globs: Sequence[str] = ("*",), ttl_s: int = 3600, sub: str = "local") -> str:
    """Return a token signed by the machine's own key: for scripts that can read RUN_DIR."""
    return mint(local_key(run_dir), sub, globs, ttl_s, time.time(), secrets.token_hex(8))


class KeySource:
    """Verifies tokens, fetching the control plane's keys when they are old or a token names an unknown one."""

    def __init__(self, ring: KeyRing, url: str | None, ttl_s: float) -> None:
        self._ring = ring
        self._url = url
        self._ttl_s = ttl_s
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._missed: dict[str, float] = {}  # unknown key → when it was last looked for
        self._failures = 0
        self.reachable = True

    def verify(self, token: str, audiences: Sequence[str] = (AUDIENCE,)) -> Claims:
        """Return the claims.  Raises: TokenRefused; with `unknown_kid` when `refresh` may help."""
        return self._ring.verify(token, time.time(), audiences)

    @property
    def fetches(self) -> bool:
        """Whether there is a control plane to ask for keys."""
        return self._url is not None

    @property
    def may_refresh(self) -> bool:
        """Whether asking the control plane now makes sense."""
        return self._url is not None and time.monotonic() - self._tried_at >= RETRY_S

    @property
    def stale(self) -> bool:
        """Whether the keys are due for a fetch."""
        return self.may_refresh and time.monotonic() - self._fetched_at >= self._ttl_s

    async def refresh(self) -> None:
        """Fetch the keys once, for all who wait."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(lambda _: setattr(self, "_fetching", None))
        await asyncio.shield(self._fetching)

    async def verify_anew(self, token: str, audiences: Sequence[str] = (AUDIENCE,)) -> Claims:
        """Verify after a refresh.  Raises: TokenRefused, `unavailable` when the control plane did not answer."""
        try:
            return self.verify(token, audiences)
        except TokenRefused as refused:
            if refused.unknown_kid is None:
                raise
            kid = refused.unknown_kid
        now = time.monotonic()
        if now - self._missed.get(kid, float("-inf")) >= MISSED_S:
            if len(self._missed) >= MISSED_MAX:
                self._missed.clear()
            self._missed[kid] = now
            await self.refresh()
        elif self._fetching is not None:
            await self.refresh()
        try:
            return self.verify(token, audiences)
        except TokenRefused as refused:
            if refused.unknown_kid is not None and not self.reachable:
                raise TokenRefused("unavailable", "the keys cannot be fetched now") from None
            raise

    async def _fetch(self) -> None:
        assert self._url is not None
        await asyncio.sleep(max(0.0, self._tried_at + FETCH_PAUSE_S - time.monotonic()))
        self._tried_at = time.monotonic()
        try:
            body = await asyncio.to_thread(_get, self._url)
            count = self._ring.install(body)
        except (OSError, ValueError, HTTPException) as error:
            self.reachable = False
            self._failures += 1
            if self._failures == 2:  # once may be the start, at which the control plane comes last
                log.warning("keys_not_fetched", url=self._url, error=str(error), fix="Start SCP, or set WDS_JWKS_URL")
            return
        self.reachable, self._failures = True, 0
        self._fetched_at = time.monotonic()
        log.info("keys_fetched", url=self._url, keys=count)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as answer:  # noqa: S310  # the settings allow http(s) only
        return bytes(answer.read(JWKS_BYTES_MAX))
