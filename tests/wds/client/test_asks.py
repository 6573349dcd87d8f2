"""What a client asks for: merged where it overlaps, cut into commands that fit, sent as the limits allow."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from wds.access.limits import TokenBucket
from wds.client.asks import Allowance, Asks, in_commands

S = 1_000_000_000


def test_asking_twice_serves_both() -> None:
    """The quicker rate and the fields of each; all fields when one wants all; a tier that there is not goes to the server."""
    asks = Asks()
    assert asks.add("quote:A", 1, ["last"]) == {"hz": 1, "fields": ["last"]}
    assert asks.add("quote:A", "raw", ["bid"]) == {"hz": "raw", "fields": ["bid", "last"]}
    assert asks.add("quote:A", 4, None) == {"hz": "raw"}
    assert asks.add("quote:A", 3, None) == {"hz": 3}
    assert asks.covers("quote:A")
    assert not asks.covers("quote:B")
    asks.add("quote:*", None, None)
    assert asks.remove("quote:A")
    assert asks.covers("quote:A")
    assert not asks.remove("quote:A")


@given(st.integers(1, 3000), st.integers(1, 80), st.booleans())
def test_commands_fit_the_frame(count: int, length: int, resumes: bool) -> None:
    """However many names of whatever length, with or without their places: each command is within the limit."""
    names = [f"quote:{n:05d}{'x' * length}" for n in range(count)]
    since = {name: {"epoch": "e" * 16, "seq": 2**50} for name in names} if resumes else {}
    lots = list(in_commands(names, since, 200, 16_384))
    assert [name for lot in lots for name in lot] == names
    for lot in lots:
        body = {"id": 10**9, "op": "sub", "ch": lot, "hz": "raw", "since": {name: since[name] for name in lot if name in since}}
        assert len(json.dumps(body, separators=(",", ":"))) <= 16_384
        assert len(lot) <= 200


@given(st.lists(st.integers(0, 500), max_size=60), st.integers(1, 200), st.floats(0.5, 100))
def test_the_server_never_refuses_who_keeps_the_allowance(commands: list[int], burst: int, rate: float) -> None:
    """Commands that wait as long as they are told never exceed the bucket that was announced."""
    limits = {"subs": 9, "bytes": 16_384, "commands_s": rate, "burst": burst, "channels": 500, "channels_per_cost": 50}
    now, bucket = 0, TokenBucket(rate, burst, 0)
    allowance = Allowance(limits, 0)
    for channels in commands:
        some = min(channels, allowance.channels_max)
        while wait_ms := allowance.wait_ms(some, now):
            now += wait_ms * 1_000_000
        assert bucket.take(now, min(burst, 1 + some / 50)) == 0
