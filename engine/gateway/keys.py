"""HTTP routes by which operators make, list and withdraw keys."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.openapi.spec import Example
from litestar.params import Body, QueryParameter
from litestar.types import ControllerRouterHandler

from engine.access.command import facts
from engine.access.key_watch import KeyWatch, used
from engine.access.keys import STORES_MAX, Key, KeyInvalid, Role, ranges
from engine.core.units import iso
from engine.gateway.problems import Refused, StrictBody, problems
from service.clock import Clock
from service.errors import OperatorError

EXAMPLE = {"role": "trader", "name": "desk-1", "accounts": "7,100-199"}


class KeyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to make. `accounts` like `7,100-199` or `all` are a trader's; `stores` a market-data key's, none = all."""

    role: Role
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""
    accounts: Annotated[str, msgspec.Meta(max_length=4_000)] = ""
    stores: Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=STORES_MAX)] = []
    expires: Annotated[str, msgspec.Meta(max_length=40)] = ""


class KeyView(msgspec.Struct, kw_only=True, rename="camel"):
    """A key without its secret. Times are ISO 8601, empty = never; `last_used` may be 10 s old after a restart."""

    id: str
    role: str
    name: str
    accounts: str
    stores: list[str]
    created: str
    expires: str
    withdrawn: str
    last_used: str


class NewKeyView(KeyView, kw_only=True, rename="camel"):
    """A new key with what its bearer sends; it is told this once."""

    key: str


KeyData = Annotated[KeyBody, Body(examples=[Example(value=EXAMPLE)])]
IdQuery = Annotated[str, QueryParameter(name="id", min_length=8, max_length=8, description="the key's id")]


class KeyDTO(StrictBody[KeyBody]):
    """The body of a new key."""


class KeyDesk:
    """Makes and withdraws keys; what it does counts at once."""

    def __init__(self, keys: KeyWatch, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    def views(self) -> list[KeyView]:
        """Return all keys, withdrawn ones too: the journal names them."""
        noted = used(self._keys.file.path)
        return [KeyView(**self._facts(key, noted)) for key in self._keys.register.ring.keys.values()]  # type: ignore[arg-type]

    async def create(self, body: KeyBody) -> NewKeyView:
        """Raises: Refused."""
        file, now_ns = self._keys.file, self._clock.wall_ns()
        try:
            terms = ranges(body.accounts), tuple(body.stores), body.expires
            key, text = await asyncio.to_thread(file.create, now_ns, body.role, body.name, *terms)
        except KeyInvalid as error:
            raise Refused(422, "InvalidKey", str(error)) from None
        except OperatorError as error:
            raise Refused(503, "KeysUnavailable", str(error)) from None
        self._keys.look()
        return NewKeyView(**self._facts(key, {}), key=text)  # type: ignore[arg-type]

    async def withdraw(self, key_id: str) -> KeyView:
        """Raises: Refused."""
        try:
            key = await asyncio.to_thread(self._keys.file.withdraw, key_id, self._clock.wall_ns())
        except KeyError:
            raise Refused(404, "UnknownKey", "There is no such key; GET /Key lists them.") from None
        except OperatorError as error:
            raise Refused(503, "KeysUnavailable", str(error)) from None
        self._keys.look()
        return KeyView(**self._facts(key, used(self._keys.file.path)))  # type: ignore[arg-type]

    def _facts(self, key: Key, noted: dict[str, str]) -> dict[str, object]:
        at_ns = self._keys.register.used_ns.get(key.id, 0)
        return {**facts(key), "last_used": iso(at_ns) if at_ns else noted.get(key.id, "")}


def routes(desk: KeyDesk) -> list[ControllerRouterHandler]:
    """Return the handlers of keys."""

    @get("/Key", responses=problems(), tags=["keys"], summary="The keys, without secrets")
    async def keys() -> list[KeyView]:
        return desk.views()

    @post(
        "/Key", dto=KeyDTO, return_dto=None, responses=problems(413, 422), tags=["keys"],
        summary="Make a key; the answer is the only place where it is told",
    )  # fmt: skip
    async def create(data: KeyData) -> NewKeyView:
        return await desk.create(data)

    @delete("/Key", status_code=200, responses=problems(404), tags=["keys"], summary="Withdraw a key; its WebSockets are closed")
    async def withdraw(id: IdQuery) -> KeyView:  # the query's name
        return await desk.withdraw(id)

    return [keys, create, withdraw]
