"""Keeps one process of the plan alive: its output goes to a bounded log file, a death is a restart.

Invariant: its output is read as long as it lives, whatever becomes of the log file: a full pipe would stop it in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from deploy.console import Lines, Story, restart_pause_s
from deploy.plan import Process
from service.errors import OperatorError
from service.tasks import Tasks

LOG_BYTES_MAX = 16 * 1024 * 1024  # then the file becomes .log.1 and a new one begins: two files a child at the most
SETTLED_S = 30.0  # who ran this long starts its next life without a pause
FIRST_DEATHS_MAX = 5  # who dies this often before ever being ready has a defect that restarting does not mend
PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


class Refused(Exception):
    """A child cannot run: `line` is for the operator, in the child's own words, `code` what we exit with."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.line = line
        self.code = code


class LogFile:
    """Bytes in, at most two files of 16 MiB out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab", buffering=0)

    def write(self, chunk: bytes) -> None:
        if self._file.tell() + len(chunk) > LOG_BYTES_MAX:
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file = self._path.open("ab", buffering=0)
        self._file.write(chunk)

    def close(self) -> None:
        self._file.close()


class Child:
    """One process of the plan: started, watched, restarted with backoff, stopped.

    `on_change` is called whenever the pid changes. `run()` ends after `stop()`, or raises Refused when the process
    refuses to start (exit code 2 or 3 and one line) or dies again and again before it ever was ready.
    """

    def __init__(self, process: Process, log_dir: Path, say: Say, on_change: Callable[[], None]) -> None:
        self.name = process.name
        self.stage = process.stage
        self.pid: int | None = None
        self.restarts = 0
        self.was_ready = False
        self._process = process
        self._log_path = log_dir / f"{process.name}.log"
        self._say = say
        self._on_change = on_change
        self._stopping = asyncio.Event()
        self._tasks = Tasks(process.name, self._deaf)
        self._log_fault = ""

    async def run(self) -> None:
        """Keep the process alive until `stop()`.  Raises: Refused."""
        deaths = 0
        log = LogFile(self._log_path)
        try:
            while not self._stopping.is_set():
                started_s = time.monotonic()
                code, story = await self._live(log)
                if self._stopping.is_set():
                    return
                deaths = 1 if time.monotonic() - started_s > SETTLED_S else deaths + 1
                self._judge(code, story, deaths)
                pause_s = restart_pause_s(deaths)
                what = "was drained" if code == 0 else f"died ({_cause(code)})"
                self._say(f"{self.name} {what}; starting it again in {pause_s:.1f} s; see {self._log_path}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._stopping.wait()
                self.restarts += 1
        finally:
            log.close()

    def stop(self) -> None:
        """Ask the process to drain and end."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process and all it started, at once."""
        self._stopping.set()
        self._signal(signal.SIGKILL, group=True)

    def _judge(self, code: int, story: Story, deaths: int) -> None:
        if story.refusal and code in (2, 3) and not self.was_ready:
            raise Refused(story.refusal, code)
        if deaths >= FIRST_DEATHS_MAX and not self.was_ready:
            for line in story.last:
                self._say(f"{self.name} | {line}")
            what = f"{self.name} died {deaths} times before it was ready ({_cause(code)})"
            raise Refused(f"tapeline run: error: {what}. See {self._log_path}.", 1)

    async def _live(self, log: LogFile) -> tuple[int, Story]:
        """Run the process once; return its exit code and what it said."""
        story = Story(self.name)
        # A pipe of our own: asyncio's would have wait() last until every grandchild has closed it.
        ours, theirs = os.pipe()
        reading = self._tasks.start("output", self._read(os.fdopen(ours, "rb", 0), log, story), ends=True)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *self._process.arguments,
                env=_environment(self._process.environment),
                stdin=asyncio.subprocess.DEVNULL, stdout=theirs, stderr=theirs,
                start_new_session=True,  # Ctrl-C in the terminal reaches us only: we stop the children in order
                preexec_fn=_die_with_parent,
            )  # fmt: skip
        finally:
            os.close(theirs)
        self.pid = process.pid
        self._on_change()
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        code = await process.wait()
        self._signal(signal.SIGKILL, group=True)  # nothing that a dead process started may keep its port
        await asyncio.wait({reading}, timeout=1)
        reading.cancel()
        self.pid = None
        self._on_change()
        return code, story

    async def _read(self, pipe: BinaryIO, log: LogFile, story: Story) -> None:
        lines, stream = Lines(), asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
        try:
            while chunk := await stream.read(65536):
                self._keep(chunk, log)
                for line in lines.feed(chunk):
                    if told := story.read(line, time.monotonic()):
                        self._say(told)
        finally:
            transport.close()

    def _keep(self, chunk: bytes, log: LogFile) -> None:
        """Write to the log; when it cannot be written, say so once and go on."""
        try:
            log.write(chunk)
        except (OSError, ValueError) as error:  # ValueError: the file stayed closed when it could not be turned
            if not self._log_fault:
                self._log_fault = str(error)
                self._say(f"{self._log_path} cannot be written: {error}")
        else:
            self._log_fault = ""

    def _deaf(self, fault: OperatorError) -> None:
        self._say(f"{self.name} is ended, nobody reads its output: {fault.what}")
        self._signal(signal.SIGKILL, group=True)

    def _signal(self, sent: signal.Signals, group: bool = False) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                (os.killpg if group else os.kill)(self.pid, sent)


def _environment(planned: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with what the plan says; a NAME_FILE of ours would contradict a planned NAME."""
    return {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in planned} | dict(planned)


def _die_with_parent() -> None:
    """Have the kernel stop the child when we are killed without a chance to do it (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
