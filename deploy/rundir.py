"""Allows one run at a time in RUN_DIR, assigns its ports, and writes local.json with what is running."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.plan import claims, clash
from deploy.settings import LocalSettings
from service.admin import bind
from service.errors import OperatorError


@contextlib.contextmanager
def occupied(run_dir: Path) -> Iterator[None]:
    """Hold `run_dir` for this process; the kernel lets go when the process ends, however it ends.

    Raises: OperatorError when another run holds it, or the directory cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = (run_dir / "local.lock").open("a")
    except OSError as error:
        what = f"RUN_DIR={str(run_dir)!r}: {(error.strerror or str(error)).lower()}"
        raise OperatorError(what, "Set RUN_DIR to a directory you may write") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OperatorError(*_running(run_dir)) from None
        yield


def _running(run_dir: Path) -> tuple[str, str]:
    found = read(run_dir)
    where = f" at http://127.0.0.1:{found['ports']['SCP_PORT']}" if "ports" in found else ""
    what = f"Tapeline already runs in {run_dir} (process {found.get('pid', '?')}){where}"
    return what, "Stop it with Ctrl-C in its terminal, or set RUN_DIR and the ports for a second one"


def assign(settings: LocalSettings) -> dict[str, int]:
    """Return a free port for every variable; the ones asked for by number are checked.

    Raises: OperatorError naming the taken port and the variable that moves it.
    """
    asked = claims(settings)
    if (pair := clash(asked)) is not None:
        first, second = pair
        what = f"{first.variable} and {second.variable} are both {first.port}"
        raise OperatorError(what, f"Set {second.variable} to another port")
    names = ["SCP_PORT", "WDS_PORT", "MDL_ADMIN_PORT", "MDP_ADMIN_PORT", "WDS_ADMIN_PORT", "SCP_ADMIN_PORT", "MDC_EMBEDDED_PORT"]
    names += [f"MDP_ADMIN_PORT_{worker}" for worker in range(1, settings.mdp_workers)]
    names += ["ENGINE_PORT", "ENGINE_ADMIN_PORT", "BOTS_ADMIN_PORT"] if "engine" in settings.sources else []
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as held:  # all at once, or the second free port could be the first again
        for claim in asked:
            held.enter_context(bind("127.0.0.1", claim.port, claim.variable))
            ports.setdefault(claim.variable, claim.port)
        if "WDS_ADMIN_PORT" not in ports:
            ports["WDS_ADMIN_PORT"] = _free_row(settings.wds_workers, held)
        for name in names:
            if name not in ports:
                ports[name] = held.enter_context(bind("127.0.0.1", 0, name)).getsockname()[1]
    return ports


def _free_row(length: int, held: contextlib.ExitStack) -> int:
    """Return the first of `length` free ports in a row."""
    for _ in range(100):
        with contextlib.ExitStack() as tried, contextlib.suppress(OperatorError):
            first = tried.enter_context(bind("127.0.0.1", 0, "WDS_ADMIN_PORT")).getsockname()[1]
            for port in range(first + 1, first + length):
                tried.enter_context(bind("127.0.0.1", port, "WDS_ADMIN_PORT"))
            held.enter_context(tried.pop_all())
            return int(first)
    raise OperatorError(f"there are no {length} free ports in a row", "Set WDS_ADMIN_PORT to the first of them")


def write(run_dir: Path, facts: dict[str, Any]) -> None:
    """Replace RUN_DIR/local.json: pids, ports and restarts of this run."""
    new = run_dir / "local.json.new"
    new.write_text(json.dumps({"pid": os.getpid(), **facts}, indent=1) + "\n")
    new.replace(run_dir / "local.json")


def read(run_dir: Path) -> dict[str, Any]:
    """Return what `write` wrote, or nothing when there is no such file."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((run_dir / "local.json").read_text())
        return found if isinstance(found, dict) else {}
    return {}


def forget(run_dir: Path) -> None:
    """Remove local.json: nothing runs here any more."""
    (run_dir / "local.json").unlink(missing_ok=True)
