"""Records raw frames with their arrival times to rotated zst tapes; the feed never waits for the disk.

Bounds: what waits for the disk in bytes (then frames are dropped and counted), a file in bytes and seconds, all
recordings in bytes. A full disk, or the bound, or a defect of the thread stops the recording and says so in `reason` until
somebody stops or starts it; nothing is ever deleted here.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

import structlog
import zstandard

from mdl.feeds.feed import Frame
from mdl.tapes.format import write_line

FLUSH_S = 1.0  # at most so much is lost when the machine dies
LEVEL = 3
log = structlog.get_logger()


class Bounds(NamedTuple):
    """Bytes are compressed ones, except those that wait."""

    file_bytes: int
    file_s: float
    total_bytes: int
    waiting_bytes: int


class Recorder:
    """Records between `start()` and `stop()`. `record()` costs an append; a thread of its own compresses and writes."""

    def __init__(self, folder: Path, bounds: Bounds) -> None:
        self.folder = folder
        self.recorded_frames = 0
        self.dropped_frames = 0
        self.written_bytes = 0
        self.reason = ""
        self._bounds = bounds
        self._waiting: deque[Frame] = deque()
        self._taken_bytes = 0  # written by the loop only
        self._done_bytes = 0  # written by the thread only: two counters need no lock
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._stopping = False

    @property
    def recording(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._stopping

    def start(self, prefix: str = "tape") -> None:
        """Begin a new file whose name starts with `prefix`.  Raises: OSError when the folder cannot be written."""
        if self.recording:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tape = _Tape(self.folder, prefix)
        self._stopping, self.reason = False, ""
        self._waiting.clear()
        self._taken_bytes = self._done_bytes = 0
        self._thread = threading.Thread(target=self._run, args=(tape,), name="recorder", daemon=True)
        self._thread.start()
        log.info("recording_started", folder=str(self.folder))

    def record(self, frame: Frame) -> None:
        """Take a frame; dropped and counted when the disk does not keep up."""
        if self._stopping or self._taken_bytes - self._done_bytes + len(frame.data) > self._bounds.waiting_bytes:
            self.dropped_frames += 1
            return
        self._taken_bytes += len(frame.data)
        self._waiting.append(frame)

    def stop(self) -> None:
        """Write what waits and close the file. Blocking, a moment."""
        thread, self._stopping = self._thread, True
        self._wake.set()
        if thread is not None:
            thread.join()
        self._thread, self.reason = None, ""
        self._wake.clear()

    def _run(self, tape: _Tape) -> None:
        try:
            self._write(tape)
        except OSError as error:
            self._give_up(f"the recording stopped: {error.strerror or error}")
        except Exception as error:
            log.exception("recorder_failed")
            self._give_up(f"the recording stopped: {error!r}")
        finally:
            tape.close()

    def _write(self, tape: _Tape) -> None:
        while True:
            last = self._stopping
            self._drain(tape)
            tape.flush()
            self.written_bytes = tape.total_bytes
            if last:
                return
            if tape.folder_bytes >= self._bounds.total_bytes:
                self._give_up(f"the recording stopped: {self.folder} holds {tape.folder_bytes} bytes, its bound")
                return
            self._wake.wait(FLUSH_S)

    def _drain(self, tape: _Tape) -> None:
        while self._waiting:
            frame = self._waiting.popleft()
            self._done_bytes += len(frame.data)
            tape.write(write_line(frame.data, frame.received_ns))
            self.recorded_frames += 1
            if tape.file_bytes >= self._bounds.file_bytes or tape.age_s >= self._bounds.file_s:
                tape.turn()

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self._stopping = True
        self._waiting.clear()
        log.error("recording_stopped", reason=reason, folder=str(self.folder))


class _Tape:
    """The file being written; `turn()` begins the next one."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder = folder
        self._prefix = prefix
        self._closed_bytes = 0
        self._before_bytes = sum(item.stat().st_size for item in folder.glob("*.ndjson.zst"))
        self.total_bytes = 0
        self._open()

    @property
    def file_bytes(self) -> int:
        return self._file.tell()

    @property
    def folder_bytes(self) -> int:
        return self._before_bytes + self.total_bytes

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._began_s

    def write(self, line: bytes) -> None:
        self._zst.write(line)

    def flush(self) -> None:
        """Make everything written so far readable, even if the process dies now."""
        self._zst.flush(zstandard.FLUSH_BLOCK)
        self._file.flush()
        self.total_bytes = self._closed_bytes + self._file.tell()

    def turn(self) -> None:
        """Close this file and begin the next one."""
        self.close()
        self._open()

    def close(self) -> None:
        """End the file; what cannot be written any more is given up."""
        with contextlib.suppress(OSError):
            self._zst.flush(zstandard.FLUSH_FRAME)
        with contextlib.suppress(OSError):
            self._file.close()
        self._closed_bytes += self._path.stat().st_size
        self.total_bytes = self._closed_bytes

    def _open(self) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        self._path = self._folder / f"{self._prefix}-{stamp}.ndjson.zst"
        self._file: BinaryIO = self._path.open("xb")
        self._zst = zstandard.ZstdCompressor(level=LEVEL).stream_writer(self._file)
        self._began_s = time.monotonic()
