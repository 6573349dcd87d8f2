"""Plays a recorded tape: at the recorded speed, k times that, or as fast as its frames are taken (then lossless).

Bad lines are counted and sampled, never fatal; a file that breaks off is played as far as it can be read; one that is gone
when its turn comes is counted and named, and the next one is played.
"""

from __future__ import annotations

import asyncio
import glob
import gzip
import io
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import structlog
import zstandard

from mdl.feeds.feed import Frame, State
from mdl.tapes.clock import TapeClock
from mdl.tapes.format import BadLine, TapeLine, read_line
from service.errors import OperatorError

CHUNK_BYTES = 256 * 1024  # read and parsed in one go by a thread, so that the loop never waits for the disk
LINE_BYTES_MAX = 16 * 1024 * 1024
SAMPLES_MAX = 10
BROKEN = (EOFError, OSError, zlib.error, zstandard.ZstdError)
SUFFIXES = (".ndjson", ".jsonl", ".json", ".gz", ".zst")
FIX = "Set MDL_TAPE to a readable .ndjson, .ndjson.gz or .ndjson.zst file, a folder of them or a pattern"
log = structlog.get_logger()


class ReplayFeed:
    """Frames of one tape (or of a folder's tapes in name order). `factor` None plays as fast as possible."""

    patient = False

    def __init__(self, tape: str, factor: float | None, loop: bool = False, market: str = "stocks") -> None:
        self.name = "replay"
        self.market = market
        self.subscriptions: tuple[str, ...] = ("*",)
        self.lossless = factor is None
        self.state: State = "connecting"
        self.reason = ""
        self.reconnects = 0
        self.malformed = 0
        self.dropped_frames = 0
        self.ailing = ""
        self.missing = 0  # files that could not be opened when their turn came
        self.tapes = find_tapes(tape)
        self.played_bytes = 0  # of the files as they are on disk, in this round
        self.size_bytes = sum(path.stat().st_size for path in self.tapes)
        self._factor = factor
        self._loop = loop
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[Frame]:
        while not self._closed:
            pace = Pace(self._factor) if self._factor else None
            frames = 0
            clock, run = TapeClock(), time.time_ns() // 1_000_000
            self.played_bytes = 0
            self.state = "live"
            for path in self.tapes:
                async for line in self._lines(path, clock):
                    if pace is not None:
                        await pace.until(line.at_ns)
                    if self._closed:
                        return
                    frames += 1
                    yield Frame(line.data, time.time_ns(), line.at_ns, run)
            if not self._loop or not frames:
                break
        self.state = "ended"
        self.reason = f"replay ended; {self.reason}" if self.reason else "replay ended"

    async def close(self) -> None:
        self._closed = True

    async def _lines(self, path: Path, clock: TapeClock) -> AsyncIterator[TapeLine]:
        """Yield the lines of a file with the tape's clock instead of their own times."""
        try:
            reader = await asyncio.to_thread(TapeReader, path)
        except OSError as error:  # deleted, moved or locked since the start
            self._miss(path, error)
            return
        before = self.played_bytes
        try:
            while chunk := await asyncio.to_thread(reader.read):
                for line, at_ns in zip(chunk, clock.read([line.at_ns for line in chunk]), strict=True):
                    yield TapeLine(line.data, at_ns)
                self.played_bytes = before + reader.position
        finally:
            self.malformed += reader.malformed
            await asyncio.to_thread(reader.close)

    def _miss(self, path: Path, error: OSError) -> None:
        self.dropped_frames += 1  # nobody knows how many: one hole
        self.missing += 1
        why = error.strerror or str(error)
        others = f", and {self.missing - 1} more" if self.missing > 1 else ""
        self.reason = f"the tape {path} could not be played: {why}{others}"
        if self.missing <= SAMPLES_MAX:
            log.error("tape_missing", tape=str(path), error=why, missing=self.missing, played="what follows it")


class Pace:
    """Recorded times in, waiting out; a time that goes backwards does not wait and does not move the clock back."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._first_ns: int | None = None
        self._began_s = 0.0

    async def until(self, at_ns: int | None) -> None:
        """Wait until it is `at_ns`'s turn; frames without a time follow their predecessor at once."""
        if at_ns is None:
            return
        if self._first_ns is None:
            self._first_ns, self._began_s = at_ns, time.monotonic()
            return
        due_s = self._began_s + (at_ns - self._first_ns) / 1e9 / self._factor
        pause_s = due_s - time.monotonic()
        if pause_s > 0.001:
            await asyncio.sleep(pause_s)


class TapeReader:
    """One file's lines in chunks. Blocking: call it from a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.malformed = 0
        self.lines = 0
        self._raw = path.open("rb", buffering=CHUNK_BYTES)
        self._file = _decoded(path, self._raw)
        self._ended = False

    @property
    def position(self) -> int:
        """Return how many bytes of the file, packed as it is, have been read."""
        return self._raw.tell()

    def read(self) -> list[TapeLine]:
        """Return the next frames; an empty list is the end."""
        frames: list[TapeLine] = []
        size = 0
        while not self._ended and size < CHUNK_BYTES:
            line = self._readline()
            size += len(line)
            if line.strip():
                self._take(line, frames)
        return frames

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def _take(self, line: bytes, frames: list[TapeLine]) -> None:
        try:
            frames.append(read_line(line))
        except BadLine as error:
            self.malformed += 1
            if self.malformed <= SAMPLES_MAX:
                sample = line[:120].decode(errors="replace").strip()
                log.warning("tape_bad_line", tape=str(self.path), line=self.lines, error=str(error), sample=sample)

    def _readline(self) -> bytes:
        try:
            line = self._file.readline(LINE_BYTES_MAX)
        except BROKEN as error:
            log.warning("tape_breaks_off", tape=str(self.path), line=self.lines, error=str(error), played="what could be read")
            line = b""
        self.lines += 1
        self._ended = not line
        return line


def find_tapes(tape: str) -> list[Path]:
    """Return the files of a path, folder or pattern in name order.  Raises: OperatorError naming what cannot be read."""
    path = Path(tape)
    if path.is_dir():
        paths = sorted(item for item in path.iterdir() if item.is_file() and item.name.endswith(SUFFIXES))
    elif path.exists():
        paths = [path]
    else:
        paths = sorted(Path(item) for item in glob.glob(tape))
    if not paths:
        what = f"the folder {tape} holds no tape" if path.is_dir() else f"the tape {tape} does not exist"
        raise OperatorError(what, FIX)
    for item in paths:
        _probe(item)
    return paths


def _probe(path: Path) -> None:
    """Read the first line, so that a file of another kind is told at once and not in the middle of a replay."""
    try:
        with path.open("rb") as raw, _decoded(path, raw) as file:
            file.readline(4096)
    except BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OperatorError(f"the tape {path} cannot be read: {reason}", FIX) from None


def _decoded(path: Path, raw: BinaryIO) -> BinaryIO:
    if path.name.endswith(".gz"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="rb"))  # its own buffer gives out all that precedes a broken end
    if path.name.endswith(".zst"):
        stream = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return cast(BinaryIO, io.BufferedReader(stream, CHUNK_BYTES))
    return raw


def read_all(path: Path) -> Iterator[TapeLine]:
    """Return all frames of one file (tests, benchmarks)."""
    reader = TapeReader(path)
    try:
        while chunk := reader.read():
            yield from chunk
    finally:
        reader.close()
