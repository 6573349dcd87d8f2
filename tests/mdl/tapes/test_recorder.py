"""Checks that recordings replay as they came, rotate, and stop without harm when the disk is full."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mdl.feeds.feed import Frame
from mdl.feeds.replay import ReplayFeed
from mdl.tapes import recorder as module
from mdl.tapes.recorder import Bounds, Recorder
from tests.waiting import until

FRAMES = [Frame(b'[{"ev":"T","sym":"A","i":"%d"}]' % n, 1_700_000_000_000_000_000 + n) for n in range(200)]
FRAMES += [Frame("text, no JSON", 1_700_000_000_000_000_300), Frame(b"\xff\x00", 1_700_000_000_000_000_301)]
ROOMY = Bounds(file_bytes=1 << 30, file_s=3600, total_bytes=1 << 30, waiting_bytes=1 << 20)


def tapes(folder: Path) -> list[Path]:
    return list(folder.glob("*.zst"))


async def replayed(folder: Path) -> list[bytes]:
    return [
        bytes(frame.data) if isinstance(frame.data, bytes) else frame.data.encode()
        async for frame in ReplayFeed(str(folder), None)
    ]


async def test_a_recording_replays_as_it_came(tmp_path: Path) -> None:
    """Order and bytes, also of frames that were no JSON."""
    recorder = Recorder(tmp_path / "new", ROOMY)
    recorder.start()
    assert recorder.recording
    for frame in FRAMES:
        recorder.record(frame)
    await asyncio.to_thread(recorder.stop)
    assert not recorder.recording
    assert recorder.recorded_frames == len(FRAMES)
    assert recorder.written_bytes > 0
    assert await replayed(tmp_path / "new") == [f.data.encode() if isinstance(f.data, str) else f.data for f in FRAMES]


async def test_files_are_rotated_by_time_and_stay_in_order(tmp_path: Path) -> None:
    """Many files, one recording."""
    recorder = Recorder(tmp_path, ROOMY._replace(file_s=0.0))
    recorder.start()
    for frame in FRAMES[:20]:
        recorder.record(frame)
    await asyncio.to_thread(recorder.stop)
    assert len(tapes(tmp_path)) == 21
    assert await replayed(tmp_path) == [frame.data for frame in FRAMES[:20]]


async def test_files_are_rotated_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compressed size counts, as far as it has been written."""
    monkeypatch.setattr(module, "FLUSH_S", 0.01)
    recorder = Recorder(tmp_path, ROOMY._replace(file_bytes=300))
    recorder.start()
    for number, frame in enumerate(FRAMES[:60]):
        recorder.record(frame)
        if number % 20 == 0:
            await until(lambda: not recorder._waiting)
            await asyncio.sleep(0.03)
    await asyncio.to_thread(recorder.stop)
    assert len(tapes(tmp_path)) > 1
    assert await replayed(tmp_path) == [frame.data for frame in FRAMES[:60]]


async def test_what_is_recorded_can_be_read_while_it_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a crash costs a second at most."""
    monkeypatch.setattr(module, "FLUSH_S", 0.01)
    recorder = Recorder(tmp_path, ROOMY)
    recorder.start()
    recorder.record(FRAMES[0])
    await until(lambda: recorder.recorded_frames == 1)

    async def readable() -> bool:
        return await replayed(tmp_path) == [FRAMES[0].data]

    await until(readable)
    await asyncio.to_thread(recorder.stop)


async def test_a_full_disk_stops_the_recording_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is kept; frames that come later are counted as dropped."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module._Tape, "write", full)
    recorder = Recorder(tmp_path, ROOMY)
    recorder.start()
    recorder.record(FRAMES[0])
    recorder._wake.set()
    await until(lambda: not recorder.recording)
    assert "No space left on device" in recorder.reason
    recorder.record(FRAMES[1])
    assert recorder.dropped_frames == 1


async def test_a_defect_of_the_writing_thread_is_said_until_somebody_acts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that nobody looks at must not end in silence."""

    def broken(*_: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(module._Tape, "write", broken)
    recorder = Recorder(tmp_path, ROOMY)
    recorder.start()
    recorder.record(FRAMES[0])
    recorder._wake.set()
    await until(lambda: recorder.reason)
    assert "a defect" in recorder.reason
    assert not recorder.recording
    await asyncio.to_thread(recorder.stop)
    assert not recorder.reason


async def test_the_bound_of_all_recordings_stops_it(tmp_path: Path) -> None:
    """What is there counts too; nothing is deleted."""
    (tmp_path / "old.ndjson.zst").write_bytes(b"x" * 5000)
    recorder = Recorder(tmp_path, ROOMY._replace(total_bytes=4096))
    recorder.start()
    await until(lambda: not recorder.recording)
    assert "its bound" in recorder.reason
    assert (tmp_path / "old.ndjson.zst").exists()


def test_a_disk_that_does_not_keep_up_costs_frames_not_memory(tmp_path: Path) -> None:
    """Without a thread that writes, what waits is bounded."""
    recorder = Recorder(tmp_path, ROOMY._replace(waiting_bytes=100))
    for _ in range(10):
        recorder.record(Frame(b"x" * 30, 0))
    assert recorder.dropped_frames == 7


def test_a_folder_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    """Not by a thread nobody looks at."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Recorder(tmp_path / "file" / "below", ROOMY).start()
