"""Says for every route who may use it. What has no rule is refused: nothing is open because somebody forgot it.

A pattern's `{name}` stands for one part of the path, `{rest}` at its end for everything below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

PUBLIC = "public"  # without signing in
HALF_OPEN = "half-open"  # between password and second factor; and nothing else then


@dataclass(frozen=True, slots=True)
class Rule:
    """`need` is a scope, PUBLIC or HALF_OPEN. `changes` = the request must prove that our own page sent it."""

    method: str
    pattern: str
    need: str
    form: re.Pattern[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        parts = re.split(r"(\{\w+\})", self.pattern)
        text = "".join((r".+" if part == "{rest}" else r"[^/]+") if part[:1] == "{" else re.escape(part) for part in parts)
        object.__setattr__(self, "form", re.compile(text))

    @property
    def changes(self) -> bool:
        return self.method not in ("GET", "HEAD")


ODD = re.compile(r"(?:^|/)\.|//|[\\\x00-\x1f\x7f]")  # `..` would lead from a folder that is open to one that is not

# The pages; the API's own are in scp/api/routes.py.
PAGES = (
    Rule("GET", "/", "view"),
    Rule("GET", "/index", "view"),
    Rule("GET", "/sign-in", PUBLIC),
    Rule("GET", "/sign-in/oidc", PUBLIC),
    Rule("GET", "/sign-in/oidc/callback", PUBLIC),
    Rule("GET", "/welcome", PUBLIC),
    Rule("GET", "/docs", "view"),
    Rule("GET", "/operate", "inspect"),
    Rule("GET", "/static/app/door/{rest}", PUBLIC),
    Rule("GET", "/static/app/{rest}", "view"),
    Rule("GET", "/favicon.ico", PUBLIC),
    Rule("GET", "/api/session", "view"),
)


class Rules:
    """All rules, looked up by method and path; one without `{…}` comes before those with, as in the framework."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self._whole = {(rule.method, rule.pattern): rule for rule in reversed(self._rules) if "{" not in rule.pattern}
        self._with_parts: dict[str, list[Rule]] = {}
        for rule in self._rules:
            if "{" in rule.pattern:
                self._with_parts.setdefault(rule.method, []).append(rule)

    def __iter__(self) -> Iterable[Rule]:
        return iter(self._rules)

    def find(self, method: str, path: str) -> Rule | None:
        """Return the rule of a request, None when there is none: then nobody may."""
        if ODD.search(path):
            return None
        wanted = "GET" if method == "HEAD" else method
        if (whole := self._whole.get((wanted, path))) is not None:
            return whole
        return next((rule for rule in self._with_parts.get(wanted, ()) if rule.form.fullmatch(path)), None)

    def methods(self, path: str) -> list[str]:
        """Return the methods that the path has."""
        return [] if ODD.search(path) else sorted({rule.method for rule in self._rules if rule.form.fullmatch(path)})
