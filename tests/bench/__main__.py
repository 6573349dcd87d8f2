"""Runs benchmarks and prints their JSON lines, each completed with machine, versions and commit.

`python -m tests.bench` runs every benchmark of this folder's rooms one after the other, `python -m tests.bench listener` one;
`--profile` also says which functions of which process took the time (py-spy, 100 samples a second).
A benchmark is a module with a docstring that is run as `python -m tests.bench.<room>.<name>` in a process of its own, so that none
inherits another's heap or warm caches; whatever it prints on stdout that is not a JSON object is moved to stderr.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.bench import spy

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
MATTERS = ("aio-pika", "aiormq", "redis", "hiredis", "websockets", "uvloop", "msgspec", "orjson", "fakeredis")


def names() -> list[str]:
    """Return the benchmarks: what can be run in the rooms; workloads that several of them share cannot."""
    files = [path for path in FOLDER.glob("*/*.py") if not path.stem.startswith(("_", "test_"))]
    return sorted(path.stem for path in files if '__name__ == "__main__"' in path.read_text())


def module(name: str, tree: Path = ROOT) -> str:
    """Return what Python calls a benchmark of `tree`; other revisions had no rooms, or others."""
    [path] = (tree / "tests" / "bench").rglob(f"{name}.py")
    return ".".join(path.relative_to(tree).with_suffix("").parts)


def main(asked: list[str]) -> int:
    """Run the benchmarks; return how many of them failed."""
    if "--profile" in asked:
        asked = [name for name in asked if name != "--profile"]
        os.environ[spy.ASKED] = "1"  # the benchmarks look for it, too: they know when the stretch begins that counts
        spy.program()
    known = names()
    if unknown := [name for name in asked if name not in known]:
        print(f"tapeline bench: error: no benchmark {', '.join(unknown)}. There are: {', '.join(known)}.", file=sys.stderr)
        return 2
    facts = machine()
    failed = [name for name in asked or known if not run(name, facts)]
    if failed:
        print(f"tapeline bench: error: {', '.join(failed)} failed. See the lines above.", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, facts: dict[str, Any]) -> bool:
    """Run one benchmark, passing its JSON lines on as they come; return whether it ended well."""
    print(f"bench {name} …", file=sys.stderr, flush=True)
    began_s = time.monotonic()
    argv = [sys.executable, "-m", module(name)]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        own = spy.Spy(process.pid, Path(folder) / "bench.folded") if spy.asked() else None
        lines = sum(pass_on(line, name, facts) for line in process.stdout or ())
        code = process.wait()
        if own is not None:
            print(json.dumps({"bench": name, **spy.profile_line("benchmark", own.end()), **facts}), flush=True)
    print(f"bench {name}: {lines} results in {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    return code == 0 and lines > 0


def pass_on(line: str, name: str, facts: dict[str, Any]) -> bool:
    """Print a result line on stdout, completed, and anything else on stderr; return whether it was a result."""
    found = result(line)
    if found is None:
        print(line, end="", file=sys.stderr, flush=True)
    else:
        print(json.dumps({"bench": name, **found, **facts}), flush=True)
    return found is not None


def result(line: str) -> dict[str, Any] | None:
    """Return the JSON object of a line, or None when it holds none."""
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def machine() -> dict[str, Any]:
    """Return what figures depend on: processor, cores, memory, versions, commit."""
    versions = {"python": platform.python_version()}
    for name in MATTERS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    about = {"cpu": processor(), "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"machine": {**about, "memory_gib": round(memory / 2**30, 1), "system": platform.platform()},
            "versions": versions, "commit": commit(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip


def processor() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """Return the commit that is measured, with a + when files differ from it."""
    argv = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
