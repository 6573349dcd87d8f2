"""Opens the feed that the settings describe; the only place that knows all kinds."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from mdl.feeds.exchange import EngineFeed
from mdl.feeds.exchange_gateway import Gateway
from mdl.feeds.feed import Feed
from mdl.feeds.replay import ReplayFeed
from mdl.feeds.simulator import SimulatorFeed
from mdl.news.opening import open_news
from mdl.settings import MdlSettings
from mdl.simulation.market import Simulator
from mdl.simulation.past import Past
from service.errors import OperatorError


def open_feed(settings: MdlSettings, kind: str) -> Feed:
    """Return one feed, not yet started.  Raises: OperatorError when it cannot be (a tape that is not there)."""
    if kind == "replay":
        return ReplayFeed(settings.tape, settings.factor, settings.loop, settings.market)
    if kind == "simulator":
        simulator = Simulator(settings.symbols, settings.seed, settings.quotes, settings.session)
        if settings.simulated_rest:
            simulator.past = Past(simulator.listed)  # from the first trade on
        return SimulatorFeed(simulator, settings.rate)
    if kind == "engine":
        gateway = Gateway(settings.engine_url, settings.engine_token.get_secret_value())
        return EngineFeed(gateway, settings.engine_store, settings.engine_depth)
    if kind == "news":
        return open_news(settings, read_key(settings))
    from mdl.feeds.massive import MassiveFeed  # the vendor's client takes 0.3 s to load: only who needs it waits

    return MassiveFeed(
        read_key(settings), settings.market, settings.topics, settings.delayed, settings.massive_url,
        settings.massive_open_timeout_s, silence_s=settings.silence_s,
    )  # fmt: skip


def read_key(settings: MdlSettings) -> str:
    """Return the key of the one feed: MDL_API_KEY, else the content of MDL_API_KEY_FILE, else nothing.

    Of news MDL_NEWS_KEY and MDL_NEWS_KEY_FILE, else the vendor's, which goes to no WebSocket server.
    """
    if settings.feed == "news":
        if settings.news_key.get_secret_value() or settings.news_key_file is not None:
            return _key_of(settings.news_key, settings.news_key_file, "MDL_NEWS_KEY_FILE")
        if settings.news_origin.startswith("ws"):
            return ""
    return _key_of(settings.api_key, settings.api_key_file, "MDL_API_KEY_FILE")


def _key_of(given: SecretStr, file: Path | None, name: str) -> str:
    key = given.get_secret_value().strip()
    if key or file is None:
        return key
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{name} {file} cannot be read: {error}", "Make it readable") from None
