"""Decides which key and token go with an operator's change of the feed's addresses.

Invariant: what the process was started with goes only to the servers that its environment names: the vendor's own and those
of MDL_MASSIVE_URL, MDL_ENGINE_URL and MDL_NEWS_URL. Another address brings its own, which goes nowhere else. That no secret
crosses a network unencrypted is checked by the settings, at start-up as well as at a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from mdl.settings import MdlSettings
from service.address import Address, address_of
from service.errors import OperatorError
from service.settings import hide_password

VENDOR = frozenset({Address("socket.massive.com", 443), Address("delayed.massive.com", 443)})


def with_credentials(given: Mapping[str, Any], now: MdlSettings, start: MdlSettings) -> dict[str, Any]:
    """Return the change `given`, with the key and the token that may go to its addresses.

    `now` are the settings in force, `start` those the process was started with; the result is still to be validated.
    Raises: OperatorError for an address that would need a secret of its own and brings none.
    """
    return dict(given) | _key(given, now, start) | _token(given, now, start)


def _key(given: Mapping[str, Any], now: MdlSettings, start: MdlSettings) -> dict[str, Any]:
    there = _vendor(given.get("massive_url", now.massive_url))
    if there == _vendor(now.massive_url):
        return {}
    named = there <= VENDOR | _vendor(start.massive_url)
    if given.get("api_key", "").strip():
        # An empty key means the one in the file: a server that is not named must never come to that.
        return {"api_key_file": start.api_key_file} | _of_news(start) if named else {"api_key_file": None} | _apart(start)
    if named:
        return {"api_key": start.api_key, "api_key_file": start.api_key_file} | _of_news(start)
    raise _needs_its_own("massive_url", given["massive_url"], "api_key")


def _of_news(start: MdlSettings) -> dict[str, Any]:
    """The news have a key of their own, or (empty) that of the vendor."""
    return {"news_key": start.news_key, "news_key_file": start.news_key_file}


def _apart(start: MdlSettings) -> dict[str, Any]:
    """The news go on with the key of the start: the one that another server brings is not for them."""
    if start.news_key.get_secret_value() or start.news_key_file is not None or start.news_origin.startswith("ws"):
        return _of_news(start)
    none = SecretStr(" ")  # a key, so that none is looked for elsewhere, and no key
    own = start.api_key if start.api_key.get_secret_value().strip() else SecretStr("") if start.api_key_file else none
    return {"news_key": own, "news_key_file": start.api_key_file}


def _token(given: Mapping[str, Any], now: MdlSettings, start: MdlSettings) -> dict[str, Any]:
    there = _servers(given.get("engine_url", now.engine_url))
    if "engine_token" in given or there == _servers(now.engine_url):
        return {}
    if there <= _servers(start.engine_url) or not start.engine_token.get_secret_value():
        return {"engine_token": start.engine_token}
    raise _needs_its_own("engine_url", given["engine_url"], "engine_token")


def _vendor(url: str) -> frozenset[Address]:
    return _servers(url) if url else VENDOR


def _servers(url: str) -> frozenset[Address]:
    try:
        return frozenset({address_of(url)})
    except (ValueError, KeyError):
        return frozenset({Address(url, 0)})  # no URL: the settings refuse it, whatever key comes with it


def _needs_its_own(name: str, url: str, secret: str) -> OperatorError:
    what = f"{name} {hide_password(url)} is not named in the environment, so the stored secret does not go there"
    return OperatorError(f"{what}: send its own {secret} in the same request", "Send both")
