"""Brings a request of the API to a component, the exchange or the cache; what goes wrong is a problem that says what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from mdc import components, dead_letters, keys
from mdc.connect import CacheUnavailable, open_cache
from mdc.documents import decode_doc
from scp.fleet.errands import Errands
from scp.fleet.inventory import Component, Judged, inventory
from scp.fleet.remote import Remote, Reply, Unreachable
from scp.problems import PHRASES, Problem
from scp.settings import ScpSettings
from service.keyspace import space_of
from service.settings import admin_token

CACHE_S = 2.0
CALL_S = 3.0
SHARED_S = 0.25  # one look at all components answers everybody who asks within it: judging 500 beats takes 20 ms
PAGES_MAX = 64  # questions whose answers are shared
SLOW_S = 5.0  # a purge, a feed that stops: they wait for others themselves
RETRY = [("Retry-After", "5")]
T = TypeVar("T")


class Listing:
    """All components as they were at `at_s` (monotonic), and the pages of them that were encoded already."""

    def __init__(self, components: list[Component]) -> None:
        self.components = components
        self.at_s = time.monotonic()
        self.pages: dict[tuple[Any, ...], bytes] = {}

    def page(self, of: tuple[Any, ...], make: Callable[[], Any]) -> bytes:
        """Return the JSON of what `make` returns for the question `of`, made once for all who ask it."""
        body = self.pages.get(of)
        if body is None:
            body = msgspec.json.encode(make())
            if len(self.pages) < PAGES_MAX:
                self.pages[of] = body
        return body


class Fleet:
    """The components, the exchange's gateway and the cache, for the threads of requests."""

    def __init__(self, settings: ScpSettings) -> None:
        self._settings = settings
        self._token = ""
        self._networks = tuple(settings.ports)
        self._errands = Errands(max(1, settings.threads // 2))
        self._remote = Remote()
        self._cache: Any = None
        self._judged: dict[str, Judged] = {}
        self._looking: asyncio.Task[Listing] | None = None
        self._looked_s = float("-inf")
        self._listing: Listing | None = None
        self._said: dict[str, tuple[float, Any]] = {}
        self.faults: dict[str, str] = {}  # component → why its configuration could not be put back

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` go on, on the loop of all calls, to the end of the process."""
        self._errands.begin(work)

    # Who is there

    def listing(self) -> Listing:
        """Return all components as they were a quarter of a second ago at most.  Raises: Problem 503 while the cache is away."""
        last = self._listing
        if last is not None and time.monotonic() < last.at_s + SHARED_S:
            return last
        return self._errands.run(self._shared_look(), CACHE_S, "The cache")

    def components(self) -> list[Component]:
        """Return all components.  Raises: Problem 503 while the cache is away."""
        return self.listing().components

    def component(self, name: str) -> Component:
        """Return one.  Raises: Problem 404, 503."""
        alike = self._errands.run(self.look(name), CACHE_S, "The cache")
        found = next((one for one in alike if one.id == name), None)
        if found is None:
            raise Problem(404, "not_found", f"There is no component {name[:80]!r}; GET /api/v1/components lists them")
        return found

    def of_kind(self, kind: str) -> list[Component]:
        """Return the components of a kind that live and may be asked.  Raises: Problem 503."""
        alike = self._errands.run(self.look(f"{kind}-"), CACHE_S, "The cache")
        return [one for one in alike if one.kind == kind and usable(one)]

    async def _shared_look(self) -> Listing:
        now_s = time.monotonic()  # who comes later does not wait with those who ask a cache that hangs
        if self._looking is None or self._looking.done() or now_s >= self._looked_s + SHARED_S:
            self._looking, self._looked_s = asyncio.create_task(self._look_at_all()), now_s
            self._looking.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever waited may be gone
        return await asyncio.shield(self._looking)

    async def _look_at_all(self) -> Listing:
        now_ms, kept = await self._of_cache(components.read)
        self._listing = Listing(inventory(kept, now_ms, self._secret().encode(), self._networks, known=self._judged))
        return self._listing

    async def look(self, prefix: str = "") -> list[Component]:
        """Return the components whose ids begin with `prefix`; for the loop of all calls.  Raises: Problem 503."""
        now_ms, kept = await self._of_cache(lambda redis: components.read(redis, prefix))
        return inventory(kept, now_ms, self._secret().encode(), self._networks, prefix)

    # What is asked of them

    def ask(
        self,
        one: Component,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        seconds: float = CALL_S,
    ) -> Reply:
        """Ask a component at its admin port; its 4xx answers are problems.  Raises: Problem."""
        return self._errands.run(self.call(one, method, path, body, params), seconds, one.id)

    def ask_each(
        self, many: Iterable[Component], method: str, path: str, body: Any = None, params: Mapping[str, str] | None = None
    ) -> list[tuple[Component, Reply | Problem]]:
        """Ask several at once; each has its answer, or the problem that it is."""
        return self._errands.run(self._call_each(list(many), method, path, body, params), CALL_S + 1.0, "The components")

    async def call(
        self, one: Component, method: str, path: str, body: Any = None, params: Mapping[str, str] | None = None
    ) -> Reply:
        """The same on a loop.  Raises: Problem."""
        if not one.controllable:
            raise Problem(409, "not_controllable", f"{one.id} is not asked: {one.why_not}")
        try:
            reply = await self._remote.ask(method, one.admin + path, self._secret(), body, params)
        except Unreachable as error:
            words = f"{one.id} cannot be reached at {one.admin}: {error}"
            raise Problem(503, "component_unreachable", words, RETRY) from None
        if reply.status == 401:
            raise Problem(503, "token_refused", f"{one.id} refuses our admin token: give all the same ADMIN_TOKEN")
        if reply.status >= 500 and not path.startswith("/readyz"):
            raise Problem(503, "component_failed", f"{one.id}: {reply.words}", RETRY)
        if reply.status >= 400 and not path.startswith("/readyz"):
            raise Problem(404 if reply.status == 404 else 422, "component_refuses", f"{one.id}: {reply.words}")
        return reply

    async def _call_each(
        self, many: list[Component], method: str, path: str, body: Any, params: Mapping[str, str] | None
    ) -> list[tuple[Component, Reply | Problem]]:
        async def one_of(one: Component) -> Reply | Problem:
            try:
                async with asyncio.timeout(CALL_S):
                    return await self.call(one, method, path, body, params)
            except Problem as problem:
                return problem
            except TimeoutError:
                return Problem(503, "no_answer", f"{one.id} did not answer within {CALL_S:g} s", RETRY)

        return list(zip(many, await asyncio.gather(*map(one_of, many)), strict=True))

    # The exchange

    def gateway(self, method: str, path: str, params: Mapping[str, str] | None = None, key: str = "", body: Any = None) -> Reply:
        """Ask the exchange's gateway with our operator's key; its refusals are problems with its own code.  Raises: Problem."""
        return self._errands.run(self._gateway(method, path, params, key, body), SLOW_S, "The exchange")

    def gateway_each(self, *asked: tuple[str, Mapping[str, str], float]) -> list[Any]:
        """Return what the gateway says to several questions (path, parameters, how old in s the answer may be) at once.

        Raises: Problem, the first one's.
        """

        return self._errands.run(self.gateway_every(*asked), SLOW_S, "The exchange")

    async def gateway_every(self, *asked: tuple[str, Mapping[str, str], float]) -> list[Any]:
        """The same on the loop.  Raises: Problem."""
        return list(await asyncio.gather(*(self._remembered(*one) for one in asked)))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what some work on the loop says of the exchange.  Raises: Problem."""
        return self._errands.run(work, SLOW_S, "The exchange")

    @property
    def exchange(self) -> tuple[str, str]:
        """The gateway's address and our key of it."""
        return self._settings.engine_url, self._settings.engine_token.get_secret_value()

    async def _remembered(self, path: str, params: Mapping[str, str], seconds: float) -> Any:
        """Ask; what may have an age is the same for everybody, and asked once for all who want it meanwhile."""
        if not seconds:
            return (await self._gateway("GET", path, params, "")).document
        now_s = time.monotonic()
        at_s, said = self._said.get(path, (float("-inf"), None))
        if now_s >= at_s + seconds:
            said = (await self._gateway("GET", path, params, "")).document
            self._said[path] = now_s, said
        return said

    async def _gateway(self, method: str, path: str, params: Mapping[str, str] | None, key: str, body: Any = None) -> Reply:
        of, headers = self._settings, {"Idempotency-Key": key} if key else {}
        try:
            reply = await self._remote.ask(
                method, of.engine_url + path, of.engine_token.get_secret_value(), body, params, headers
            )
        except Unreachable as error:
            words = f"The exchange at {of.engine_url} cannot be reached: {error}. Start it, or set SCP_ENGINE_URL"
            raise Problem(503, "engine_unavailable", words, RETRY) from None
        if reply.status in (401, 403):
            words = "The exchange refuses our key. Set SCP_ENGINE_TOKEN to one of `python -m engine keys create --role operator`"
            raise Problem(503, "engine_refuses_us", words)
        if reply.status >= 400:
            said = reply.document
            code = str(said.get("code", "engine")) if isinstance(said, dict) else "engine"
            status = reply.status if reply.status < 500 and reply.status in PHRASES else 503
            again = [("Retry-After", reply.headers.get("retry-after", "1"))] if status in (429, 503) else []
            raise Problem(status, code[:64], f"The exchange: {reply.words}", again)
        return reply

    # The cache

    def pipeline(self) -> dict[str, Any]:
        """Return the newest `status:pipeline`, empty when there is none.  Raises: Problem 503."""

        async def read(redis: Any) -> bytes | None:
            try:
                found: bytes | None = await redis.get(space_of(redis).shared + keys.document("status:pipeline"))
            except OSError as error:
                raise CacheUnavailable(str(error)) from None
            return found

        body = self._errands.run(self._of_cache(read), CACHE_S, "The cache")
        found = msgspec.json.decode(decode_doc(body).data) if body else {}
        return found if isinstance(found, dict) else {}

    def bad_events(self, first: int, size: int) -> tuple[list[bytes], int]:
        """Return a page of the bad events, and how many there are.  Raises: Problem 503."""
        page = self._of_cache(lambda redis: dead_letters.page(redis, first, size))
        found: tuple[list[bytes], int] = self._errands.run(page, CACHE_S, "The cache")
        return found

    def clear_bad_events(self) -> int:
        """Forget them; return how many there were.  Raises: Problem 503."""
        cleared: int = self._errands.run(self._of_cache(dead_letters.clear), CACHE_S, "The cache")
        return cleared

    async def _of_cache(self, read: Any) -> Any:
        if self._cache is None:
            self._cache = open_cache(self._settings.mdc_url, "tapeline-scp-fleet", timeout_s=CACHE_S)
        try:
            return await read(self._cache)
        except CacheUnavailable as error:
            words = f"The cache does not answer: {error}. Start Redis, or correct MDC_URL"
            raise Problem(503, "cache_unavailable", words, RETRY) from None

    def _secret(self) -> str:
        self._token = self._token or admin_token(self._settings)
        return self._token


def usable(one: Component) -> bool:
    """Return whether a component lives and may be asked."""
    return one.controllable and one.state in ("ready", "unready")
