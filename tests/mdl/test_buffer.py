"""Checks the buffer's bounds in bytes and age, the order of its frames, and that every drop is counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdl.buffer import FrameBuffer
from mdl.feeds.feed import Frame
from tests.mdl.calm import calm

MS = 1_000_000


def test_the_freshest_frames_win_when_bytes_run_out() -> None:
    """The oldest go first, counted in frames and events."""
    buffer = FrameBuffer(bytes_max=60, age_ms_max=1000)
    for number in range(4):
        buffer.push(Frame(b'[{"ev":"T"},{"ev":"Q"}]' + str(number).encode(), number))
    assert [buffer.pop().data[-1:] for _ in range(len(buffer))] == [b"2", b"3"]
    assert (buffer.dropped_frames, buffer.dropped_events) == (2, 4)


def test_old_frames_expire() -> None:
    """Age is counted from arrival; what is exactly at the bound stays."""
    buffer = FrameBuffer(1000, age_ms_max=10)
    buffer.push(Frame('[{"ev":"T"}]', 0))
    buffer.push(Frame(b"[]", 5 * MS))
    assert buffer.age_ms(10 * MS) == 10
    assert buffer.expire(10 * MS) == 0
    assert buffer.expire(11 * MS) == 1
    assert (buffer.dropped_frames, buffer.dropped_events, buffer.bytes) == (1, 1, 2)
    assert buffer.age_ms(6 * MS) == 1


def test_a_frame_larger_than_the_buffer_is_dropped() -> None:
    """It cannot be kept, and it does not stay behind either."""
    buffer = FrameBuffer(10, 1000)
    buffer.push(Frame(b"x" * 11, 0))
    assert (len(buffer), buffer.bytes, buffer.dropped_frames) == (0, 0, 1)
    assert buffer.age_ms(5) == 0


@calm
@given(st.lists(st.one_of(st.binary(max_size=30), st.none(), st.integers(0, 50))))
def test_every_frame_is_taken_out_or_counted_as_dropped(steps: list[bytes | int | None]) -> None:
    """Whatever the order of pushes, pops and expiries: bytes add up, order is kept, nothing vanishes uncounted."""
    buffer, pushed, popped, now_ns = FrameBuffer(64, 20), 0, [], 0
    for step in steps:
        if step is None and len(buffer):
            popped.append(buffer.pop().received_ns)
        elif isinstance(step, int):
            now_ns += step * MS
            buffer.expire(now_ns)
        elif isinstance(step, bytes):
            pushed += 1
            buffer.push(Frame(step, now_ns + pushed))
        assert buffer.bytes == sum(len(frame.data) for frame in buffer._frames) <= 64
    assert popped == sorted(popped)
    assert pushed == len(popped) + len(buffer) + buffer.dropped_frames
