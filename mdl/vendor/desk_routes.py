"""Answers the vendor's REST questions on the listener's admin port while it plays a simulated market: `/simulated/…`.

So a run on one machine, and a stack of containers, has company data and older candles of the very market that it shows, with no
further process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from litestar import Request, Response, get
from litestar.exceptions import NotFoundException, ServiceUnavailableException
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from mdl.feeds.feed import Feed
from mdl.feeds.simulator import SimulatorFeed
from mdl.settings import MdlSettings
from mdl.simulation.market import Simulator
from mdl.source import Source
from mdl.vendor.reference import ReferenceDesk

PREFIX = "/simulated"
KEY = "simulated"  # there is nothing to guard: the market is made up


class Playing(Protocol):
    """What the routes need of a listener."""

    settings: MdlSettings

    @property
    def sources(self) -> Mapping[str, Source]: ...


def routes(listener: Playing) -> list[ControllerRouterHandler]:
    """Return the admin port's handler; with MDL_SIMULATED_REST off there is none."""
    if not listener.settings.simulated_rest:
        return []
    desks: list[ReferenceDesk] = []  # of the market that is played now

    @get(f"{PREFIX}/{{rest:path}}", sync_to_thread=True)  # an hour's bars of months are made up in 30 ms
    def simulated(request: Request[Any, Any, Any], rest: FromPath[str]) -> Response[bytes]:
        market = next((one for source in listener.sources.values() if (one := market_of(source.session.feed)) is not None), None)
        if market is None:
            # Not 404, which whoever asked would keep for hours as "unknown": this passes when the feed starts again.
            raise ServiceUnavailableException("No simulated market is played here now")
        if not desks or not desks[0].answers_for(market):
            desks[:] = [ReferenceDesk(market)]
        target = f"{rest}?{urlsplit(str(request.url)).query}"
        if not desks[0].knows(target):
            raise NotFoundException("The vendor's stand-in does not know this path")
        now_ms, base = time.time_ns() // 1_000_000, f"{str(request.base_url).rstrip('/')}{PREFIX}"
        status, body = desks[0].answer(target, f"Bearer {KEY}", {KEY: None}, now_ms, base)
        if isinstance(body, bytes):
            return Response(body, status_code=status, media_type="image/png")
        return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")

    return [simulated]


def market_of(feed: Feed | None) -> Simulator | None:
    """Return the market that a feed plays, None when it plays none."""
    return feed.simulated if isinstance(feed, SimulatorFeed) else None
