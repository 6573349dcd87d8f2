"""Talks with an OpenID Connect provider: discovery, the address to send a browser to, a code for a checked identity.

OAuth 2 is Authlib's, signatures are PyJWT's. Invariant: an identity is believed only when it was signed by one of the provider's
own asymmetric keys, for us, for this very try (nonce), and has not ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt
import requests
from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]
from authlib.integrations.requests_client import OAuth2Session  # type: ignore[import-untyped]

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
TIMEOUT_S = 5.0
KEPT_S = 3600.0  # discovery and keys; an unknown key is looked for at once
ANSWER_BYTES_MAX = 262_144
AT_ONCE_MAX = 3  # requests to a slow provider hold a thread each
LEEWAY_S = 60


class ProviderFailed(Exception):
    """The provider did not give an identity; `code` is what the page says of it, the text goes into the log."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the provider vouches for. `subject` is theirs for ever; the other two are what it calls them today."""

    issuer: str
    subject: str
    username: str
    email: str


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Who the provider is and who we are there. `username_claim` names the claim that is used as a new person's name."""

    issuer: str
    client_id: str
    client_secret: str
    username_claim: str


class Provider:
    """One provider. Nothing is asked of it before somebody wants to sign in."""

    def __init__(self, settings: ProviderSettings, now_s: Callable[[], float]) -> None:
        self._settings = settings
        self._now_s = now_s
        self._document: dict[str, Any] = {}
        self._keys: dict[str, Any] = {}
        self._read_s = float("-inf")
        self._room = threading.BoundedSemaphore(AT_ONCE_MAX)

    def address(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Return where the browser goes to sign in there.  Raises: ProviderFailed."""
        with self._talk() as web:
            endpoint = self._found(web)["authorization_endpoint"]
            client = self._client(redirect_uri)
            return str(client.create_authorization_url(endpoint, state=state, nonce=nonce, code_verifier=verifier)[0])

    def identity(self, code: str, redirect_uri: str, nonce: str, verifier: str) -> Identity:
        """Change a code for an identity.  Raises: ProviderFailed."""
        with self._talk() as web:
            document = self._found(web)
            client = self._client(redirect_uri)
            try:
                given = client.fetch_token(
                    document["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=verifier,
                    timeout=TIMEOUT_S,
                    allow_redirects=False,
                )
            except OAuthError as error:
                raise ProviderFailed("refused", f"the provider refused the code: {error.error}") from None
            except (requests.RequestException, ValueError, TypeError, AttributeError, KeyError) as error:
                raise ProviderFailed("unreachable", f"the token endpoint: {error!r}") from None
            finally:
                client.close()
            token = given.get("id_token") if isinstance(given, dict) else None
            if not isinstance(token, str):
                raise ProviderFailed("refused", "the answer has no id_token")
            return self._believed(web, token, nonce)

    # Parts

    def _talk(self) -> _Talk:
        if not self._room.acquire(timeout=TIMEOUT_S):
            raise ProviderFailed("busy", "the provider is slow, and others wait for it")
        return _Talk(self._room)

    def _client(self, redirect_uri: str) -> Any:
        own = self._settings
        return OAuth2Session(
            own.client_id, own.client_secret or None, scope="openid profile email", redirect_uri=redirect_uri,
            code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_basic" if own.client_secret else "none",
        )  # fmt: skip

    def _found(self, web: requests.Session, again: bool = False) -> dict[str, Any]:
        """Return the discovery document, with the keys read."""
        if not again and self._now_s() - self._read_s < KEPT_S:
            return self._document
        document = _read(web, self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != self._settings.issuer:
            raise ProviderFailed("misconfigured", f"it calls itself {document.get('issuer')!r}, not SCP_OIDC_ISSUER")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not safe_address(document.get(name)):
                raise ProviderFailed("misconfigured", f"its {name} is no https address: {document.get(name)!r}")
        keys = _read(web, document["jwks_uri"]).get("keys")
        self._keys = {}
        for item in keys if isinstance(keys, list) else []:
            if isinstance(item, dict) and item.get("kty") in ("RSA", "EC", "OKP") and item.get("use", "sig") == "sig":
                self._keys[str(item.get("kid", ""))] = item
        self._document, self._read_s = document, self._now_s()
        return document

    def _believed(self, web: requests.Session, token: str, nonce: str) -> Identity:
        own = self._settings
        try:
            header = jwt.get_unverified_header(token)
            kid, algorithm = str(header.get("kid", "")), header.get("alg")
            if kid not in self._keys:
                self._found(web, again=True)
            if algorithm not in ALGORITHMS or kid not in self._keys:
                raise ProviderFailed("refused", f"its identity is signed by {algorithm!r} with the unknown key {kid[:40]!r}")
            key = jwt.PyJWK(self._keys[kid], algorithm=algorithm)
            required: Any = {"require": ["iss", "sub", "aud", "exp", "iat", "nonce"]}
            body = jwt.decode(
                token, key, algorithms=[algorithm], audience=own.client_id, issuer=own.issuer, leeway=LEEWAY_S, options=required
            )
        except jwt.PyJWTError as error:
            raise ProviderFailed("refused", f"its identity is not good: {error}") from None
        several = isinstance(body["aud"], list) and len(body["aud"]) > 1
        if body["nonce"] != nonce or (several and body.get("azp") != own.client_id) or not isinstance(body["sub"], str):
            raise ProviderFailed("refused", "its identity was made for another try, or for somebody else")
        email = body.get("email") if body.get("email_verified") is True else ""
        named = body.get(own.username_claim)
        return Identity(own.issuer, body["sub"][:255], named if isinstance(named, str) else "", str(email or ""))


class _Talk:
    """A connection for one exchange; gives its place back at the end."""

    def __init__(self, room: threading.BoundedSemaphore) -> None:
        self._room = room

    def __enter__(self) -> requests.Session:
        self._web = requests.Session()
        return self._web

    def __exit__(self, *_: object) -> None:
        self._web.close()
        self._room.release()


def safe_address(url: object) -> bool:
    """Whether `url` is https, or http on this machine."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))
    except ValueError:
        return False


def _read(web: requests.Session, url: str) -> dict[str, Any]:
    try:
        answer = web.get(url, timeout=TIMEOUT_S, allow_redirects=False)
        document = answer.json() if answer.status_code == 200 and len(answer.content) <= ANSWER_BYTES_MAX else None
    except (requests.RequestException, ValueError) as error:
        raise ProviderFailed("unreachable", f"{url}: {error!r}"[:300]) from None
    if not isinstance(document, dict):
        raise ProviderFailed("unreachable", f"{url} gave no JSON object")
    return document
