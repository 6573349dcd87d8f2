"""Judges whether a channel may be called live: by cache, processors, its partition and its source.

Invariant: live is said only on the word of a status:pipeline document that arrived lately, over a cache that is there, and since
the part of it that holds the channel was last away.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec
from msgspec import Raw, Struct

from mdc.away import NOTHING, Away
from mdc.channels import Kind
from service.partition import partition_of

SECOND_NS = 1_000_000_000
PIPELINE = "status:pipeline"
NAMED_MAX = 8  # partitions named in a reason


class Verdict(NamedTuple):
    """What is told to a channel's subscribers."""

    state: Literal["live", "stale", "closed"]
    reason: str = ""


class _Listener(Struct, frozen=True):
    feed: str = ""


class _Source(Struct, frozen=True):
    state: str
    listener: _Listener | None = None
    stale_partitions: frozenset[int] = frozenset()

    @property
    def is_news(self) -> bool:
        """Whether it only brings articles."""
        return self.listener is not None and self.listener.feed == "news"


class _Plugin(Struct, frozen=True):
    off: frozenset[int] = frozenset()  # the partitions in which it does not run
    state: str = ""
    error: str = ""


class _Processors(Struct, frozen=True):
    stale_partitions: frozenset[int] = frozenset()
    partitions_expected: int = 0
    plugins: dict[str, _Plugin] = {}


class Pipeline(Struct, frozen=True):
    """What a status:pipeline document says of freshness."""

    sources: dict[str, _Source] = {}
    processors: _Processors = _Processors()


_decoder = msgspec.json.Decoder(Pipeline)
LIVE = Verdict("live")
STARTING = Verdict("stale", "waiting for the pipeline's first sign of life")
RETURNED = Verdict("stale", "the cache is back; waiting for the pipeline")
PART_RETURNED = Verdict("stale", "this part of the cache is back; waiting for the pipeline")


class Freshness:
    """Judges channels. `verdict` is the pipeline's own; `version` grows whenever any channel's may have changed."""

    def __init__(self, silence_s: float, now_ns: int) -> None:
        self.verdict = STARTING
        self.version = 0
        self._silence_ns = int(silence_s * SECOND_NS)
        self._cache_reason: str | None = None
        self._heard_ns: int | None = None
        self._before = STARTING  # what to say until the pipeline is heard
        self._pipeline: Pipeline | None = None
        self._away = NOTHING
        self._returned: frozenset[int] = frozenset()  # parts that are back, and the pipeline not heard since

    def on_away(self, away: Away) -> frozenset[int]:
        """These parts of the cache are away now, the others are not; return those that are back."""
        back = frozenset(self._away.parts.keys() - away.parts.keys())
        self._returned = (self._returned | back) - away.parts.keys()
        self._away = away
        self.version += 1
        return back

    def on_cache(self, up: bool, reason: str, now_ns: int) -> Verdict:
        """The cache went away or came back; back, nothing is live before the pipeline was heard anew."""
        self._cache_reason = None if up else (f"cache unavailable: {reason}" if reason else "cache unavailable")
        if self._heard_ns is not None:
            self._heard_ns, self._before = None, RETURNED
        return self.on_time(now_ns)

    def on_pipeline(self, data: bytes | Raw, now_ns: int) -> Verdict:
        """A status:pipeline document arrived just now."""
        self._heard_ns = now_ns
        pipeline = _read(data)
        if pipeline != self._pipeline or self._returned:
            self._pipeline, self._returned = pipeline, frozenset()
            self.version += 1
        return self.on_time(now_ns)

    def on_time(self, now_ns: int) -> Verdict:
        """Judge again."""
        verdict = self._judge(now_ns)
        if verdict != self.verdict:
            self.verdict = verdict
            self.version += 1
        return self.verdict

    def of(self, kind: Kind, name: str, source: str) -> Verdict:
        """Judge one channel. `source` is what its documents name, empty when they name none (or there is none yet)."""
        pipeline = self._pipeline
        if self._absent or pipeline is None:
            return self.verdict
        if reason := self._away.why(kind, name):
            return Verdict("stale", f"cache unavailable: {reason}")
        if self._returned and self._away.part_of(kind, name) in self._returned:
            return PART_RETURNED
        if kind.name == "status":
            return LIVE
        if kind.is_shared(name):
            stale = pipeline.processors.stale_partitions
            return Verdict("stale", _unread(stale)) if stale and self.verdict == LIVE else self.verdict
        partition = partition_of(name, pipeline.processors.partitions_expected or 1)
        if partition in pipeline.processors.stale_partitions:
            return Verdict("stale", _unread({partition}))
        if kind.plugin and (reason := _off(pipeline.processors.plugins.get(kind.plugin), partition, kind.plugin)):
            return Verdict("stale", reason)
        return self._of_source(pipeline, source, partition) if source else self.verdict

    def _of_source(self, pipeline: Pipeline, source: str, partition: int) -> Verdict:
        known = pipeline.sources.get(source)
        if known is None:
            return Verdict("stale", f"feed {source} missing")
        if known.state == "live" and partition in known.stale_partitions:
            return Verdict("stale", f"feed {source} is not heard in partition {partition}")
        return _of_state(known.state, f"feed {source} {known.state}")

    @property
    def _absent(self) -> bool:
        return self._cache_reason is not None or self._heard_ns is None or self.verdict.reason == "processors silent"

    def _judge(self, now_ns: int) -> Verdict:
        if self._cache_reason is not None:
            return Verdict("stale", self._cache_reason)
        if self._heard_ns is None:
            return self._before
        if now_ns - self._heard_ns > self._silence_ns:
            return Verdict("stale", "processors silent")
        if self._pipeline is None:
            return Verdict("stale", "feed unreadable")
        return _of_all(self._pipeline)


def _of_all(pipeline: Pipeline) -> Verdict:
    """Return the verdict on the whole: live while any source is and any partition flows. Articles alone are no market."""
    if not pipeline.sources:
        return Verdict("stale", "feed missing")
    stale, expected = pipeline.processors.stale_partitions, pipeline.processors.partitions_expected
    if expected and len(stale) >= expected:
        return Verdict("stale", "processors read no partition")
    markets = [source for source in pipeline.sources.values() if not source.is_news]
    states = [source.state for source in markets or pipeline.sources.values()]
    if "live" in states:
        return LIVE
    worst = next((state for state in states if state != "ended"), "ended")
    return _of_state(worst, f"feed {worst}")


def _of_state(state: str, reason: str) -> Verdict:
    if state == "live":
        return LIVE
    return Verdict("closed", "replay ended") if state == "ended" else Verdict("stale", reason)


def _off(plugin: _Plugin | None, partition: int, name: str) -> str:
    """Return why nobody keeps the channels of a plug-in in a partition up to date, empty when somebody does."""
    if plugin is None:
        return f"no processor has the plug-in {name}"
    if partition not in plugin.off:
        return ""
    return f"the plug-in {name} is {plugin.state}" + (f": {plugin.error}" if plugin.error else "")


def _unread(partitions: frozenset[int] | set[int]) -> str:
    named = ", ".join(map(str, sorted(partitions)[:NAMED_MAX])) + (", …" if len(partitions) > NAMED_MAX else "")
    return f"processors do not read partition {named}"


def _read(data: bytes | Raw) -> Pipeline | None:
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
