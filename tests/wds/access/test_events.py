"""Checks how the request for an event stream is read, and what its id remembers."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wds.access.events import ID_CHARS_MAX, Ask, Refusal, ask_of, position_id, positions, problem
from wds.protocol import Since

NAMES = st.text(st.characters(max_codepoint=127), min_size=1, max_size=90)  # more than the catalogue lets into a name


def test_a_request_says_what_a_sub_says() -> None:
    """Channels, rate, fields and the place to go on from become one command."""
    query = "ch=quote:AAPL,board:volume&ch=quote%3AMSFT&hz=raw&fields=last,bid"
    ask = ask_of(query, {"last-event-id": "k3!quote:AAPL=812", "origin": "https://a"}, "jwt")
    assert isinstance(ask, Ask)
    assert (ask.token, ask.ticket, ask.origin) == ("jwt", None, "https://a")
    assert json.loads(ask.command()) == {
        "op": "sub", "id": 1, "ch": ["quote:AAPL", "board:volume", "quote:MSFT"], "hz": "raw", "fields": ["last", "bid"],
        "since": {"quote:AAPL": {"epoch": "k3", "seq": 812}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "token", "code", "detail"),
    [
        ("", "t", "bad_request", "name 1 to 500"), ("ch=", "t", "bad_request", "name 1 to 500"),
        ("ch=quote:A&hz=3", "t", "bad_request", "raw, 10, 4, 1, 0.2"), ("ch=quote:A&token=x", "t", "bad_request", "never goes into"),
        ("ch=quote:A&limit=3", "t", "bad_request", "limit: not known"), ("ch=quote:A&&", "t", "bad_request", "cannot be read"),
        ("ch=%ff", "t", "bad_request", "cannot be read"), ("ch=quote:A", None, "unauthorized", "POST /v1/ticket"),
        ("ch=" + ",".join(["quote:A"] * 501), "t", "bad_request", "name 1 to 500"),
    ],
)  # fmt: skip
def test_a_bad_request_says_what_to_do(query: str, token: str | None, code: str, detail: str) -> None:
    """Every fault has the protocol's code and a sentence."""
    refused = ask_of(query, {}, token)
    assert isinstance(refused, Refusal)
    assert (refused.code, detail in refused.detail) == (code, True)


@given(st.dictionaries(NAMES, st.tuples(st.text(min_size=1, max_size=20), st.integers(0, 10**14)), max_size=9))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_id_brings_back_the_positions(places: dict[str, tuple[str, int]]) -> None:
    """Whatever names and epochs hold, the id is one line of ASCII, and says the same when it comes back."""
    made = position_id((channel, epoch, seq) for channel, (epoch, seq) in places.items())
    assert made.isascii()
    assert made.isprintable()
    if len(made) < ID_CHARS_MAX - 1200:
        assert positions(made) == {channel: Since(epoch, seq) for channel, (epoch, seq) in places.items()}


def test_an_id_has_a_bound() -> None:
    """Thousands of channels do not make a header that no server takes; what does not fit comes as snaps."""
    made = position_id((f"quote:S{n:05d}", f"e{n % 3}", n) for n in range(5000))
    assert len(made) <= ID_CHARS_MAX
    assert 100 < len(positions(made)) < 500


@given(st.text(max_size=300))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_last_event_id_is_read(text: str) -> None:
    """A client may send anything: what makes no sense is left out."""
    assert all(0 <= since.seq < 10**15 for since in positions(text).values())


def test_a_problem_is_a_whole_response() -> None:
    """Status line, headers, body of its length; `after_ms` is the header Retry-After, too."""
    head, _, body = problem(429, "limit", "at most 2", "https://a", 1200).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 429 Too Many Requests"
    assert {"Retry-After: 2", "Access-Control-Allow-Origin: https://a", f"Content-Length: {len(body)}"} <= set(lines)
    assert json.loads(body)["after_ms"] == 1200
