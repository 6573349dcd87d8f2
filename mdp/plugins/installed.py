"""Finds the plug-ins that are installed beside Tapeline, and says in a line why one of them cannot be run.

Invariant: nothing that a plug-in does while it is imported or looked at reaches the caller; it is refused, the others are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import Any, NamedTuple

import msgspec

from mdc.channels import BOARDS, OWN_BOARD, OWN_KIND
from mdp.plugin import API, GROUP, HANDLERS, Plugin
from mdp.plugins.host import FAULT_CHARS_MAX, Installed
from mdp.roster import ANALYZERS

INSTALLED_MAX = 50
ALL, NONE = "*", "none"
PLAIN = re.compile(r"\s+")


class Refused(NamedTuple):
    """A plug-in that cannot be run, and why."""

    name: str
    why: str
    version: str = ""


class Found(NamedTuple):
    """What is installed of what is wanted."""

    plugins: list[Installed]
    refused: list[Refused]


def names_installed() -> list[str]:
    """Return the names of all plug-ins, without importing any."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def find(
    wanted: Collection[str], boards: Collection[str] = (), held: Mapping[str, str] | None = None,
    before: Callable[[str], None] = lambda name: None,
) -> Found:  # fmt: skip
    """Import the wanted plug-ins (`*` = all, `none`); `boards` are the names that boards of the operators have.

    What is in `held` (name → why) is not even imported. `before` is told of each before it is imported, and "" after the last.
    """
    plugins: list[Installed] = []
    refused: list[Refused] = []
    points = [point for point in _sorted(entry_points(group=GROUP)) if ALL in wanted or point.name in wanted]
    taken: set[str] = set()
    for point in points[:INSTALLED_MAX]:
        version = point.dist.version if point.dist is not None else ""
        if held and point.name in held:
            refused.append(Refused(point.name, held[point.name], version))
            continue
        before(point.name)
        why, made = _look(point, {one.name: one for one in plugins}, {*BOARDS, *boards, *taken})
        if made is None:
            refused.append(Refused(point.name, PLAIN.sub(" ", why)[:FAULT_CHARS_MAX], version))
        else:
            plugins.append(Installed(point.name, made, version))
            taken.update(made.boards)
    before("")
    refused += [Refused(point.name, f"at most {INSTALLED_MAX} plug-ins can be run") for point in points[INSTALLED_MAX:]]
    missing = sorted(set(wanted) - {ALL, NONE} - {point.name for point in points})
    refused += [Refused(name, "it is not installed where this processor runs") for name in missing]
    return Found(plugins, refused)


def _sorted(points: Iterable[EntryPoint]) -> list[EntryPoint]:
    return sorted(points, key=lambda point: (point.name, point.dist.name if point.dist is not None else ""))


def _look(point: EntryPoint, known: dict[str, Installed], boards: Collection[str]) -> tuple[str, type[Plugin] | None]:
    """Return why a plug-in is refused, or its class."""
    if fault := _name_fault(point.name, known):
        return fault, None
    try:
        made = point.load()
        return (fault, None) if (fault := _fault_of(made, boards)) else ("", made)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever its module does when it is imported, sys.exit() included
        return f"{point.value} cannot be imported: {type(error).__name__}: {_text(error)}", None


def _name_fault(name: str, known: dict[str, Installed]) -> str:
    if not OWN_KIND.fullmatch(name):
        return "its name is not a-z, 0-9 and _, at most 32, a letter first"
    if name in ANALYZERS:
        return "its name is that of a built-in analyzer"
    if name in known:
        return f"its name is taken by another package ({known[name].make.__module__} {known[name].version})"
    return ""


def _fault_of(made: Any, boards: Collection[str]) -> str:
    """Return what is wrong with a class, empty when it can be run.  Raises: what its own code raises."""
    if not isinstance(made, type) or not issubclass(made, Plugin):
        return "it is not a subclass of mdp.plugin.Plugin"
    if made.api != API:
        return f"it is written for version {made.api} of mdp.plugin, this one is {API}"
    if not any(getattr(made, name) is not getattr(Plugin, name) for name in HANDLERS):
        return f"it handles no events; there are {', '.join(HANDLERS)}"
    return _calls_fault(made) or _state_fault(getattr(made, "State", None)) or _boards_fault(made.boards, boards)


def _calls_fault(made: type[Plugin]) -> str:
    """Return which method cannot be called as it will be; else it would fail at the first event."""
    for name in (*HANDLERS, "on_wake", "document", "rank", "columns"):
        own, wanted = getattr(made, name), signature(getattr(Plugin, name))
        if iscoroutinefunction(own) or isgeneratorfunction(own) or isasyncgenfunction(own):
            return f"{name} is a coroutine or a generator: it would never run"
        try:
            signature(own).bind(*wanted.parameters)
        except TypeError as error:
            return f"{name} must take {wanted}: {error}"
    try:
        signature(made).bind()
    except TypeError as error:
        return f"its __init__ must take no arguments: {error}"
    return ""


def _state_fault(state: Any) -> str:
    if not isinstance(state, type) or not issubclass(state, msgspec.Struct):
        return "its State is not a msgspec.Struct"
    if state.__struct_config__.frozen:
        return "its State is frozen"
    try:
        made = state()
    except TypeError as error:
        return f"every field of its State needs a default: {error}"
    if msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=state) != made and state.__struct_config__.eq:
        return "its State is not the same after it was written and read"
    return ""


def _boards_fault(own: Sequence[str], taken: Collection[str]) -> str:
    if not isinstance(own, tuple) or not all(isinstance(name, str) and OWN_BOARD.fullmatch(name) for name in own):
        return "its boards are not a tuple of names of a-z, 0-9 and _, at most 32, a letter first"
    if both := [name for name in own if name in taken or own.count(name) > 1]:
        return f"the name of its board {both[0]} is taken"
    return ""


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(it does not say)"
