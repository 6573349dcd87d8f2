"""What the API's handlers work with: the database, the ways in, whom to tell, how addresses are written."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

import structlog
from cryptography.fernet import Fernet

from scp.fleet.fleet import Fleet
from scp.fleet.keeper import Keeper
from scp.fleet.paper_streams import PaperStreams
from scp.mail import Mail
from scp.reference.desk import ReferenceDesk
from scp.security import sessions
from scp.security.account import Account
from scp.security.audit import Asked
from scp.security.federated import TRY_S, Federated
from scp.security.provider import Provider, ProviderSettings
from scp.security.second_factor import Box
from scp.security.sessions import Lives
from scp.security.sign_in import SignIn
from scp.security.stream_keys import StreamKeys, Turns
from scp.security.throttle import Throttle
from scp.settings import ScpSettings
from scp.store.database import Store, StoreUnavailable
from scp.tokens import Minter
from service.errors import OperatorError
from service.settings import secret_file

WELCOME_FILE = "welcome.url"  # in RUN_DIR: the first administrator's link, for whoever may read that folder
PROVIDER_COOKIE = "__Host-tapeline-oidc"
KEY_FILE = "scp.key"  # closes second-factor secrets; in RUN_DIR, beside the database of one machine
log = structlog.get_logger()


class Control:
    """One control plane's parts. `announce` is called after sessions have ended."""

    def __init__(self, settings: ScpSettings, store: Store, announce: Callable[[], None] = lambda: None) -> None:
        self.store = store
        self.announce = announce
        self.draw, self.draw_below = secrets.token_urlsafe, secrets.randbelow
        self.paper_deposit = settings.paper_deposit
        self.lives = Lives(settings.session_idle_s, settings.session_s)
        self.box = box = Box(_box_key(settings))
        turns = Turns(settings.jwks_ttl_s, settings.longest_s, round(settings.key_days * 86_400))
        self.stream_keys = StreamKeys(store, box, turns, time.time)
        self.provider = _provider(settings)
        self.provider_name = settings.oidc_name
        self.federated = Federated(store, self.lives, self.draw, settings.oidc_role)
        self._secure = settings.secure
        self.fleet = Fleet(settings)
        self.paper_streams = PaperStreams(self.fleet, settings.paper_deposit, self._may_trade)
        self.reference = ReferenceDesk(settings)
        self.minter = Minter(self.stream_keys.signing, settings.token_s)
        self.wds_url = settings.wds_url
        self.compat_url = settings.compat_url
        self.guard = Throttle(store, time.time)
        self.sign_in = SignIn(store, self.guard, self.lives, box, self.draw)
        self.account = Account(store, self.guard, self.lives, box, self.draw)
        self.welcome_file = settings.run_dir / WELCOME_FILE
        self._public_url = settings.public_url
        self._mail = Mail(settings.smtp_url.get_secret_value() if settings.smtp_url else "", settings.mail_from)

    def _may_trade(self, public_ids: set[str]) -> set[str]:
        with self.store.transaction() as db:
            return sessions.with_scope(db, public_ids, "trade", round(time.time() * 1000), self.lives)

    def keep_configurations(self) -> None:
        """Begin to put listeners' configurations back."""
        self.fleet.begin(Keeper(self.fleet, self.store, self.box).run())

    def use_url(self, url: str) -> None:
        """Without SCP_PUBLIC_URL, links name the address that we listen on."""
        self._public_url = self._public_url or url.rstrip("/")

    @property
    def provider_back(self) -> str:
        """Return where the provider sends browsers back to; it must be registered there."""
        return f"{self._public_url}/sign-in/oidc/callback"

    def provider_cookie(self, browser: str) -> str:
        """Return the Set-Cookie header that binds a try to its browser. Lax: it comes back from another site."""
        name = PROVIDER_COOKIE if self._secure else PROVIDER_COOKIE.removeprefix("__Host-")
        return f"{name}={browser}; Path=/; HttpOnly; SameSite=Lax; Max-Age={TRY_S}{'; Secure' if self._secure else ''}"

    def link(self, secret: str) -> str:
        """Return the address of a one-time link. The secret stands behind the #: no server and no log sees it."""
        return f"{self._public_url}/welcome#{secret}"

    def send_reset(self, username: str, asked: Asked) -> None:
        """Send a reset link to whoever has an address; it takes as long for nobody.  Raises: TooMany, StoreUnavailable."""
        found = self.sign_in.reset_link(username, asked)
        if found is None:
            return
        text = f"Set a new password within 15 minutes: {self.link(found[1])}\nIf you did not ask for it, do nothing.\n"
        threading.Thread(
            target=self._mail.send, args=(found[0], "Tapeline: a new password", text), name="mail", daemon=True
        ).start()


def open_store(settings: ScpSettings) -> Store:
    """Open the database and bring its shape up to date.  Raises: OperatorError."""
    store = Store(settings.database_url.get_secret_value() if settings.database_url else "", settings.run_dir.resolve() / "scp")
    store.migrate()
    return store


def internal(what: str) -> Asked:
    """Return the request that stands in the audit log for what the process, or somebody at its command line, does."""
    return Asked("local", time.time(), secrets.token_hex(16), what)


def _provider(settings: ScpSettings) -> Provider | None:
    if not settings.oidc_issuer:
        return None
    secret = settings.oidc_client_secret.get_secret_value() if settings.oidc_client_secret else ""
    return Provider(ProviderSettings(settings.oidc_issuer, settings.oidc_client_id, secret, settings.oidc_claim), time.time)


def _box_key(settings: ScpSettings) -> bytes:
    path = settings.run_dir / KEY_FILE
    key = settings.secret_key.get_secret_value().encode() if settings.secret_key else secret_file(path, Fernet.generate_key)
    try:
        Fernet(key)
    except ValueError:
        where = "SCP_SECRET_KEY" if settings.secret_key else str(path)
        raise OperatorError(
            f"{where} is no key: 32 bytes in URL-safe base 64",
            "Make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'",
        ) from None
    return key


def sweep(control: Control, now_ms: int, keep_ms: int = 30 * 86_400_000) -> None:
    """Forget sessions and links that ended long ago, and throttle windows that are over; replace a signing key that is old.

    That a session has ended is remembered for as long as a key that was given to it may be good.
    """
    keep_ms = max(keep_ms, control.lives.whole_s * 1000)
    try:
        with control.store.transaction() as db:
            sessions.sweep(db, now_ms, keep_ms)
        control.guard.sweep()
        control.stream_keys.turn()
    except StoreUnavailable as error:
        log.warning("sweep_failed", error=str(error))
