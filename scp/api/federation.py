"""The two pages of signing in at a provider: the way there, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote

import structlog

from scp.control import PROVIDER_COOKIE, Control
from scp.security import throttle
from scp.security.audit import Asked
from scp.security.people import Refused
from scp.security.provider import ProviderFailed
from scp.security.throttle import TooMany
from scp.store.database import StoreUnavailable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a browser. `secret` is a new session's, for the cookie."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    secret: str | None = None


def go(control: Control, asked: Asked) -> Page:
    """Send the browser to the provider."""
    try:
        return Page(303, _way(control, 0, asked))
    except (TooMany, ProviderFailed, StoreUnavailable) as error:
        return _sorry(error, asked)


def link(control: Control, user_id: int, asked: Asked) -> tuple[tuple[str, str], ...]:
    """Return Location and Set-Cookie for linking an identity to this account.  Raises: ProviderFailed, TooMany."""
    return _way(control, user_id, asked)


def back(control: Control, environ: dict[str, Any], asked: Asked) -> Page:
    """Take the browser back: an identity for the code, a session for the identity."""
    query = {name: values[-1] for name, values in parse_qs(environ.get("QUERY_STRING", "")[:4096]).items()}
    try:
        control.guard.count((throttle.PROVIDER, (asked.address,)))
        begun = control.federated.take(query.get("state", ""), _browser(environ), asked)
        if begun is None or control.provider is None:
            raise ProviderFailed("expired", "this try was made by another browser, or has ended")
        if "code" not in query:
            raise ProviderFailed("refused", f"the provider says {query.get('error', 'nothing')[:80]!r}")
        identity = control.provider.identity(query["code"], control.provider_back, begun.nonce, begun.verifier)
        if begun.user_id:
            control.federated.link(begun.user_id, identity, asked)
            return _onward("/")
        way = control.federated.sign_in(identity, asked)
        return _onward("/sign-in?step=second-factor" if way.half_open else "/", way.secret)
    except (TooMany, ProviderFailed, Refused, StoreUnavailable) as error:
        return _sorry(error, asked)


def _way(control: Control, user_id: int, asked: Asked) -> tuple[tuple[str, str], ...]:
    control.guard.count((throttle.PROVIDER, (asked.address,)))
    if control.provider is None:
        raise ProviderFailed("none", "SCP_OIDC_ISSUER is not set")
    begun = control.federated.begin(user_id, asked)
    address = control.provider.address(control.provider_back, begun.state, begun.nonce, begun.verifier)
    return (("Location", address), ("Set-Cookie", control.provider_cookie(begun.browser)))


def _onward(path: str, secret: str | None = None) -> Page:
    """A page that goes on by itself: a redirect from another site would leave our strict cookie at home."""
    where = escape(path, quote=True)
    body = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={where}">'
        f'<title>Tapeline</title><p><a href="{where}">Go on</a></p></html>'
    )
    return Page(200, body=body, secret=secret)


def _sorry(error: Exception, asked: Asked) -> Page:
    code = error.code if isinstance(error, ProviderFailed | Refused) else "busy"
    log.warning("provider_sign_in_failed", code=code, why=str(error), request_id=asked.request_id)
    return Page(303, (("Location", f"/sign-in?why={quote(code)}"),))


def _browser(environ: dict[str, Any]) -> str:
    try:
        cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
    except CookieError:
        return ""
    found = cookies.get(PROVIDER_COOKIE) or cookies.get(PROVIDER_COOKIE.removeprefix("__Host-"))
    return found.value if found is not None else ""
