"""Token buckets and places, by a clock that tests move."""

from __future__ import annotations

from engine.access.limits import BUCKETS_MAX, Bucket, Limits, Places

S = 10**9


def test_a_burst_passes_and_a_flood_waits() -> None:
    """Two seconds' worth at once, then what each second brings; the wait is told exactly."""
    bucket = Bucket(10, 0)
    assert [bucket.take(0) for _ in range(20)] == [0.0] * 20
    assert bucket.take(0) == 0.1
    assert bucket.take(S // 10) == 0.0
    assert bucket.take(S // 10) > 0
    assert bucket.take(100 * S, 20) == 0.0
    assert bucket.take(100 * S, 5) == 0.5


def test_more_than_ever_fits_passes_when_the_bucket_is_full() -> None:
    """A batch larger than the burst is not refused for ever; it is paid for afterwards."""
    bucket = Bucket(1, 0)
    assert bucket.take(0, 10) == 0.0
    assert bucket.take(5 * S) > 0
    assert bucket.take(10 * S, 1) == 0.0


def test_no_rate_is_no_limit_and_time_does_not_go_back() -> None:
    """0 lets everything pass; a clock that jumps back gives nothing."""
    assert Bucket(0, 0).take(0, 10**9) == 0.0
    bucket = Bucket(1, 10 * S)
    assert bucket.take(10 * S, 2) == 0.0
    assert bucket.take(0) > 0
    assert bucket.take(10 * S) > 0


def test_each_has_its_own_and_there_are_not_too_many() -> None:
    """Who was not heard of for longest is forgotten."""
    limits = Limits(1)
    assert limits.take("a", 0, 2) == 0.0
    assert limits.take("a", 0) > 0
    assert limits.take("b", 0) == 0.0
    for number in range(BUCKETS_MAX):
        limits.take(f"n{number}", 0)
    assert len(limits._buckets) == BUCKETS_MAX
    assert limits.take("a", 0) == 0.0


def test_places_are_given_back() -> None:
    """As many as there are, each name for itself."""
    places = Places(2)
    assert [places.enter("a") for _ in range(3)] == [True, True, False]
    assert places.enter("b")
    places.leave("a")
    assert places.enter("a")
    assert all(Places(0).enter("a") for _ in range(100))
