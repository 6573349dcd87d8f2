"""Makes a standby the leader from the command line, whether its engine runs or not.

python -m engine promote [--replication async|sync]

It takes the folder's lock when no engine runs there, and asks the one that does by a file otherwise: whoever may write ENGINE_DIR
may promote. What is printed says what the standby lacks, as far as it knows.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import msgspec

from engine.core.events import SentBy, TermBegan, encode
from engine.journal.journal import open_journal
from engine.journal.sequencer import ENGINE, TERM_GAP
from engine.recovery.replay import recover
from engine.standby import role as roles
from engine.standby.role import Promotion, Role
from service.errors import OperatorError

ANSWER_S = 20.0
LOOK_S = 0.02


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `promote` takes."""
    parser.add_argument(
        "--replication", choices=["async", "sync"], default="",
        help="instead of ENGINE_REPLICATION until the engine's next start; with sync it takes commands when a standby follows it",
    )  # fmt: skip


def run(folder: Path, given: argparse.Namespace, now_ns: int) -> None:
    """Promote what is in a folder and print the outcome as one JSON line.  Raises: OperatorError."""
    found = roles.read(folder)
    if found is None or found.role != "standby":
        what = f"the leader of term {found.term}" if found and found.role == "leader" else "no standby"
        raise OperatorError(f"The engine of {folder} is {what}", "Set ENGINE_DIR as the standby has it", 2)
    if found.filling:
        what = f"The standby in {folder} does not have all of the leader's journal yet"
        raise OperatorError(what, "Wait until its /readyz says that it follows, or start the leader again", 3)
    try:
        held = roles.lock(folder)
    except OperatorError:
        done = _ask(folder, given.replication)
    else:
        try:
            done = promote_stopped(folder, found, now_ns)
        finally:
            os.close(held)
    print(json.dumps({key: value for key, value in msgspec.to_builtins(done).items() if key != "failed"}))


def promote_stopped(folder: Path, found: Role, now_ns: int) -> Promotion:
    """Begin a term in the journal of a standby that does not run.  Raises: OperatorError."""
    journal = open_journal(folder / "journal", copying=True)
    try:
        recovered = recover(folder / "journal", folder / "snapshots")
        term = max(recovered.state.term, found.term) + 1
        index = max(journal.last_index, 0) + TERM_GAP
        journal.own()
        journal.append(index, max(now_ns, recovered.time_ns), encode([SentBy(ENGINE), TermBegan(term)]))
        journal.commit()
    finally:
        journal.close()
    roles.write(folder, Role("leader", term))
    return Promotion(term=term, index=index)


def _ask(folder: Path, replication: str) -> Promotion:
    """Ask the engine that runs there; return what it answers.  Raises: OperatorError."""
    try:
        roles.write_promotion(folder, Promotion(replication))
    except OSError as error:
        raise OperatorError(f"Cannot write into {folder}: {error}", "Run it as the engine's user", 3) from None
    ends_s = time.monotonic() + ANSWER_S
    while time.monotonic() < ends_s:
        answer = roles.read_promotion(folder)
        if answer is None:  # it has begun anew meanwhile
            break
        if answer.failed:
            roles.forget_promotion(folder)
            raise OperatorError(f"The standby cannot lead: {answer.failed}", "Its log says more", 3)
        if answer.term:
            roles.forget_promotion(folder)
            return answer
        time.sleep(LOOK_S)
    roles.forget_promotion(folder)
    raise OperatorError(f"The engine of {folder} has not answered", "See in its log whether it is a standby that follows", 3)
