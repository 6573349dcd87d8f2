"""Checks that a recorded line gives back exactly the frame that was written, and that bad lines are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.tapes.format import BadLine, read_line, write_line
from tests.mdl.calm import calm


@calm
@given(st.one_of(st.binary(max_size=100), st.text(max_size=60), st.just(b'[{"ev":"T","p":1.10}]')), st.integers(0, 2**62))
def test_a_recording_gives_back_exactly_what_came_in(data: bytes | str, received_ns: int) -> None:
    """JSON, text that is no JSON, and bytes that are no text; one line each."""
    line = write_line(data, received_ns)
    assert line.count(b"\n") == 1
    json.loads(line)
    back = read_line(line)
    assert back.at_ns == received_ns
    assert back.data == (data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))


def test_the_recorders_line_keeps_the_frame_readable() -> None:
    """A JSON frame stands in the line as it is."""
    assert write_line(b'[{"ev":"T"}]', 17) == b'{"received_ns":17,"frame":[{"ev":"T"}]}\n'


@pytest.mark.parametrize(
    ("line", "data", "at_ns"),
    [
        (b'[{"ev":"T","t":1536036818784}]', b'[{"ev":"T","t":1536036818784}]', 1536036818784_000_000),
        (b' {"ev":"T","t":1536036818784}\r\n', b'[{"ev":"T","t":1536036818784}]', 1536036818784_000_000),
        (b'[{"ev":"XT","t":1,"r":1618677817079}]', b'[{"ev":"XT","t":1,"r":1618677817079}]', 1618677817079_000_000),
        (b'[{"ev":"AM","s":1610144640000,"e":1610144700000}]', None, 1610144700000_000_000),
        (b'[{"ev":"T","t":1536036818784000000}]', None, 1536036818784_000_000),
        (b'[{"ev":"T","t":"soon"}]', None, None),
        (b"[]", b"[]", None),
    ],
)
def test_frames_of_every_shape_are_read(line: bytes, data: bytes | None, at_ns: int | None) -> None:
    """Arrays, single events, times in ms or ns."""
    assert read_line(line) == (line.strip() if data is None else data, at_ns)


@pytest.mark.parametrize(
    "line", [b"", b"hello", b"[1,2", b'{"received_ns":"x","frame":[]}', b'{"received_ns":1,"base64":"*"}', b"{"]
)
def test_what_is_no_frame_is_a_bad_line(line: bytes) -> None:
    """The caller counts it and goes on."""
    with pytest.raises(BadLine):
        read_line(line)


@calm
@given(st.binary(max_size=100))
def test_no_line_does_worse_than_bad(line: bytes) -> None:
    """Arbitrary bytes end in a frame or a BadLine."""
    try:
        read_line(line)
    except BadLine:
        return
