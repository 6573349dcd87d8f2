"""Checks the tree against the house rules: what may import what, what must be pure, how large, how named.

A rule is broken only by an entry in one of the tables below, and every entry says why.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from service import VERSION
from tests.packages import BY_EXTRA, IMPORTED_AS, ONLY_WHEN_THERE
from tests.shells import SHELLS

ROOT = Path(__file__).resolve().parent.parent

# folder → what it may import of ours; the data flows mdl → mdq → mdp → mdc → wds, and service/ is under all of them
MAY_IMPORT = {
    "service": set(),
    "mdq": {"service"},
    "mdl": {"mdq", "service"},
    "mdc": {"service"},
    "mdp": {"mdq", "mdc", "service"},
    "wds": {"mdc", "service"},
    "scp": {"mdc", "service"},
    "engine": {"service", "mdq"},
    "deploy": {"service", "mdq", "mdl", "mdc", "mdp", "wds", "scp", "engine"},
}
PACKAGES = tuple(MAY_IMPORT)

# A room of a folder → the rooms beside it that it may import, bottom up. What lies in the folder itself wires the rooms, so a room
# imports of it only what `UNDER_ALL_ROOMS` names.
CORE = {"core"}
STAGES = {"journal", *CORE}
ROOMS: dict[str, dict[str, set[str]]] = {
    "engine": {
        "core": set(),
        "access": set(),
        "journal": CORE,
        "stores": STAGES,
        "recovery": STAGES,
        "risk": STAGES,
        "standby": {"access", "recovery", *STAGES},
        "backup": {"recovery", "standby", *STAGES},
        "gateway": {"access", "stores", "risk", "standby", *STAGES},
        "orders": {"access", "stores", "risk", *STAGES},
        "streams": {"stores", "recovery", *STAGES},
        "oms": set(),
        "bots": set(),
    },
    "scp": {
        "apps": {"api", "security"},
        "store": set(),
        "security": {"store"},
        "fleet": {"security", "store"},
        "reference": {"fleet", "security", "store"},
        "api": {"reference", "fleet", "security", "store"},
        "ctl": {"api", "security"},
    },
    "wds": {
        "fanout": set(),
        "access": set(),
        "session": {"fanout", "access"},
        "compat": {"session", "fanout", "access"},
        "transport": {"compat", "session", "fanout", "access"},
        "client": {"access"},
    },
}
# Shapes, which import nothing but shapes: clients of the engine know nothing else of it.
SHAPES = {
    "engine/core/commands.py": "what may be asked",
    "engine/core/units.py": "decimals and ticks, times",
    "engine/stores/messages.py": "what consumers are told",
}
UNDER_ALL_ROOMS = {
    "engine": set(SHAPES),
    "scp": {"scp/problems.py", "scp/settings.py", "scp/desk.py"},
    "wds": {"wds/protocol.py", "wds/settings.py", "wds/meter.py"},
}
ALSO = {
    "engine/orders": {"engine/gateway/order_bodies.py"},  # order messages have the fields of the gateway's bodies
    "scp/api": {"scp/control.py", "scp/tokens.py"},  # the parts that handlers work with; what a stream token may open
}

# Pure code gets time, dice, bytes and limits as arguments; whoever imports one of these is a shell.
IMPURE = {
    "asyncio", "socket", "socketserver", "select", "selectors", "ssl", "time", "random", "secrets", "threading", "subprocess",
    "multiprocessing", "signal", "http", "urllib.request", "redis", "fakeredis", "aio_pika", "aiormq", "websockets", "massive",
    "uvicorn", "uvloop", "litestar", "gunicorn", "py4web", "httpx", "requests", "resource", "shutil", "tempfile",
}  # fmt: skip
IMPURE_NAMES = {"os.environ", "os.getenv", "os.getpid", "os.kill", "datetime.now", "datetime.utcnow", "date.today"}

# A Future or a Protocol of coroutines is a type, not I/O: these import only such names from asyncio.
TYPES_ONLY: dict[str, str] = {"mdq/broker.py": "the contract names asyncio.Future"}
TYPES = {"asyncio.Future", "asyncio.Task", "asyncio.AbstractEventLoop"}
SEEDED = "random.Random"  # dice that come with their seed are an argument like any other

# A module is tested by the test module of its name, or is imported by some test; these are reached in another way.
TESTED_THROUGH: dict[str, str] = {
    "scp/api/calls.py": "tests/scp/api/test_authority.py",
    "scp/api/identity.py": "tests/scp/security/test_provider.py",
    "scp/api/federation.py": "tests/scp/security/test_provider.py",
    "scp/security/federated.py": "tests/scp/security/test_provider.py",
    "scp/api/me.py": "tests/scp/api/test_ways_in.py",
    "scp/api/openapi.py": "tests/scp/api/test_authority.py",
    "scp/api/people.py": "tests/scp/api/test_authority.py",
    "scp/api/clients.py": "tests/live/test_operations.py",
    "scp/api/components.py": "tests/live/test_operations.py",
    "scp/api/company.py": "tests/scp/reference/test_desk.py",
    "scp/api/exchange.py": "tests/live/test_operations.py",
    "scp/api/letters.py": "tests/live/test_operations.py",
    "scp/api/listeners.py": "tests/live/test_operations.py",
    "scp/api/paper.py": "tests/scp/fleet/test_paper.py",
    "scp/store/paper_accounts.py": "tests/scp/fleet/test_paper.py",
    "scp/api/queues.py": "tests/live/test_operations.py",
    "scp/api/repeats.py": "tests/live/test_operations.py",
    "scp/api/stores.py": "tests/live/test_operations.py",
    "scp/api/streams.py": "tests/live/test_operations.py",
    "scp/fleet/errands.py": "tests/scp/fleet/test_fleet.py",
    "scp/fleet/remote.py": "tests/scp/fleet/test_fleet.py",
    "scp/store/layouts.py": "tests/scp/api/test_layouts.py",
    "scp/api/stream_keys.py": "tests/scp/api/test_authority.py",
    "scp/api/signing.py": "tests/scp/api/test_ways_in.py",
}

# Modules that import each other, directly or through others of the same entry.
CIRCLES: dict[frozenset[str], str] = {}

LINES_MAX, FUNCTION_LINES_MAX = 600, 70
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "enums"}
# Paths of one machine and hosts of one network have no place in a checkout that others clone.
NOT_PORTABLE = re.compile(
    r"(?<![\w.])/(?:work|root|home/\w+|opt/wheels)/|--(?:extra-)?index-url|--find-links|pip\.conf|registry\.npmjs|files\.pythonhosted"
)
PORTABLE_ANYWAY: dict[str, str] = {
    "tests/test_layout.py": "names what it looks for",
    "scp/web/package-lock.json": "npm writes the public registry's addresses into its lock",
}


@cache
def tracked() -> tuple[str, ...]:
    """Return the files of the checkout: committed ones and new ones that are not ignored."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive has no .git
        skipped = {".venv", ".run", "node_modules", "__pycache__", ".git", "build", "dist"}
        listed = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if not skipped & set(p.relative_to(ROOT).parts)]
    return tuple(sorted(name for name in set(listed) if name and (ROOT / name).is_file()))


def modules() -> list[str]:
    """Return the Python files of the packages."""
    return [name for name in tracked() if name.endswith(".py") and name.split("/")[0] in PACKAGES]


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(), name)


def imports(name: str) -> Iterator[str]:
    """Yield the dotted names that a file imports, wherever in the file."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split("/")[: -node.level] if node.level else []
            yield from (".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names)


def imported_modules(name: str) -> set[str]:
    """Return the files of ours that a file imports; a package is its `__init__.py`."""
    files = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in modules()}
    found = {files.get(dotted) or files.get(dotted.rpartition(".")[0]) for dotted in imports(name)}
    return {path for path in found if path is not None and path != name}


def circles(graph: dict[str, set[str]]) -> list[frozenset[str]]:
    """Return the groups of nodes that reach each other."""
    reach = {start: reachable(graph, start) for start in graph}
    return list({frozenset(n for n in reach[start] if start in reach[n]) for start in graph if start in reach[start]})


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return the nodes that a walk of one step or more from `start` reaches."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        if (node := waiting.pop()) not in found:
            found.add(node)
            waiting += graph[node]
    return found


def impurities(name: str) -> set[str]:
    """Return what makes a file a shell: impure imports and reads of the environment or the clock."""
    used = [dotted for dotted in imports(name) if dotted != SEEDED]
    found = {root for dotted in used for root in IMPURE if dotted == root or dotted.startswith(f"{root}.")}
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            found |= {f"{owner}.{node.attr}"} & IMPURE_NAMES
    return found


def breaches(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_folder_imports_only_what_lies_below_it(folder: str) -> None:
    """Data flows one way, and so do imports."""
    allowed = MAY_IMPORT[folder] | {folder}
    breaches([
        f"{name} imports {dotted}: {folder}/ may import {sorted(allowed)}"
        for name in modules()
        if name.startswith(f"{folder}/")
        for dotted in imports(name)
        if (dotted.split(".")[0] in MAY_IMPORT or dotted.split(".")[0] == "tests") and dotted.split(".")[0] not in allowed
    ])  # fmt: skip


def room(name: str) -> str:
    """Return the room of a file in its folder, empty for what lies beside the rooms."""
    return name.split("/")[1] if name.count("/") > 1 else ""


@pytest.mark.parametrize(("folder", "own"), [(folder, own) for folder, rooms in ROOMS.items() for own in rooms])
def test_a_room_imports_only_rooms_below_it(folder: str, own: str) -> None:
    """Inside a folder imports run one way, too: a room knows nothing of the rooms that use it."""
    below, files = {own, *ROOMS[folder][own]}, UNDER_ALL_ROOMS[folder] | ALSO.get(f"{folder}/{own}", set())
    breaches([
        f"{name} imports {imported}: {folder}/{own}/ may import {sorted(below)}"
        for name in modules()
        if name.startswith(f"{folder}/{own}/")
        for imported in imported_modules(name)
        if imported.startswith(f"{folder}/") and room(imported) not in below and imported not in files
    ])  # fmt: skip


@pytest.mark.parametrize("folder", ROOMS)
def test_the_rooms_of_a_folder_are_known(folder: str) -> None:
    """A new room gets its place in the table."""
    assert {room(name) for name in modules() if name.startswith(f"{folder}/")} == {"", *ROOMS[folder]}


def test_beside_the_rooms_of_the_engine_lies_the_wiring_alone() -> None:
    """Whatever else there is belongs into a room."""
    beside = {Path(name).stem for name in modules() if name.startswith("engine/") and not room(name)}
    assert beside == {"__init__", "__main__", "serve", "settings"}


def test_the_core_of_the_engine_imports_nothing_of_ours() -> None:
    """Not even what all folders share."""
    core = [name for name in modules() if name.startswith("engine/core/")]
    breaches(
        [f"{name} imports {other}" for name in core for other in imported_modules(name) if not other.startswith("engine/core/")]
    )


def test_shapes_import_nothing_but_shapes() -> None:
    """Else a client would get the core with them."""
    breaches([
        f"{name} imports {imported}" for name in SHAPES for imported in imported_modules(name) if imported not in SHAPES
    ])  # fmt: skip


def test_the_core_of_the_engine_does_no_io() -> None:
    """No file of it is excused as a shell."""
    breaches([name for name in (SHELLS | TYPES_ONLY) if name.startswith("engine/core/")])


def test_no_modules_import_each_other_in_a_circle() -> None:
    """A circle is one module in several files; imports inside functions and behind TYPE_CHECKING count like all others."""
    found = circles({name: imported_modules(name) for name in modules()})
    breaches([f"{' ↔ '.join(sorted(circle))} import each other in a circle" for circle in found if circle not in CIRCLES])
    breaches([f"{' ↔ '.join(sorted(circle))} needs no entry any more" for circle in CIRCLES if circle not in found])


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [{"a", "b"}]),
        ({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d"}}, [{"a", "b", "c"}, {"d", "e"}]),
    ],
)
def test_circles_are_found(graph: dict[str, set[str]], expected: list[set[str]]) -> None:
    """Of any length, and several at once."""
    assert sorted(map(sorted, circles(graph))) == sorted(map(sorted, expected))


def test_every_file_is_pure_unless_it_is_a_listed_shell() -> None:
    """Time, dice, sockets and the environment are arguments everywhere but in the shells."""
    excused = SHELLS.keys() | TYPES_ONLY.keys()
    breaches([f"{name} uses {sorted(found)}" for name in modules() if name not in excused and (found := impurities(name))])


def test_the_list_of_shells_is_current() -> None:
    """A shell that is gone, or has become pure, leaves the list."""
    listed = [name for name in (SHELLS | TYPES_ONLY) if name not in modules() or not impurities(name)]
    breaches([f"{name} needs no entry any more" for name in listed])


def test_an_excuse_for_types_covers_types_only() -> None:
    """A file excused for naming types calls nothing of asyncio."""
    breaches([
        f"{name} imports {dotted}"
        for name in TYPES_ONLY
        for dotted in imports(name)
        if dotted.split(".")[0] in IMPURE and dotted not in TYPES
    ])  # fmt: skip


def test_every_module_is_tested() -> None:
    """tests/ mirrors the folders: mdq/batch.py is tested in tests/mdq/test_batch.py, or at least imported by some test."""
    tests = [name for name in tracked() if name.startswith("tests/") and name.endswith(".py")]
    used = {dotted for name in tests for dotted in imports(name)}
    found = []
    for name in modules():
        path, dotted = Path(name), name.removesuffix(".py").replace("/", ".")
        mirrored = f"tests/{path.parent}/test_{path.name}" in tests
        imported = any(other == dotted or other.startswith(f"{dotted}.") for other in used)
        if path.name in ("__init__.py", "__main__.py") or mirrored or imported:
            continue
        if TESTED_THROUGH.get(name) not in tests:
            found.append(f"{name}: there is no tests/{path.parent}/test_{path.name} and no test imports it")
    breaches(found + [f"{name} needs no entry any more" for name in TESTED_THROUGH if name not in modules()])


def test_files_and_functions_stay_small() -> None:
    """Past 600 lines a file, past 70 a function, something wants to be separate."""
    found = []
    for name in [*modules(), *(n for n in tracked() if n.startswith("tests/") and n.endswith(".py"))]:
        lines = (ROOT / name).read_text().count("\n")
        if lines > LINES_MAX and name not in LONG_FILES:
            found.append(f"{name} has {lines} lines")
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > FUNCTION_LINES_MAX and f"{name}:{node.name}" not in LONG_FUNCTIONS:
                    found.append(f"{name}:{node.name} has {size} lines")
    breaches(found)


def test_every_module_says_what_it_does() -> None:
    """A file opens with one plain sentence, not with a formula ("… in, … out")."""
    everything = [name for name in tracked() if name.endswith(".py") and name.split("/")[0] in (*PACKAGES, "tests")]
    breaches([
        f"{name} has no module docstring"
        for name in everything
        if (ROOT / name).read_text().strip() and not ast.get_docstring(tree_of(name))
    ])  # fmt: skip
    riddle = re.compile(r"\bin[,;:] .* out\b")
    breaches([
        f"{name} opens with a formula"
        for name in everything
        if riddle.search((ast.get_docstring(tree_of(name)) or "").split("\n")[0])
    ])  # fmt: skip


def test_every_test_says_its_behaviour() -> None:
    """The first line of a test is a sentence of behaviour."""
    found = []
    for name in tracked():
        if name.startswith("tests/") and Path(name).name.startswith("test_") and name.endswith(".py"):
            for node in ast.walk(tree_of(name)):
                is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
                if is_test and not ast.get_docstring(node):
                    found.append(f"{name}:{node.name} has no docstring")
    breaches(found)


def test_no_file_is_named_after_nothing() -> None:
    """A file is a noun of the domain; utils and its kin say nothing."""
    breaches([name for name in tracked() if {Path(part).stem for part in name.split("/")} & FORBIDDEN_NAMES])


def test_every_folder_has_a_readme() -> None:
    """A newcomer finds in each folder what flows in and out and what is decided."""
    breaches([f"{folder}/README.md is missing" for folder in PACKAGES if f"{folder}/README.md" not in tracked()])


def test_nothing_depends_on_one_machine() -> None:
    """No path of a machine and no address of a package registry is committed."""
    found = []
    for name in tracked():
        if name in PORTABLE_ANYWAY:
            continue
        raw = (ROOT / name).read_bytes()
        if b"\0" in raw[:8192]:
            continue
        for number, line in enumerate(raw.decode(errors="replace").splitlines(), 1):
            if hit := NOT_PORTABLE.search(line):
                found.append(f"{name}:{number}: {hit.group()}")
    breaches(found)


def test_the_locks_hold_every_package_by_hash() -> None:
    """Every pinned package carries a hash, and the run lock is part of the development lock."""
    pins = {}
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        entries = re.findall(r"^([a-z0-9][\w.-]*(?:\[\w+\])?==[^\s\\;]+)", text, re.MULTILINE)
        unhashed = [e for e in re.split(r"\n(?=[a-z0-9])", text) if "==" in e.split("\n")[0] and "--hash=sha256:" not in e]
        assert entries
        assert not unhashed
        pins[lock] = set(entries)
    assert pins["requirements.lock"] <= pins["requirements-dev.lock"]


def test_image_and_chart_have_the_package_s_version() -> None:
    """It stands in service/__init__.py; two files that cannot read Python repeat it."""
    assert f"ARG VERSION={VERSION}\n" in (ROOT / "deploy/Dockerfile").read_text()
    chart = (ROOT / "helm/tapeline/Chart.yaml").read_text()
    assert f"\nversion: {VERSION}\n" in chart
    assert f'\nappVersion: "{VERSION}"\n' in chart


def test_every_package_that_is_imported_is_declared_and_locked() -> None:
    """What another package happens to bring along may be gone with its next release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    used = {dotted.split(".")[0] for name in modules() for dotted in imports(name)}
    used_in_tests = {dotted.split(".")[0] for name in tracked() if name.endswith(".py") for dotted in imports(name)}
    run, everything = project["dependencies"] + extras["web"], project["dependencies"] + extras["web"] + extras["dev"]
    found = [f"{name} is imported and not in dependencies" for name in undeclared(used, run)]
    found += [f"{name} is imported by tests and not in the dev extra" for name in undeclared(used_in_tests, everything)]
    for lock, wanted in (("requirements.lock", run), ("requirements-dev.lock", everything)):
        text = (ROOT / lock).read_text()
        missing = [spec for spec in wanted if not re.search(rf"^{distribution(spec)}(\[\w+\])?==", text, re.MULTILINE)]
        found += [f"{spec} is not in {lock}: run make lock" for spec in missing]
    breaches(found)


def distribution(spec: str) -> str:
    """Return the name of a requirement like `redis[hiredis]>=8,<9`."""
    return re.split(r"[\[<>=!~ ;]", spec)[0].lower()


def undeclared(used: set[str], specs: list[str]) -> list[str]:
    declared = {distribution(spec) for spec in specs}
    foreign = used - set(sys.stdlib_module_names) - set(PACKAGES) - {"tests"} - ONLY_WHEN_THERE
    return sorted(name for name in foreign if IMPORTED_AS.get(name, BY_EXTRA.get(name, name)) not in declared)
