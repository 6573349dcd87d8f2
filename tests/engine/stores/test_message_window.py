"""The bounded memory of messages against plain lists: the same frames and counts, whatever comes and goes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.stores.message_window import Frame, Frames, Places

Steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 5), st.integers(0, 40)),
        st.tuples(st.just("release"), st.integers(0, 12), st.just(0)),
    ),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(Steps, st.integers(1, 12), st.integers(1, 200), st.integers(1, 5), st.integers(1, 100))
def test_every_frame_above_the_floor_is_there(steps, count_max, bytes_max, take, take_bytes) -> None:  # type: ignore[no-untyped-def]
    """What is asked for above the floor comes whole, in order, and memory stays in its bounds."""
    frames = Frames(0, count_max, bytes_max)
    everything: list[Frame] = []
    index = 0
    for kind, number, size in steps:
        if kind == "add":
            index += number
            frames.add(index, bytes(size))
            everything.append(Frame(index, bytes(size)))
        else:
            frames.release(frames.floor + number)
            index = max(index, frames.floor)
        assert len(frames) <= count_max
        assert frames.bytes <= bytes_max or len(frames) == 1
        wanted = [frame for frame in everything if frame.message_index > frames.floor]
        assert frames.bytes == sum(len(frame.data) for frame in wanted)
        for begin in range(frames.floor, index + 2):
            found = frames.after(begin, take, take_bytes)
            left = [frame for frame in wanted if frame.message_index > begin]
            assert found == left[: len(found)]
            assert bool(found) == bool(left)
            assert len(found) <= take
            assert len(found) == 1 or sum(len(frame.data) for frame in found) <= take_bytes


def test_a_frame_larger_than_all_room_is_kept_alone() -> None:
    """One huge message does not make the memory useless: it is the only one there."""
    frames = Frames(0, 10, 100)
    frames.add(1, b"x" * 60)
    frames.add(2, b"y" * 1_000)
    assert frames.after(1, 10, 10) == [Frame(2, b"y" * 1_000)]
    assert frames.floor == 1


def test_many_frames_leave_without_moving_the_list_each_time() -> None:
    """The lists are cut now and then, and what was cut is not found any more."""
    frames = Frames(0, 5_000, 1 << 30)
    for index in range(1, 40_001):
        frames.add(index, b"")
    assert len(frames) == 5_000
    assert frames.floor == 35_000
    assert [frame.message_index for frame in frames.after(39_997, 10, 10)] == [39_998, 39_999, 40_000]
    assert len(frames._indices) < 15_000


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.integers(0, 30)), max_size=150), st.integers(4, 40))
def test_places_are_exact_near_and_never_too_few_far_away(steps, exact_max) -> None:  # type: ignore[no-untyped-def]
    """Counts and ages are exact for the newest messages; for older ones up to a step too many and too old, never too young."""
    step = 4
    places = Places(exact_max, step)
    everything: list[tuple[int, int]] = []
    index = forgotten = 0
    for jump, forget, back in steps:
        index += jump
        places.add(index, index * 10)
        everything.append((index, index * 10))
        if forget:
            forgotten = max(forgotten, index - back)
            places.forget(forgotten)
        for at in range(forgotten, index + 2):
            left = [pair for pair in everything if pair[0] > at]
            messages, oldest_ns = places.after(at)
            assert len(left) <= messages < len(left) + step
            assert oldest_ns <= (left[0][1] if left else 0)
            if len(left) <= exact_max:
                assert (messages, oldest_ns) == (len(left), left[0][1] if left else 0)
            for last in range(at, min(at + 6, index + 2)):
                there = any(at < one <= last for one, _ in everything)
                assert places.between(at, last) >= there
                if len(left) <= exact_max:
                    assert places.between(at, last) == there


def test_a_backlog_of_hours_costs_little() -> None:
    """Two million places are kept in well under ten megabytes, and forgetting them gives that back."""
    places = Places()
    for index in range(1, 2_000_001):
        places.add(2 * index, index)
    assert len(places) < 400_000
    assert places.after(4_000_000 - 20).messages == 10
    assert 1_999_990 <= places.after(20).messages <= 2_000_000
    places.forget(3_999_990)
    assert len(places) <= 5
    assert places.after(3_999_990).messages == 5
