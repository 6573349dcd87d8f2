"""Reads the listener's and the vendor server's settings from the environment; every field has its unit and default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from mdq.batch import SOURCE
from service.address import exposed, hosts_of
from service.settings import ComponentSettings, check_url, hide_password

FEEDS = ("massive", "replay", "simulator", "engine", "news")
OWN_NAMES = {"replay": "replay", "simulator": "simulator", "engine": "exchange", "news": "news"}  # the vendor's is the market
SIMULATED = "simulated"  # MDL_NEWS_URL: the simulated market writes its own news
Market = Literal[
    "stocks", "options", "crypto", "forex", "indices", "futures",
    "futures/cme", "futures/cbot", "futures/nymex", "futures/comex",
]  # fmt: skip

SUBSCRIPTIONS = {
    "stocks": "T.*,Q.*,A.*,AM.*,LULD.*",
    "options": "T.*,Q.*,A.*,AM.*",
    "crypto": "XT.*,XQ.*,XA.*,XAS.*",
    "forex": "C.*,CA.*,CAS.*",
    "indices": "V.*,A.*,AM.*",
    "futures": "T.*,Q.*,A.*,AM.*",
}


def check_feed(value: str) -> str:
    """Return `value`, kinds of feeds joined by +, each at most once; raise ValueError naming the kinds."""
    kinds = value.split("+")
    if not set(kinds) <= set(FEEDS) or len(set(kinds)) < len(kinds):
        raise ValueError(f"must be {', '.join(FEEDS[:-1])} or {FEEDS[-1]}, or several of them joined by +")
    return value


class MdlSettings(ComponentSettings):
    """The listener. What `POST /feed` may change at runtime is `RUNTIME`."""

    feed: str = Field(
        "simulator",
        validation_alias="MDL_FEED",
        description="massive, replay, simulator, engine or news; several with +, at once",
    )
    name: str = Field(
        "mdl",
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        validation_alias="MDL_NAME",
        description="of this listener in the control plane, which keeps a configuration for each name; standbys share it",
    )
    source: str = Field(
        "",
        validation_alias="MDL_SOURCE",
        description="name of the connection, one a feed, joined by +; empty = market, exchange, simulator or replay",
    )
    market: Market = Field("stocks", validation_alias="MDL_MARKET", description="asset class of the vendor's feed")
    subscriptions: str = Field("", validation_alias="MDL_SUBSCRIPTIONS", description="T.*,Q.AAPL …; empty = all of the market")
    delayed: bool = Field(False, validation_alias="MDL_DELAYED", description="the vendor's 15 minutes delayed feed")
    api_key: SecretStr = Field(
        SecretStr(""), validation_alias="MDL_API_KEY", description="the vendor's key; empty = see the file"
    )
    api_key_file: Path | None = Field(None, validation_alias="MDL_API_KEY_FILE", description="read again when it changes")
    massive_url: str = Field(
        "", validation_alias="MDL_MASSIVE_URL", description="ws:// or wss:// of another server; empty = vendor"
    )
    massive_open_timeout_s: float = Field(10, gt=0, validation_alias="MDL_OPEN_TIMEOUT_S", description="connected and let in, s")

    silence_s: float = Field(
        30, ge=0, le=3600, validation_alias="MDL_SILENCE_S",
        description="without data from the vendor for so long while its market trades we are unready, s; 0 = never",
    )  # fmt: skip

    tape: str = Field("", validation_alias="MDL_TAPE", description="recorded file, folder or pattern for the replay")
    speed: str = Field(
        "1", validation_alias="MDL_SPEED", description="1 = as recorded, 10 = ten times, max = lossless, no pauses"
    )
    loop: bool = Field(False, validation_alias="MDL_LOOP", description="begin again at the tape's end")

    symbols: int = Field(500, ge=1, le=100_000, validation_alias="MDL_SYMBOLS", description="size of the simulated universe")
    rate: float = Field(2_000, ge=0, le=2_000_000, validation_alias="MDL_RATE", description="simulated events/s; 0 = silence")
    seed: int = Field(7, validation_alias="MDL_SEED", description="same seed, same universe and events")
    quotes: float = Field(0.7, ge=0, le=1, validation_alias="MDL_QUOTES", description="share of quotes among the events")
    session: Literal["regular", "clock"] = Field(
        "regular", validation_alias="MDL_SESSION", description="regular = always open; clock = New York's hours, quiet at night"
    )

    engine_url: str = Field(
        "http://127.0.0.1:8181", validation_alias="MDL_ENGINE_URL", description="gateway of the built-in exchange"
    )
    private_hosts: str = Field(
        "", validation_alias="MDL_PRIVATE_HOSTS",
        description="hosts on a network of containers of our own, comma-separated: secrets may go there unencrypted",
    )  # fmt: skip
    engine_store: str = Field(
        "mdl", min_length=1, max_length=64, validation_alias="MDL_ENGINE_STORE", description="our message store, ours alone"
    )
    engine_token: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("MDL_ENGINE_TOKEN", "ENGINE_API_TOKEN"),
        description="key of the gateway, market-data is enough; empty = none",
    )
    engine_depth: int = Field(20, ge=1, le=1_000, validation_alias="MDL_ENGINE_DEPTH", description="published levels a side")

    news_url: str = Field(
        "", validation_alias="MDL_NEWS_URL",
        description="https:// = REST, wss:// = articles, simulated; empty = the vendor, or simulated beside a simulator",
    )  # fmt: skip
    news_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="MDL_NEWS_KEY",
        description="for the news; empty = the vendor's, and none for a wss:// server",
    )
    news_key_file: Path | None = Field(None, validation_alias="MDL_NEWS_KEY_FILE", description="read again when it changes")
    news_every_s: float = Field(
        15, ge=1, le=3600, validation_alias="MDL_NEWS_EVERY_S", description="pause between two questions, s"
    )
    news_back_h: float = Field(
        24, ge=0, le=168, validation_alias="MDL_NEWS_BACK_H", description="news published before the start, hours; 0 = none"
    )
    news_names: Path | None = Field(
        None, validation_alias="MDL_NEWS_NAMES", description="CSV symbol,name: whom an article without tickers is about"
    )
    news_rate: float = Field(
        6, ge=0, le=600, validation_alias="MDL_NEWS_RATE", description="simulated articles a minute; 0 = none"
    )
    simulated_rest: bool = Field(
        False, validation_alias="MDL_SIMULATED_REST",
        description="answer the vendor's REST questions of a simulated market at /simulated of the admin port",
    )  # fmt: skip

    buffer_bytes: int = Field(
        64 * 1024 * 1024, ge=64 * 1024, validation_alias="MDL_BUFFER_BYTES", description="frames held before routing, bytes"
    )
    buffer_age_ms: int = Field(4_000, ge=100, validation_alias="MDL_BUFFER_AGE_MS", description="older frames are dropped, ms")
    lag_ms_max: float = Field(1_000, gt=0, validation_alias="MDL_LAG_MS_MAX", description="buffer age that makes us unready, ms")

    lease: Literal["auto", "on", "off"] = Field(
        "auto",
        validation_alias="MDL_LEASE",
        description="one listener a source; auto = with a Redis that listeners share, on = refuse to start without one",
    )
    lease_ttl_ms: int = Field(
        3_000, ge=300, validation_alias="MDL_LEASE_TTL_MS", description="a dead holder's lease lasts so long"
    )

    record: bool = Field(False, validation_alias="MDL_RECORD", description="record from the start")
    record_dir: Path = Field(Path(".run/recordings"), validation_alias="MDL_RECORD_DIR", description="where recordings go")
    record_file_bytes: int = Field(
        256 * 1024 * 1024, ge=4096, validation_alias="MDL_RECORD_FILE_BYTES", description="compressed size of one file"
    )
    record_file_s: float = Field(3600, gt=0, validation_alias="MDL_RECORD_FILE_S", description="time span of one file, s")
    record_bytes_max: int = Field(
        20 * 1024**3, ge=4096, validation_alias="MDL_RECORD_BYTES_MAX", description="all recordings; then recording stops"
    )
    record_queue_bytes: int = Field(
        32 * 1024 * 1024, ge=65_536, validation_alias="MDL_RECORD_QUEUE_BYTES", description="frames waiting for the disk"
    )

    admin_port: int = Field(9101, ge=0, le=65535, validation_alias="MDL_ADMIN_PORT", description="0 = a free one")

    @field_validator("feed")
    @classmethod
    def _feed(cls, value: str) -> str:
        return check_feed(value)

    @field_validator("source")
    @classmethod
    def _source(cls, value: str) -> str:
        for name in value.split("+") if value else ():
            if not SOURCE.fullmatch(name):
                raise ValueError(f"{name[:40]!r} is no name of a source: lower case letters, digits and dashes, at most 32")
        return value

    @field_validator("engine_url")
    @classmethod
    def _engine_url(cls, value: str) -> str:
        return check_url(value, ("http", "https"), "http://127.0.0.1:8181")

    @field_validator("speed")
    @classmethod
    def _speed(cls, value: str) -> str:
        try:
            usable = value == "max" or 0 < float(value) <= 1e6
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("must be max or a number above 0, for example 1, 0.5 or 10")
        return value

    @field_validator("massive_url")
    @classmethod
    def _massive_url(cls, value: str) -> str:
        return check_url(value, ("ws", "wss"), "ws://127.0.0.1:8700") if value else value

    @field_validator("news_url")
    @classmethod
    def _news_url(cls, value: str) -> str:
        if value in ("", SIMULATED):
            return value
        return check_url(value, ("https", "http", "wss", "ws"), "wss://news.example.com/articles, or simulated")

    @field_validator("subscriptions")
    @classmethod
    def _subscriptions(cls, value: str) -> str:
        for item in filter(None, (item.strip() for item in value.split(","))):
            kind, dot, symbol = item.partition(".")
            if item != "*" and not (kind.isalnum() and dot and symbol and symbol.isprintable() and " " not in symbol):
                raise ValueError(f"{item[:40]!r} is not a subscription; write them like T.*,Q.AAPL")
        return value

    @model_validator(mode="after")
    def _replay_needs_a_tape(self) -> MdlSettings:
        if "replay" in self.feeds and not self.tape:
            raise ValueError("the replay needs a tape: set MDL_TAPE to a recorded .ndjson, .ndjson.gz or .ndjson.zst file")
        if self.feeds != ("replay",) and "replay" in self.feeds and self.factor is None:
            raise ValueError("a replay at MDL_SPEED=max waits for the processors: beside other feeds MDL_SPEED is a number")
        return self

    @model_validator(mode="after")
    def _no_secret_in_clear(self) -> MdlSettings:
        key = self.api_key.get_secret_value() or self.api_key_file
        news_key = self.news_key.get_secret_value() or self.news_key_file or (key if not self.news_url.startswith("ws") else "")
        private = hosts_of(self.private_hosts)
        for secret, name, url, what in (
            (key, "MDL_MASSIVE_URL", self.massive_url, "the vendor's key in clear: write wss://"),
            (news_key, "MDL_NEWS_URL", self.news_url, "the news server's key in clear: write https:// or wss://"),
            (self.engine_token.get_secret_value(), "MDL_ENGINE_URL", self.engine_url, "the exchange's token in clear: write https://"),
        ):  # fmt: skip
            if secret and ":" in url and exposed(url, private):
                raise ValueError(
                    f"{name}={hide_password(url)} would send {what}, use a loopback address, or name the host in "
                    "MDL_PRIVATE_HOSTS when nobody else is on that network"
                )
        return self

    @model_validator(mode="after")
    def _a_source_a_feed(self) -> MdlSettings:
        names = self.sources
        if len(names) != len(self.feeds):
            raise ValueError(f"MDL_SOURCE names {len(names)} sources, MDL_FEED {len(self.feeds)}: one each, joined by +")
        if len(set(names)) < len(names):
            raise ValueError(f"MDL_SOURCE={'+'.join(names)} gives one name to two feeds: every source needs its own")
        return self

    @property
    def feeds(self) -> tuple[str, ...]:
        """The feeds that run at once."""
        return tuple(self.feed.split("+"))

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the feeds' sources, in the same order."""
        if self.source:
            return tuple(self.source.split("+"))
        return tuple(self.market.replace("/", "-") if feed == "massive" else OWN_NAMES[feed] for feed in self.feeds)

    def by_source(self) -> dict[str, MdlSettings]:
        """Return source → the settings of its one feed."""
        return {
            name: self.model_copy(update={"feed": feed, "source": name, "news_url": self.news_origin})
            for name, feed in zip(self.sources, self.feeds, strict=True)
        }

    @property
    def news_origin(self) -> str:
        """Where news come from: a URL, `simulated`, or empty for the vendor's REST service."""
        return self.news_url or (SIMULATED if "simulator" in self.feeds else "")

    @property
    def about(self) -> str:
        """What the (one) feed is, in words that two listeners of the same source share."""
        if self.feed == "massive":
            return f"massive {self.market}"
        if self.feed == "news":
            return f"news {hide_password(self.news_origin) or 'massive'}"
        return f"engine {self.engine_store}" if self.feed == "engine" else self.feed

    @property
    def topics(self) -> tuple[str, ...]:
        """The subscriptions asked for, or all of the market."""
        text = self.subscriptions or SUBSCRIPTIONS[self.market.split("/")[0]]
        return tuple(item.strip() for item in text.split(",") if item.strip())

    @property
    def one_market(self) -> str:
        """Return the market that all events of the one feed are of; empty = there may be any on a tape or an exchange."""
        return {"massive": self.market, "simulator": "stocks"}.get(self.feed, "")

    @property
    def factor(self) -> float | None:
        """The replay's speed; None is `max`."""
        return None if self.speed == "max" else float(self.speed)


RUNTIME = (
    "feed", "source", "market", "subscriptions", "delayed", "api_key", "massive_url",
    "tape", "speed", "loop", "symbols", "rate", "seed", "quotes", "session", "engine_url", "engine_token",
)  # fmt: skip


class VendorSettings(MdlSettings):
    """The Massive-compatible server. Its feed (simulator or replay) is described by the same MDL_* variables."""

    host: str = Field("127.0.0.1", validation_alias="MDL_VENDOR_HOST", description="address it listens on")
    port: int = Field(8700, ge=0, le=65535, validation_alias="MDL_VENDOR_PORT", description="0 = a free one")
    keys: str = Field(
        "demo-key", min_length=1, validation_alias="MDL_VENDOR_KEYS",
        description="accepted API keys, with commas; key:T+AM is one whose plan has only these kinds of events",
    )  # fmt: skip
    vendor_admin_port: int = Field(9106, ge=0, le=65535, validation_alias="MDL_VENDOR_ADMIN_PORT", description="faults, health")
    client_bytes: int = Field(
        16 * 1024 * 1024, ge=65_536, validation_alias="MDL_VENDOR_CLIENT_BYTES", description="unsent bytes that cut a slow reader"
    )
    client_s: float = Field(5, gt=0, validation_alias="MDL_VENDOR_CLIENT_S", description="age of unsent data that cuts it, s")
    auth_s: float = Field(10, gt=0, validation_alias="MDL_VENDOR_AUTH_S", description="time a client has to authenticate, s")

    @property
    def plans(self) -> dict[str, frozenset[str] | None]:
        """The accepted keys and the kinds of events that each may subscribe to; None = all."""
        entries = (entry.strip().partition(":") for entry in self.keys.split(",") if entry.strip())
        return {key: frozenset(kinds.split("+")) if kinds else None for key, _, kinds in entries}
