"""Checks what the token bucket and the connection census allow and refuse."""

from __future__ import annotations

from wds.access.limits import Census, TokenBucket

S = 1_000_000_000


def test_a_bucket_allows_a_burst_then_a_rate() -> None:
    """Two a second, five at once; a refusal says when to come again and costs nothing."""
    bucket = TokenBucket(2, 5, 0)
    assert [bucket.take(0) for _ in range(5)] == [0] * 5
    assert bucket.take(0) == 500
    assert bucket.take(S // 2) == 0
    assert bucket.take(S // 2, cost=3) == 1500
    assert bucket.take(100 * S, cost=5) == 0


def test_the_census_refuses_newcomers_and_forgets_who_left() -> None:
    """Limits by address, by strangers of an address and by user; leaving makes room; nothing is left behind."""
    census = Census(connections_max=10, per_address_max=3, unauthenticated_max=2, per_user_max=1)
    assert census.enter("a")
    assert census.enter("a")
    assert not census.enter("a"), "two strangers"
    assert census.know("a", "u")
    assert census.enter("a")
    assert not census.enter("a"), "three connections"
    assert not census.know("a", "u"), "one connection a user"
    assert census.enter("b")
    census.leave("a", "u")
    census.leave("a", None)
    census.leave("a", None)
    census.leave("b", None)
    assert census.connections == 0
    assert not census._addresses
    assert not census._strangers
    assert not census._users


def test_a_full_worker_is_full() -> None:
    """The number of connections has a bound of its own."""
    census = Census(1, 5, 5, 5)
    assert not census.full()
    census.enter("a")
    assert census.full()
