"""What the leader makes of entries that somebody has damaged."""

from __future__ import annotations

import msgspec
import structlog

from mdp.leader.reading import Reading


def test_an_entry_is_complained_of_once_until_it_is_another() -> None:
    """It may stand there for hours, and is read many times a second."""
    reading, decode = Reading(), msgspec.json.Decoder(int).decode
    with structlog.testing.capture_logs() as logs:
        found = [reading.read("a", body, decode) for body in (b"1", b"x", b"x", b"y", b"2")]
        assert reading.read("b", b"x", decode) is None
    assert found == [1, None, None, None, 2]
    assert [one["entry"] for one in logs] == ["a", "a", "b"]


def test_only_what_cannot_be_read_is_passed_over() -> None:
    """A defect of ours is no damage of theirs."""

    def broken(body: bytes) -> int:
        raise KeyError(body)

    try:
        Reading().read("a", b"1", broken)
    except KeyError:
        return
    raise AssertionError("it was taken for damage")
