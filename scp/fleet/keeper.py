"""Puts a listener's configuration back: one that starts with another, or was changed past us, gets the wanted one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog

from scp.fleet import listeners
from scp.fleet.fleet import CALL_S, Fleet, usable
from scp.fleet.inventory import Component
from scp.fleet.listeners import Wanted
from scp.problems import Problem
from scp.security.second_factor import Box
from scp.store.database import Store, StoreUnavailable

LOOK_S = 1.0
AGAIN_S = 20.0  # after a refusal: nothing that we send changes it

log = structlog.get_logger()


class Keeper:
    """Looks once a second, on the fleet's loop, until the process ends."""

    def __init__(self, fleet: Fleet, store: Store, box: Box) -> None:
        self._fleet = fleet
        self._store = store
        self._box = box
        self._not_before_s: dict[str, float] = {}  # component → when a refused one is tried again

    async def run(self) -> None:
        """Look on and on; what is away comes back."""
        while True:
            try:
                await self._look()
            except (Problem, StoreUnavailable, TimeoutError) as error:
                log.debug("configurations_not_looked_at", why=str(error))
            except Exception:
                log.exception("keeper_failed")
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        async with asyncio.timeout(CALL_S):
            found = [one for one in await self._fleet.look("mdl-") if one.kind == "mdl" and usable(one)]
        if not found:
            return
        wanted = await asyncio.to_thread(self._wanted, sorted({one.name for one in found}))
        for one in found:
            if one.name in wanted and out_of_step(one, wanted[one.name][0]):
                await self._put_back(one, *wanted[one.name])
            else:
                self._fleet.faults.pop(one.id, None)

    def _wanted(self, names: list[str]) -> dict[str, tuple[Wanted, dict[str, str]]]:
        with self._store.transaction() as db:
            newest = {name: listeners.newest(db, name) for name in names}
            return {name: (one, listeners.secrets_of(db, self._box, name, one.fields)) for name, one in newest.items()}

    async def _put_back(self, one: Component, wanted: Wanted, secrets: dict[str, str]) -> None:
        if time.monotonic() < self._not_before_s.get(one.id, 0.0):
            return
        try:
            async with asyncio.timeout(CALL_S):
                await self._fleet.call(one, "POST", "/feed", {**wanted.fields, **secrets}, in_force(wanted))
        except (Problem, TimeoutError) as error:
            self._not_before_s[one.id] = time.monotonic() + AGAIN_S
            self._fleet.faults[one.id] = str(error) or f"no answer within {CALL_S:g} s"
            log.error("configuration_not_put_back", component=one.id, version=wanted.version, why=self._fleet.faults[one.id])
            return
        self._not_before_s.pop(one.id, None)
        log.warning("configuration_put_back", component=one.id, version=wanted.version, was=one.more.get("configuration"))


def out_of_step(one: Component, wanted: Wanted) -> bool:
    """Return whether a listener runs with something else than what is wanted."""
    return wanted.version > 0 and one.more.get("configuration") != label(wanted)


def label(wanted: Wanted) -> str:
    """Return how the listener calls this version in its heartbeat; empty = its own environment."""
    return f"{wanted.listener}/{wanted.version}" if wanted.managed else ""


def in_force(wanted: Wanted) -> dict[str, Any]:
    """Return the parameters by which a listener takes exactly this version."""
    return {"replace": "true", "version": label(wanted)}
