"""Asks the vendor for one trading day's facts, in a process of its own, for the worker that started it.

A process, not a thread: taking an answer of megabytes apart holds Python's lock for longer than prices may wait. Reads one
errand from stdin, writes lines to stdout (mdp/enrich/lines.py), and ends when it is through or stdin is closed, with its worker.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import time

from mdp.enrich.answers import BadAnswer
from mdp.enrich.client import Ask, Limited, Refused, Unanswered, official
from mdp.enrich.gathering import Gathering, Sheet
from mdp.enrich.lines import Call, Errand, Outcome, encode, read_errand, sheet_lines
from mdp.enrich.pace import Pace

NICENESS = 10  # prices come first
MEMORY_BYTES_MAX = 1 << 30  # of addresses: an answer without an end ends here, not in the machine
BAD_ANSWERS_MAX = 12  # to one question; with the pauses that is ten minutes
THROUGH, KEY_REFUSED, PASSED_OVER = 0, 4, 5  # exit codes: the last two are worth another errand later


def run(errand: Errand, ask: Ask) -> int:
    """Ask until there is nothing more to ask; return the exit code."""
    gathering, pace, bad, code = Gathering(errand.order), Pace(errand.rate), 0, THROUGH
    whole: set[Sheet] = set()
    while (question := gathering.question) is not None:
        while wait_s := pace.wait_s(time.monotonic()):
            if _closed(wait_s):
                return THROUGH
        pace.asked(time.monotonic())
        why, rows = "", gathering.bad_rows
        outcome: Outcome = "answered"
        shown: Sheet | None = None
        try:
            body = ask(errand.order, question)
            shown = gathering.take(body, time.time_ns() // 1_000_000)
        except Refused as error:
            _tell(Call(str(question), "refused", str(error)))
            if error.key:
                return KEY_REFUSED
            pace.succeeded(time.monotonic())
            gathering.pass_over()
            continue
        except (Unanswered, BadAnswer) as error:
            why, outcome = " ".join(str(error).split())[:300], _outcome(error)
            pace.failed(time.monotonic(), isinstance(error, Limited))
        _tell(Call(str(question), outcome, why, gathering.bad_rows - rows))
        bad = bad + 1 if outcome == "bad_answer" else 0
        if bad >= BAD_ANSWERS_MAX:
            gathering.pass_over()
            bad, code = 0, PASSED_OVER
        if outcome == "answered":
            pace.succeeded(time.monotonic())
        if shown is not None:
            last = gathering.finished(shown) and code == THROUGH
            _write(*sheet_lines(gathering, shown, last))
            whole |= {shown} if last else set()
    sheets: dict[Sheet, bool] = {"past": errand.order.past, "today": errand.order.today}
    for which, wanted in sheets.items():
        if wanted and which not in whole:
            _write(*sheet_lines(gathering, which, last=code == THROUGH))
    return code


def _outcome(error: Exception) -> Outcome:
    return "bad_answer" if isinstance(error, BadAnswer) else "limited" if isinstance(error, Limited) else "failed"


def _closed(seconds: float) -> bool:
    """Wait; return early, and True, when whoever started us is gone."""
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], seconds)
    return bool(ready)


def _tell(call: Call) -> None:
    _write(encode(call))


def _write(*lines: bytes) -> None:
    for line in lines:
        sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def main() -> int:
    """Run the errand on stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's, who ends us
    os.nice(NICENESS)
    with contextlib.suppress(OSError, ValueError):  # a system without this limit, or with a lower one already
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    errand = read_errand(sys.stdin.buffer.readline())
    try:
        return run(errand, official(errand.key, errand.url))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it at its end
        return THROUGH


if __name__ == "__main__":
    sys.exit(main())
