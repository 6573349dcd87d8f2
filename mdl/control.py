"""Lets operators see and change feeds and recordings over HTTP; what is not valid is refused with a 400 that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from litestar import get, post
from litestar.exceptions import ClientException
from litestar.params import JSONBody, QueryParameter
from litestar.types import ControllerRouterHandler
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict

from mdl.credentials import with_credentials
from mdl.feeds.feed import Feed
from mdl.feeds.replay import ReplayFeed
from mdl.settings import MdlSettings
from mdl.source import Source
from service.admin import require_admin
from service.errors import OperatorError
from service.settings import hide_password, load

Replace = Annotated[bool, QueryParameter(name="replace", description="change the settings of the start, not those in force")]
DryRun = Annotated[bool, QueryParameter(name="dry_run", description="only say whether it could be")]
Version = Annotated[str, QueryParameter(name="version", max_length=64, description="what the heartbeat calls it from now on")]


class Controlled(Protocol):
    """What the routes need of a listener."""

    settings: MdlSettings
    at_start: MdlSettings
    configuration: str

    @property
    def sources(self) -> Mapping[str, Source]: ...

    def check(self, settings: MdlSettings) -> None: ...

    async def change(self, settings: MdlSettings) -> None: ...

    async def start_feeds(self) -> None: ...

    async def stop_feeds(self) -> None: ...

    def start_recording(self) -> None: ...

    def stop_recording(self) -> None: ...


class Change(Struct, forbid_unknown_fields=True):
    """What may be changed while running; what is not given stays as it is."""

    feed: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
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


def routes(listener: Controlled) -> list[ControllerRouterHandler]:
    """Return the admin port's handlers of one listener."""

    @get("/feed", sync_to_thread=False)
    def feed() -> dict[str, Any]:
        return describe(listener)

    @post("/feed", guards=[require_admin], status_code=200)
    async def change_feed(
        data: JSONBody[Change], replace: Replace = False, dry_run: DryRun = False, version: Version = ""
    ) -> dict[str, Any]:
        try:
            wanted = changed(listener.at_start if replace else listener.settings, data, listener.at_start)
            if dry_run:
                listener.check(wanted)
                return {"feed": wanted.feed, "market": wanted.market, "sources": list(wanted.sources)}
            await listener.change(wanted)
        except OperatorError as error:
            raise ClientException(error.what) from None
        listener.configuration = version
        return describe(listener)

    @post("/feed/start", guards=[require_admin], status_code=200)
    async def start_feed() -> dict[str, Any]:
        await listener.start_feeds()
        return describe(listener)

    @post("/feed/stop", guards=[require_admin], status_code=200)
    async def stop_feed() -> dict[str, Any]:
        await listener.stop_feeds()
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
        await asyncio.to_thread(listener.stop_recording)
        return describe(listener)

    return [feed, change_feed, start_feed, stop_feed, start_recording, stop_recording]


def changed(settings: MdlSettings, change: Change, at_start: MdlSettings) -> MdlSettings:
    """Return the settings with the change in them, checked as those `at_start` were.  Raises: OperatorError."""
    given = {name: value for name, value in asdict(change).items() if value is not UNSET}
    if isinstance(given.get("subscriptions"), list):
        given["subscriptions"] = ",".join(given["subscriptions"])
    if isinstance(given.get("speed"), float | int):
        given["speed"] = f"{given['speed']:g}"
    if "market" in given and "subscriptions" not in given and given["market"] != settings.market:
        given["subscriptions"] = ""  # those of the old market mean nothing in the new one
    if "source" not in given and given.get("feed", settings.feed) != settings.feed:
        given["source"] = ""  # names of other feeds
    return load(type(settings), **(settings.model_dump() | with_credentials(given, settings, at_start)))


def describe(listener: Controlled) -> dict[str, Any]:
    """Return all an operator wants to see: what is asked for, and each source by its name; never a key."""
    sources = {name: describe_source(source) for name, source in listener.sources.items()}
    said = {"feed": listener.settings.feed, "market": listener.settings.market, "configuration": listener.configuration}
    return {**said, "sources": sources}


def describe_source(source: Source) -> dict[str, Any]:
    """Return the status event of a source and what stands behind it."""
    settings, session, recorder, publisher = source.session.settings, source.session, source.recorder, source.publisher
    lease = session.lease
    held = None if lease is None else {"name": lease.name, "held": lease.held, "epoch": lease.epoch, "reason": lease.reason}
    return source.facts() | {
        "settings": _settings_of(settings, session.feed),
        "waiting_for": source.intake.waiting_for,
        "vendor_status": source.intake.vendor_status,
        "epoch": publisher.epoch if publisher else None,
        "lease": held,
        "record": {
            "recording": recorder.recording, "folder": str(recorder.folder), "frames": recorder.recorded_frames,
            "dropped_frames": recorder.dropped_frames, "bytes": recorder.written_bytes, "reason": recorder.reason,
        },
    }  # fmt: skip


def _settings_of(settings: MdlSettings, feed: Feed | None) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {
        "massive": {"url": settings.massive_url or "vendor", "delayed": settings.delayed, "subscriptions": settings.topics},
        "replay": {
            "tape": settings.tape, "speed": settings.speed, "loop": settings.loop, "played_pct": _played_pct(feed),
        },
        "simulator": {
            "symbols": settings.symbols, "rate": settings.rate, "seed": settings.seed, "quotes": settings.quotes,
            "session": settings.session,
        },
        "news": {"url": hide_password(settings.news_origin) or "vendor", "every_s": settings.news_every_s},
        "engine": {"url": settings.engine_url, "store": settings.engine_store, "depth": settings.engine_depth},
    }  # fmt: skip
    return kinds[settings.feed]


def _played_pct(feed: Feed | None) -> float | None:
    if isinstance(feed, ReplayFeed) and feed.size_bytes:
        return round(100 * feed.played_bytes / feed.size_bytes, 1)
    return None
