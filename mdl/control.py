"""Lets operators change the feed and the recording; what is not valid is refused with a 400 that says why."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from litestar import get, post
from litestar.exceptions import ClientException
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict

from mdl.credentials import with_credentials
from mdl.feeds.group import FeedGroup
from mdl.feeds.replay import ReplayFeed
from mdl.settings import MdlSettings
from service.admin import require_admin
from service.errors import OperatorError
from service.settings import load

if TYPE_CHECKING:
    from mdl.listener import Listener


class Change(Struct, forbid_unknown_fields=True):
    """What may be changed while running; what is not given stays as it is."""

    feed: str | UnsetType = UNSET
    market: str | UnsetType = UNSET
    subscriptions: str | list[str] | UnsetType = UNSET
    delayed: bool | UnsetType = UNSET
    api_key: str | UnsetType = UNSET
    massive_url: str | UnsetType = UNSET
    tape: str | UnsetType = UNSET
    speed: str | float | UnsetType = UNSET
    loop: bool | UnsetType = UNSET
    symbols: int | UnsetType = UNSET
    rate: float | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    quotes: float | UnsetType = UNSET
    session: str | UnsetType = UNSET
    engine_url: str | UnsetType = UNSET
    engine_token: str | UnsetType = UNSET


def routes(listener: Listener) -> list[ControllerRouterHandler]:
    """Return the admin port's handlers of one listener."""

    @get("/feed", sync_to_thread=False)
    def feed() -> dict[str, Any]:
        return describe(listener)

    @post("/feed", guards=[require_admin], status_code=200)
    async def change_feed(data: JSONBody[Change]) -> dict[str, Any]:
        try:
            await listener.session.change(changed(listener.session.settings, data, listener.settings))
        except OperatorError as error:
            raise ClientException(error.what) from None
        return describe(listener)

    @post("/feed/start", guards=[require_admin], status_code=200)
    async def start_feed() -> dict[str, Any]:
        await listener.session.start()
        return describe(listener)

    @post("/feed/stop", guards=[require_admin], status_code=200)
    async def stop_feed() -> dict[str, Any]:
        await listener.session.stop()
        return describe(listener)

    @post("/record/start", guards=[require_admin], status_code=200)
    async def start_recording() -> dict[str, Any]:
        try:
            listener.start_recording()
        except OperatorError as error:
            raise ClientException(error.what) from None
        return describe(listener)

    @post("/record/stop", guards=[require_admin], status_code=200)
    async def stop_recording() -> dict[str, Any]:
        await asyncio.to_thread(listener.recorder.stop)
        return describe(listener)

    return [feed, change_feed, start_feed, stop_feed, start_recording, stop_recording]


def changed(settings: MdlSettings, change: Change, start: MdlSettings) -> MdlSettings:
    """Return the settings with the change in them, checked as those of the `start`.  Raises: OperatorError."""
    given = {name: value for name, value in asdict(change).items() if value is not UNSET}
    if isinstance(given.get("subscriptions"), list):
        given["subscriptions"] = ",".join(given["subscriptions"])
    if isinstance(given.get("speed"), float | int):
        given["speed"] = f"{given['speed']:g}"
    if "market" in given and "subscriptions" not in given and given["market"] != settings.market:
        given["subscriptions"] = ""  # those of the old market mean nothing in the new one
    return load(type(settings), **(settings.model_dump() | with_credentials(given, settings, start)))


def describe(listener: Listener) -> dict[str, Any]:
    """Return all an operator wants to see of the feed; never the key."""
    settings, session, recorder = listener.session.settings, listener.session, listener.recorder
    sources = {
        "massive": {"url": settings.massive_url or "vendor", "delayed": settings.delayed, "subscriptions": settings.topics},
        "replay": {
            "tape": settings.tape, "speed": settings.speed, "loop": settings.loop, "played_pct": _played_pct(session.feed),
        },
        "simulator": {
            "symbols": settings.symbols, "rate": settings.rate, "seed": settings.seed, "quotes": settings.quotes,
            "session": settings.session,
        },
        "engine": {"url": settings.engine_url, "store": settings.engine_store, "depth": settings.engine_depth},
    }  # fmt: skip
    parts = {kind: sources[kind] for kind in settings.feeds}
    lease = session.lease
    held = None if lease is None else {"name": lease.name, "held": lease.held, "epoch": lease.epoch, "reason": lease.reason}
    return listener.facts() | {
        "source": parts if len(parts) > 1 else parts[settings.feed],
        "waiting_for": listener.intake.waiting_for,
        "vendor_status": listener.intake.vendor_status,
        "epoch": listener.publisher.epoch,
        "lease": held,
        "record": {
            "recording": recorder.recording, "folder": str(recorder.folder), "frames": recorder.recorded_frames,
            "dropped_frames": recorder.dropped_frames, "bytes": recorder.written_bytes, "reason": recorder.reason,
        },
    }  # fmt: skip


def _played_pct(feed: FeedGroup | None) -> float | None:
    for part in feed.parts if feed is not None else ():
        if isinstance(part, ReplayFeed) and part.size_bytes:
            return round(100 * part.played_bytes / part.size_bytes, 1)
    return None
