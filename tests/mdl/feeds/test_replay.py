"""Checks the replay of tapes: formats, speeds, loops and damage."""

from __future__ import annotations

import asyncio
import gzip
import time
from pathlib import Path

import pytest
import zstandard

from mdl.feeds.replay import Pace, ReplayFeed, TapeReader
from mdl.tapes.format import write_line
from mdl.tapes.generator import write_tape
from service.errors import OperatorError
from tests.tapes import tape

LINES = [b'[{"ev":"T","sym":"A","t":%d}]' % (1_700_000_000_000 + n * 20) for n in range(5)]


async def played(feed: ReplayFeed) -> list[bytes]:
    return [bytes(frame.data) if isinstance(frame.data, bytes) else frame.data.encode() async for frame in feed]


@pytest.mark.parametrize("suffix", [".ndjson", ".ndjson.gz", ".ndjson.zst"])
async def test_every_format_gives_the_same_frames(tmp_path: Path, suffix: str) -> None:
    """Plain, gzip, zstandard; the end is said."""
    path = tmp_path / f"tape{suffix}"
    data = b"\n".join(LINES)  # no newline at the end
    path.write_bytes(
        gzip.compress(data) if suffix.endswith("gz") else zstandard.compress(data) if suffix.endswith("zst") else data
    )
    feed = ReplayFeed(str(path), None)
    assert feed.lossless
    assert await played(feed) == LINES
    assert (feed.state, feed.malformed) == ("ended", 0)


async def test_bad_lines_are_counted_and_skipped(tmp_path: Path) -> None:
    """The rest is played."""
    path = tmp_path / "tape.ndjson"
    path.write_bytes(LINES[0] + b"\nnot JSON\n\n\xff\xfe\n" + LINES[1] + b"\n[1,")
    feed = ReplayFeed(str(path), None)
    assert await played(feed) == LINES[:2]
    assert feed.malformed == 3


@pytest.mark.parametrize("cut", [4, 10, 200])
async def test_a_tape_that_breaks_off_is_played_as_far_as_it_goes(tmp_path: Path, cut: int) -> None:
    """A broken gzip trailer, or a file cut in its middle."""
    path = tmp_path / "tape.ndjson.gz"
    lines = [b'[{"ev":"T","sym":"%x","t":%d}]' % (n * n * 7919, n) for n in range(500)]
    path.write_bytes(gzip.compress(b"\n".join(lines))[:-cut])
    found = await played(ReplayFeed(str(path), None))
    assert found == lines[: len(found)]
    assert len(found) > 400


async def test_a_truncated_zst_is_played_as_far_as_it_goes(tmp_path: Path) -> None:
    """What a crashed recorder leaves behind."""
    path = tmp_path / "tape.ndjson.zst"
    writer = zstandard.ZstdCompressor().compressobj()
    data = writer.compress(b"\n".join(LINES) + b"\n") + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    path.write_bytes(data)
    assert await played(ReplayFeed(str(path), None)) == LINES


@pytest.mark.parametrize(("name", "content"), [("none.ndjson", None), ("x.gz", b"no gzip"), ("x.zst", b"no zst, really")])
def test_a_file_that_cannot_be_read_at_all_is_the_operators(tmp_path: Path, name: str, content: bytes | None) -> None:
    """The error names the path."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OperatorError, match=name):
        ReplayFeed(str(path), None)


async def test_a_folder_is_played_in_name_order(tmp_path: Path) -> None:
    """As the recorder rotates its files; a pattern does the same."""
    for number, line in enumerate(LINES):
        (tmp_path / f"tape-{number}.ndjson.zst").write_bytes(zstandard.compress(line + b"\n"))
    (tmp_path / "notes.txt").write_text("no tape")
    assert await played(ReplayFeed(str(tmp_path), None)) == LINES
    assert await played(ReplayFeed(f"{tmp_path}/tape-[12]*", None)) == LINES[1:3]
    (tmp_path / "empty").mkdir()
    with pytest.raises(OperatorError, match="holds no tape"):
        ReplayFeed(str(tmp_path / "empty"), None)


async def test_a_file_that_is_gone_when_its_turn_comes_is_said_and_skipped(tmp_path: Path) -> None:
    """The reason names it, it counts as a hole, and the next file is played."""
    for number, line in enumerate(LINES):
        (tmp_path / f"tape-{number}.ndjson").write_bytes(line + b"\n")
    feed, found = ReplayFeed(str(tmp_path), None), []
    async for frame in feed:
        found.append(frame.data)
        if len(found) == 1:
            (tmp_path / "tape-1.ndjson").unlink()
            (tmp_path / "tape-3.ndjson").unlink()
        if len(found) == 2:
            assert "tape-1.ndjson could not be played: No such file" in feed.reason
    assert found == [LINES[0], LINES[2], LINES[4]]
    assert (feed.state, feed.dropped_frames, feed.missing) == ("ended", 2, 2)
    assert feed.reason.startswith("replay ended; the tape ")
    assert feed.reason.endswith("tape-3.ndjson could not be played: No such file or directory, and 1 more")


async def test_a_loop_of_which_no_file_is_left_ends(tmp_path: Path) -> None:
    """With the reason, instead of turning for ever."""
    path = tmp_path / "tape.ndjson"
    path.write_bytes(b"\n".join(LINES))
    feed, found = ReplayFeed(str(path), None, loop=True), 0
    async for _ in feed:
        found += 1
        if found == 7:
            path.unlink()
    assert (found, feed.state) == (10, "ended")
    assert "tape.ndjson could not be played" in feed.reason


async def test_a_loop_begins_again(tmp_path: Path) -> None:
    """Until it is closed."""
    path = tmp_path / "tape.ndjson"
    path.write_bytes(b"\n".join(LINES))
    feed = ReplayFeed(str(path), None, loop=True)
    found = []
    async for frame in feed:
        found.append(frame.data)
        if len(found) == 12:
            await feed.close()
    assert found == (LINES * 3)[:12]


async def test_a_loop_over_an_empty_tape_ends(tmp_path: Path) -> None:
    """Instead of turning for ever."""
    path = tmp_path / "tape.ndjson"
    path.write_bytes(b"\n\n")
    feed = ReplayFeed(str(path), None, loop=True)
    assert await played(feed) == []
    assert feed.state == "ended"


async def test_the_recorded_speed_is_kept_and_multiplied(tmp_path: Path) -> None:
    """Five frames 20 ms apart take 80 ms, at four times the speed 20 ms; from event times or arrival times."""
    path = tmp_path / "tape.ndjson"
    for lines in (LINES, [write_line(b"[]", 1_000_000_000 + n * 20_000_000).strip() for n in range(5)]):
        path.write_bytes(b"\n".join(lines))
        for factor in (1.0, 4.0):
            feed = ReplayFeed(str(path), factor)
            assert not feed.lossless
            began_s = time.monotonic()
            assert len(await played(feed)) == 5
            assert 0.08 / factor - 0.005 <= time.monotonic() - began_s < 5


async def test_times_that_go_backwards_do_not_wait() -> None:
    """Late events follow at once, and what comes after them keeps its own time."""
    pace = Pace(1.0)
    began_s = time.monotonic()
    for at_ns in (1_000_000_000, 5, None, 1_010_000_000):
        await pace.until(at_ns)
    assert 0.008 < time.monotonic() - began_s < 5


async def test_closing_ends_a_waiting_replay_when_it_is_cancelled(tmp_path: Path) -> None:
    """A tape with an hour's gap does not hold the listener."""
    path = tmp_path / "tape.ndjson"
    path.write_bytes(LINES[0] + b'\n[{"ev":"T","t":1800000000000}]\n')
    task = asyncio.create_task(played(ReplayFeed(str(path), 1.0)))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("name", "events"), [("es-2023-12-25.ndjson.gz", 28_412), ("crypto-2021-04-17.ndjson.gz", None)])
def test_the_recorded_sessions_are_read_completely(name: str, events: int | None) -> None:
    """Every line is a frame with a time."""
    reader = TapeReader(tape(name))
    count = 0
    while chunk := reader.read():
        count += sum(line.data.count(b'"ev"') for line in chunk)
        assert all(line.at_ns for line in chunk)
    reader.close()
    assert reader.malformed == 0
    assert count == (events or count) > 1000


def test_a_written_tape_is_reproducible(tmp_path: Path) -> None:
    """Same arguments, same frames, whatever the compression; exactly so many events."""
    frames = []
    for suffix in ("ndjson", "ndjson.gz", "ndjson.zst"):
        path = tmp_path / f"tape.{suffix}"
        write_tape(path, symbols=50, seed=3, events=1234)
        reader = TapeReader(path)
        frames.append([line.data for line in reader.read()])
        reader.close()
    assert frames[0] == frames[1] == frames[2]
    assert sum(frame.count(b'"ev"') for frame in frames[0]) == 1234
