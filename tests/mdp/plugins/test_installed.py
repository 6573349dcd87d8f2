"""mdp/plugins/installed.py: what is found, and what is refused in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mdp.plugins.installed import INSTALLED_MAX, find, names_installed
from tests.mdp.plugins.boxes import package

GOOD = """
import msgspec
from mdp.plugin import Plugin

class State(msgspec.Struct):
    n: int = 0

class Good(Plugin):
    State = State
    boards = ("good_ones",)
    def on_trade(self, state, trade, effect): ...

class Other(Good):
    boards = ()

class Newer(Good):
    api = 2

class Deaf(Plugin):
    State = State

class Frozen(Good):
    class State(msgspec.Struct, frozen=True):
        n: int = 0

class Needy(Good):
    class State(msgspec.Struct):
        n: int

class Stateless(Good):
    State = dict

class Losing(Good):
    class State(msgspec.Struct):
        n: int = 0
        def __post_init__(self):
            self.n += 1

class Listed(Good):
    boards = ["good_ones"]

class Taken(Good):
    boards = ("gainers",)

class Unnamed(Good):
    boards = ("Bad Name",)

class Waiting(Good):
    async def on_trade(self, state, trade, effect): ...

class Yielding(Good):
    def on_trade(self, state, trade, effect):
        yield

class Short(Good):
    def on_trade(self, state, trade): ...

class Made(Good):
    def __init__(self, size): ...

class Own(Good):
    boards = ("runners",)

value = 1
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path from which nothing stays imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("point", "where", "why"),
    [
        ("newer", "box:Newer", "it is written for version 2 of mdp.plugin, this one is 1"),
        ("deaf", "box:Deaf", "it handles no events; there are on_trade, on_quote"),
        ("frozen", "box:Frozen", "its State is frozen"),
        ("needy", "box:Needy", "every field of its State needs a default"),
        ("stateless", "box:Stateless", "its State is not a msgspec.Struct"),
        ("losing", "box:Losing", "its State is not the same after it was written and read"),
        ("listed", "box:Listed", "its boards are not a tuple"),
        ("unnamed", "box:Unnamed", "its boards are not a tuple"),
        ("taken", "box:Taken", "the name of its board gainers is taken"),
        ("own", "box:Own", "the name of its board runners is taken"),
        ("waiting", "box:Waiting", "on_trade is a coroutine or a generator"),
        ("yielding", "box:Yielding", "on_trade is a coroutine or a generator"),
        ("short", "box:Short", "on_trade must take (self, state: 'Any', trade: 'AnyTrade', effect: 'int') -> 'None': too many"),
        ("made", "box:Made", "its __init__ must take no arguments: missing a required argument: 'size'"),
        ("value", "box:value", "it is not a subclass of mdp.plugin.Plugin"),
        ("nothing", "box:Nothing", "box:Nothing cannot be imported: AttributeError"),
        ("nowhere", "no_such_module:X", "no_such_module:X cannot be imported: ModuleNotFoundError: No module named"),
        ("quote", "box:Good", "its name is that of a built-in analyzer"),
        ("Bad-Name", "box:Good", "its name is not a-z, 0-9 and _"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_line(target: Path, point: str, where: str, why: str) -> None:
    """The reason names the fault; the good one beside it is run all the same."""
    package(target, "box", {point: where, "zz_good": "box:Other"}, GOOD)
    found = find(["*"], {"runners"})
    [refused] = found.refused
    assert (refused.name, refused.version) == (point, "1.0")
    assert refused.why.startswith(why)
    assert "\n" not in refused.why
    assert [(one.name, one.version) for one in found.plugins] == [("zz_good", "1.0")]


@pytest.mark.parametrize("code", ["raise RuntimeError('broken')", "import sys; sys.exit(3)", "def x(:", "1/0"])
def test_a_module_that_breaks_while_it_is_imported_stops_nobody(target: Path, code: str) -> None:
    """Whatever a module does, others are found, and it is one line."""
    package(target, "box", {"good": "box:Good"}, GOOD)
    package(target, "broken", {"broken": "broken:X"}, code)
    found = find(["*"])
    assert [one.name for one in found.plugins] == ["good"]
    assert [(one.name, one.why[:30]) for one in found.refused] == [
        ("broken", "broken:X cannot be imported: " + found.refused[0].why[29])
    ]


def test_two_of_one_name_or_with_one_board_cannot_both_be_run(target: Path) -> None:
    """The first package by name keeps it; the line says which one that is."""
    package(target, "box", {"good": "box:Good"}, GOOD)
    package(target, "crate", {"good": "crate:Other"}, GOOD, "2.0")
    package(target, "drum", {"later": "drum:Good"}, GOOD)
    found = find(["*"])
    assert [(one.name, one.version) for one in found.plugins] == [("good", "1.0")]
    assert [(one.name, one.why) for one in found.refused] == [
        ("good", "its name is taken by another package (box 1.0)"), ("later", "the name of its board good_ones is taken"),
    ]  # fmt: skip


def test_only_what_is_wanted_is_imported(target: Path) -> None:
    """`none` imports nothing, a list what it names; a name that is not there, and what is held, is said."""
    package(target, "box", {"good": "box:Good", "other": "box:Other"}, GOOD)
    told: list[str] = []
    assert find(["none"], before=told.append) == ([], [])
    assert (told, "box" in sys.modules) == ([""], False)
    found = find(["other", "absent"], before=told.append)
    assert [one.name for one in found.plugins] == ["other"]
    assert found.refused == [("absent", "it is not installed where this processor runs", "")]
    assert told == ["", "other", ""]
    held = find(["*"], held={"good": "by hand"})
    assert ([one.name for one in held.plugins], held.refused) == (["other"], [("good", "by hand", "1.0")])
    assert {"good", "other"} <= set(names_installed())


def test_so_many_and_no_more(target: Path) -> None:
    """Past the bound they are refused, not run."""
    package(target, "box", {f"p{n:03}": "box:Other" for n in range(INSTALLED_MAX + 2)}, GOOD)
    found = find(["*"])
    assert len(found.plugins) == INSTALLED_MAX
    assert [one.why for one in found.refused] == [f"at most {INSTALLED_MAX} plug-ins can be run"] * 2
