"""One's own identity at the OpenID Connect provider: /api/v1/me/identity. Linking it goes by way of the browser."""

from __future__ import annotations

import msgspec

from scp.api import federation
from scp.api.calls import Answer, Call, Route
from scp.api.me import ConfirmBody, person
from scp.problems import Problem
from scp.security.provider import ProviderFailed


class IdentityShown(msgspec.Struct):
    """The provider's name, null when there is none, and whether your account is opened by an identity there."""

    provider: str | None
    linked: bool


class Address(msgspec.Struct):
    """Where the browser goes now; it comes back by itself."""

    address: str


def read_identity(call: Call) -> Answer:
    """Say whether your account is linked to an identity at the provider."""
    name = call.control.provider_name if call.control.provider else None
    return Answer(IdentityShown(name, call.control.federated.linked(call.me.user_id)))


def link_identity(call: Call) -> Answer:
    """Begin to link your account: send the browser to the address, in this browser, within ten minutes."""
    user_id = person(call)
    call.control.account.confirm(user_id, call.body(ConfirmBody).password, call.asked)
    try:
        (_, address), cookie = federation.link(call.control, user_id, call.asked)
    except ProviderFailed as error:
        raise Problem(
            503, f"provider_{error.code}", f"The provider cannot be used now: {error}", [("Retry-After", "10")]
        ) from None
    return Answer(Address(address), headers=(cookie,))


def unlink_identity(call: Call) -> Answer:
    """Take the link away; the password opens the account as before."""
    user_id = person(call)
    call.control.account.confirm(user_id, call.body(ConfirmBody).password, call.asked)
    call.control.federated.unlink(user_id, call.asked)
    return Answer(status=204)


ROUTES = (
    Route("GET", "/api/v1/me/identity", "account", read_identity, gives=IdentityShown),
    Route("POST", "/api/v1/me/identity", "account", link_identity, ConfirmBody, Address, may_answer=(429,)),
    Route("DELETE", "/api/v1/me/identity", "account", unlink_identity, ConfirmBody, status=204, may_answer=(429,)),
)
