"""The processors' settings, read from the environment once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from mdc.channels import OWN_KIND
from mdp.analyzers.alerts.alert import Thresholds
from mdp.roster import ANALYZERS, DEFAULT
from service.address import exposed
from service.days.markets import KNOWN, Markets
from service.settings import ComponentSettings, check_url, hide_password

MARKETS = ", ".join(KNOWN)
INFINITY = float("inf")
SNAPSHOT_MS = 120_000  # by then the vendor's snapshot of the day is there, or does not come


class MdpSettings(ComponentSettings):
    """Settings of one processor worker."""

    admin_port: int = Field(9102, ge=0, le=65535, validation_alias="MDP_ADMIN_PORT", description="0 = a free one")
    analyzers: str = Field(DEFAULT, validation_alias="MDP_ANALYZERS", description="comma-separated, see mdp/README.md")
    flush_ms: int = Field(50, ge=5, le=5_000, validation_alias="MDP_FLUSH_MS", description="pause between flushes at low load")
    flush_all_ms: int = Field(
        500, ge=5, le=2_000, validation_alias="MDP_FLUSH_ALL_MS", description="as often also what nobody watches is flushed"
    )
    flush_ms_max: int = Field(400, ge=5, le=10_000, validation_alias="MDP_FLUSH_MS_MAX", description="the same under full load")
    prefetch: int = Field(64, ge=1, le=10_000, validation_alias="MDP_PREFETCH", description="unacknowledged batches a queue")
    board_rows: int = Field(500, ge=1, le=500, validation_alias="MDP_BOARD_ROWS", description="rows of a board")
    time_ahead_s: int = Field(
        60, ge=1, le=86_400, validation_alias="MDP_TIME_AHEAD_S", description="believed ahead of the feed's clock"
    )
    reference: Path | None = Field(
        None, validation_alias="MDP_REFERENCE", description="CSV symbol,prev_close,avg_volume and more, see mdp/README.md"
    )
    rest_url: str = Field(
        "", validation_alias="MDP_REST_URL",
        description="the vendor's REST service, https://…, asked for what quotes are compared with; empty = nobody is asked",
    )  # fmt: skip
    rest_key: SecretStr = Field(
        SecretStr(""), validation_alias="MDP_REST_KEY", description="its API key; empty = see the file; it goes nowhere else"
    )
    rest_key_file: Path | None = Field(None, validation_alias="MDP_REST_KEY_FILE", description="read anew for every day")
    rest_rate: float = Field(
        120,
        gt=0,
        le=6_000,
        validation_alias="MDP_REST_RATE",
        description="questions a minute to it, at most; a day has about 40",
    )
    calendars: str = Field(
        "*-PERP=always", validation_alias="MDP_CALENDARS",
        description=f"PATTERN=MARKET,…: which market the symbols that fit belong to: {MARKETS}",
    )  # fmt: skip
    closed: str = Field(
        "", validation_alias="MDP_CLOSED", description="MARKET=YYYY-MM-DD,…: further days on which a market stays closed"
    )
    boards: Path | None = Field(
        None,
        validation_alias="MDP_BOARDS",
        description="TOML file of boards of your own, see mdp/README.md; the same for all workers",
    )
    alert_pause_ms: int = Field(
        1_000, ge=0, le=3_600_000, validation_alias="MDP_ALERT_PAUSE_MS",
        description="between two range alerts of a symbol, session and side, by the feed's time",
    )  # fmt: skip
    alert_gap_pct: float = Field(
        4.0, ge=0, le=1_000, validation_alias="MDP_ALERT_GAP_PCT", description="from so many per cent on a gap is an alert"
    )
    alert_volume_times: float = Field(
        5.0, ge=0, le=1_000_000, validation_alias="MDP_ALERT_VOLUME_TIMES",
        description="from so many times the hour's average minute on the last one's volume is an alert; 0 = never",
    )  # fmt: skip
    alert_volume_pause_s: int = Field(
        300, ge=0, le=86_400, validation_alias="MDP_ALERT_VOLUME_PAUSE_S", description="between two of these, by the feed's time"
    )
    alert_rel_volume: str = Field(
        "1,2,5,10", validation_alias="MDP_ALERT_REL_VOLUME",
        description="multiples of the average day's volume whose crossing is an alert, ascending; none = none",
    )  # fmt: skip
    alert_news_min: int = Field(
        30, ge=0, le=1_440, validation_alias="MDP_ALERT_NEWS_MIN",
        description="minutes between an article and a new high or low that are an alert together; 0 = never",
    )  # fmt: skip
    plugins: str = Field(
        "*", validation_alias="MDP_PLUGINS",
        description="names of installed plug-ins to run, comma-separated; * = all, none = none: mdp/plugins/README.md",
    )  # fmt: skip
    plugin_budget_ms: int = Field(
        200, ge=0, le=500, validation_alias="MDP_PLUGIN_BUDGET_MS",
        description="of each 500 ms that a plug-in may take in one partition before it is taken out; 0 = no limit",
    )  # fmt: skip
    plugin_failures: int = Field(
        5, ge=0, le=1_000, validation_alias="MDP_PLUGIN_FAILURES",
        description="of a plug-in in a row, after which it stays off in that partition; 0 = it is tried again and again",
    )  # fmt: skip
    plugin_stall_ms: int = Field(
        1_000, ge=0, le=1_500, validation_alias="MDP_PLUGIN_STALL_MS",
        description="a call of a plug-in that takes so long (a lease is 2000) puts it off and ends this worker; 0 = never",
    )  # fmt: skip
    worker: str = Field("", max_length=64, validation_alias="MDP_WORKER", description="name of the worker; empty = made up")

    @field_validator("analyzers")
    @classmethod
    def _known_analyzers(cls, value: str) -> str:
        unknown = [name for name in value.split(",") if name.strip() not in ANALYZERS]
        if unknown:
            raise ValueError(f"unknown analyzers {', '.join(unknown)}; there are {', '.join(ANALYZERS)}")
        return value

    @field_validator("plugins")
    @classmethod
    def _plugin_names(cls, value: str) -> str:
        bad = [name for name in value.split(",") if name.strip() not in ("*", "none") and not OWN_KIND.fullmatch(name.strip())]
        if bad:
            raise ValueError("it is a list of names such as bursts,spread, or * for all that are installed, or none")
        return value

    @model_validator(mode="after")
    def _flush_range(self) -> Self:
        if self.flush_ms > self.flush_ms_max:
            raise ValueError("MDP_FLUSH_MS must not be above MDP_FLUSH_MS_MAX")
        return self

    @field_validator("rest_url")
    @classmethod
    def _rest_url(cls, value: str) -> str:
        return check_url(value, ("https", "http"), "https://api.massive.com") if value else value

    @model_validator(mode="after")
    def _no_key_in_clear(self) -> Self:
        if self.rest_url and exposed(self.rest_url):
            raise ValueError(
                f"MDP_REST_URL={hide_password(self.rest_url)} would send the vendor's key in clear: write https://, or use a "
                "loopback address"
            )
        return self

    @field_validator("calendars")
    @classmethod
    def _known_markets(cls, value: str) -> str:
        for pattern, market in _pairs(value):
            if not pattern or market not in KNOWN:
                raise ValueError(f"{pattern}={market} is not PATTERN=MARKET, where MARKET is one of {MARKETS}")
        return value

    @field_validator("closed")
    @classmethod
    def _dates(cls, value: str) -> str:
        for market, day in _pairs(value):
            try:
                date.fromisoformat(day)
            except ValueError:
                market = ""
            if market not in KNOWN:
                raise ValueError(f"it is a list of MARKET=YYYY-MM-DD, where MARKET is one of {MARKETS}")
        return value

    @field_validator("alert_rel_volume")
    @classmethod
    def _ascending(cls, value: str) -> str:
        try:
            found = _multiples(value)
        except ValueError:
            found = (0.0,)
        if any(not 0 < one < INFINITY for one in found) or list(found) != sorted(set(found)):
            raise ValueError("it is a list of ascending numbers above 0, such as 1,2,5,10, or none")
        return value

    def rest_key_now(self) -> str:
        """Return the API key for REST as it is now, empty when there is none."""
        if given := self.rest_key.get_secret_value().strip():
            return given
        try:
            return self.rest_key_file.read_text().strip() if self.rest_key_file is not None else ""
        except (OSError, UnicodeDecodeError):
            return ""

    @property
    def thresholds(self) -> Thresholds:
        """Return from when on something is an alert."""
        return Thresholds(
            self.alert_pause_ms, self.alert_volume_times, self.alert_volume_pause_s * 1_000, _multiples(self.alert_rel_volume),
            self.alert_gap_pct, self.alert_news_min * 60_000, SNAPSHOT_MS if self.rest_url else 0,
        )  # fmt: skip

    @property
    def markets(self) -> Markets:
        """Return which market a symbol belongs to, and when it is open."""
        closed: dict[str, list[date]] = {}
        for market, day in _pairs(self.closed):
            closed.setdefault(market, []).append(date.fromisoformat(day))
        return Markets(list(_pairs(self.calendars)), closed)

    @property
    def plugin_names(self) -> list[str]:
        return [name.strip() for name in self.plugins.split(",")]

    @property
    def analyzer_names(self) -> list[str]:
        return [name.strip() for name in self.analyzers.split(",")]


def _multiples(text: str) -> tuple[float, ...]:
    return () if text.strip() == "none" else tuple(float(item) for item in text.split(","))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for item in text.split(","):
        if item.strip():
            left, _, right = item.strip().partition("=")
            yield left.strip(), right.strip()
