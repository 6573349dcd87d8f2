"""Reads the environment of `make run` into one frozen settings object, and refuses in one line what cannot work."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from mdl.settings import Market, check_feed
from service.errors import OperatorError
from service.settings import ComponentSettings, load


class LocalSettings(ComponentSettings):
    """What `make run` reads. A port of 0 takes a free one. `MDQ_URL` and `MDC_URL` unset mean the embedded servers."""

    feed: str | None = Field(
        None, validation_alias="FEED", description="several with +; unset = replay when TAPE is given, else simulator+engine+news"
    )
    market: Market = Field("stocks", validation_alias="MARKET", description="the vendor's market, for massive")
    api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("API_KEY", "MDL_API_KEY"), description="the vendor's key, for massive"
    )
    api_key_file: Path | None = Field(None, validation_alias="MDL_API_KEY_FILE", description="instead of API_KEY")
    news_url: str = Field(
        "",
        validation_alias=AliasChoices("NEWS_URL", "MDL_NEWS_URL"),
        description="of the news: https://, wss:// or simulated; empty = the vendor, or simulated beside a simulator",
    )
    rest_url: str = Field(
        "",
        validation_alias=AliasChoices("REST_URL", "MDP_REST_URL"),
        description="the vendor's REST service, for days before, usual volumes, floats, companies, older candles; empty = none, "
        "but for a simulator's own market",
    )
    rest_key: SecretStr | None = Field(None, validation_alias="MDP_REST_KEY", description="its key; unset = API_KEY")
    tape: str = Field("", validation_alias="TAPE", description="recorded file (.ndjson, .gz, .zst), folder or pattern")
    speed: str = Field("1", validation_alias="SPEED", description="replay: times the recorded speed, or max")
    loop: bool = Field(False, validation_alias="LOOP", description="replay: start again at the end")
    symbols: int = Field(500, ge=1, le=100_000, validation_alias="SYMBOLS", description="simulator: how many symbols")
    rate: float = Field(2000, gt=0, le=1_000_000, validation_alias="RATE", description="simulator: events a second")
    seed: int = Field(7, validation_alias="SEED", description="simulator: the same seed is the same market")
    bots_rate: float = Field(50, gt=0, le=5_000, validation_alias="BOTS_RATE", description="engine: the bots' commands a second")
    bots_seed: int = Field(7, validation_alias="BOTS_SEED", description="engine: which bots")
    lease: str = Field("", validation_alias="MDL_LEASE", description="unset = as the feeds need it on one machine")
    record_dir: Path | None = Field(None, validation_alias="MDL_RECORD_DIR", description="unset = RUN_DIR/recordings")

    mdp_workers: int = Field(1, ge=1, le=64, validation_alias="MDP_WORKERS", description="processors (RabbitMQ only)")
    wds_workers: int = Field(1, ge=1, le=64, validation_alias="WDS_WORKERS", description="processes on WDS_PORT")
    embedded_flush_ms: int = Field(
        100,
        ge=5,
        le=400,
        validation_alias="MDP_FLUSH_MS",
        description="the embedded cache is ten times slower than Redis: 50 there",
    )
    wds_subs_max: int = Field(
        10_000, ge=1, validation_alias="WDS_SUBS_MAX", description="channels a page may follow; the service's own default is 200"
    )
    scp_port: int = Field(8000, ge=0, le=65535, validation_alias="SCP_PORT", description="the page")
    wds_port: int = Field(8400, ge=0, le=65535, validation_alias="WDS_PORT", description="the WebSocket service")
    mdc_port: int = Field(0, ge=0, le=65535, validation_alias="MDC_EMBEDDED_PORT", description="the embedded cache")
    mdl_admin_port: int = Field(9101, ge=0, le=65535, validation_alias="MDL_ADMIN_PORT")
    mdp_admin_port: int = Field(
        9102, ge=0, le=65535, validation_alias="MDP_ADMIN_PORT", description="further workers: free ports"
    )
    wds_admin_port: int = Field(
        -1,
        ge=-1,
        le=65535,
        validation_alias="WDS_ADMIN_PORT",
        description="one a worker, counting up; unset = 9103, or 9110 for many",
    )
    scp_admin_port: int = Field(9105, ge=0, le=65535, validation_alias="SCP_ADMIN_PORT")
    engine_port: int = Field(8181, ge=0, le=65535, validation_alias="ENGINE_PORT", description="the exchange's gateway")
    engine_admin_port: int = Field(9104, ge=0, le=65535, validation_alias="ENGINE_ADMIN_PORT")
    bots_admin_port: int = Field(9108, ge=0, le=65535, validation_alias="BOTS_ADMIN_PORT")

    @field_validator("feed", "market", mode="before")
    @classmethod
    def _word(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("feed")
    @classmethod
    def _feed(cls, value: str | None) -> str | None:
        return value if value is None else check_feed(value)

    @field_validator("speed")
    @classmethod
    def _speed(cls, value: str) -> str:
        if value != "max" and not (re.fullmatch(r"\d+(\.\d+)?", value) and 0 < float(value) <= 100_000):
            raise ValueError("must be a number like 1, 0.5 or 20, or max")
        return value

    @model_validator(mode="after")
    def _room_for_workers(self) -> LocalSettings:
        if self.wds_admin_port < 0:  # three from 9103 would reach the page's 9105
            object.__setattr__(self, "wds_admin_port", 9103 if self.wds_workers <= 2 else 9110)
        return self

    @property
    def source(self) -> str:
        """Return the feeds that run, joined by +: a tape alone is enough to ask for its replay."""
        return self.feed or ("replay" if self.tape else "simulator+engine+news")

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self.source.split("+"))

    @property
    def embedded_queue(self) -> bool:
        return self.mdq_url.startswith("memory:")

    @property
    def embedded_cache(self) -> bool:
        return self.mdc_url.startswith("memory:")


def read() -> LocalSettings:
    """Return the settings of this run.  Raises: OperatorError naming the variable to correct."""
    settings = load(LocalSettings)
    if "replay" in settings.sources:
        _check_tape(settings.tape)
    if settings.sources != ("replay",) and "replay" in settings.sources and settings.speed == "max":
        raise OperatorError(
            "SPEED=max waits for the processors, which no other feed does", "Set SPEED to a number, or FEED=replay"
        )
    if "massive" in settings.sources and not _has_key(settings):
        raise OperatorError("FEED=massive needs the vendor's key", "Set API_KEY, or use FEED=simulator")
    if "news" in settings.sources and not (settings.news_url or "simulator" in settings.sources or _has_key(settings)):
        raise OperatorError("FEED=…+news needs the vendor's key", "Set API_KEY, or NEWS_URL=simulated or another server's")
    if settings.embedded_queue and settings.mdp_workers > 1:
        what = f"MDP_WORKERS={settings.mdp_workers} needs a queue that processes can share"
        raise OperatorError(what, "Set MDQ_URL=amqp://… as well, or leave MDP_WORKERS at 1")
    if settings.embedded_queue and settings.mdq_queue_type == "quorum":
        raise OperatorError("MDQ_QUEUE_TYPE=quorum: the embedded queue has no replicas", "Set MDQ_URL=amqp://… as well")
    return settings


def _has_key(settings: LocalSettings) -> bool:
    return settings.api_key is not None or settings.api_key_file is not None


def _check_tape(tape: str) -> None:
    if not tape:
        raise OperatorError("FEED=replay needs a recording", "Set TAPE to a file, like TAPE=day.ndjson.gz")
    if not Path(tape).exists() and not glob.glob(tape):
        raise OperatorError(f"TAPE={tape!r}: there is no such file", "Set TAPE to a recording: .ndjson, .gz or .zst")
