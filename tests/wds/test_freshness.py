"""Signs of life in, verdicts out."""

from __future__ import annotations

import pytest

from wds.freshness import LIVE, Freshness, Verdict

S = 1_000_000_000
ALIVE = b'{"listener":{"state":"live"},"processors":{}}'


def test_it_is_stale_until_the_first_sign() -> None:
    """Nothing is promised before the pipeline was heard."""
    assert Freshness(5, 0).on_time(0).state == "stale"
    assert Freshness(5, 0).on_pipeline(ALIVE, 0) == LIVE


def test_silence_and_an_absent_cache_are_told_apart() -> None:
    """Five seconds of silence: processors silent; the cache away: its reason; back: live again at once."""
    fresh = Freshness(5, 0)
    fresh.on_pipeline(ALIVE, 0)
    assert fresh.on_time(5 * S) == LIVE
    assert fresh.on_time(5 * S + 1) == Verdict("stale", "processors silent")
    fresh.on_pipeline(ALIVE, 6 * S)
    assert fresh.on_cache(False, "refused", 7 * S) == Verdict("stale", "cache unavailable: refused")
    assert fresh.on_cache(True, "", 60 * S) == LIVE
    assert fresh.on_time(64 * S).reason == "processors silent"


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b'{"listener":{"state":"connecting"}}', Verdict("stale", "feed connecting")),
        (b'{"listener":{"state":"ended"}}', Verdict("closed", "replay ended")),
        (b'{"processors":{}}', Verdict("stale", "feed missing")),
        (b'{"listener":null}', Verdict("stale", "feed missing")),
        (b'{"listener":7}', Verdict("stale", "feed unreadable")),
    ],
)
def test_the_listener_decides(data: bytes, verdict: Verdict) -> None:
    """The feed's own state is passed on."""
    assert Freshness(5, 0).on_pipeline(data, 0) == verdict
