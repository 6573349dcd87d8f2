"""Writes documents for people and programs: as a table, as JSON, as YAML."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import yaml  # type: ignore[import-untyped]

WIDTH_MAX = 60  # of a cell; whole values are in json and yaml
TABLE_WIDTH_MAX = 160
DASH = "-"


def text_of(document: Any, form: str) -> str:
    """Return a document in a form: table, json, yaml. Text stays what it is."""
    if document is None or isinstance(document, str):
        return document or ""
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=False)
    if form == "yaml":
        return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True)).rstrip()
    return table_of(document)


def rows_of(document: Any) -> list[dict[str, Any]] | None:
    """Return the rows of a list, or of a page: the first list of something that has `next` or nothing else. None: one thing."""
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        document = lists[0] if lists and ("next" in document or len(document) == 1) else None
    if isinstance(document, list) and all(isinstance(row, dict) for row in document):
        return document
    return None


def table_of(document: Any) -> str:
    """Return aligned columns for a list, `name  value` lines for one thing."""
    rows = rows_of(document)
    if rows is None:
        pairs = (
            document.items() if isinstance(document, dict) else enumerate(document if isinstance(document, list) else [document])
        )
        return _aligned([[str(name), cell(name, value, 10_000)] for name, value in pairs])
    if not rows:
        return "none"
    every = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in every if not any(isinstance(row.get(name), dict) for row in rows)] or every
    columns = [[name.upper(), *(cell(name, row.get(name)) for row in rows)] for name in names]
    fitting, width = 0, 0
    while (fitting < len(columns) and (width := width + 2 + max(map(len, columns[fitting]))) <= TABLE_WIDTH_MAX) or not fitting:
        fitting += 1
    more = f"\n({len(every) - fitting} more in -o json)" if fitting < len(every) else ""
    return _aligned([list(line) for line in zip(*columns[:fitting], strict=True)]) + more


def cell(name: object, value: Any, width: int = WIDTH_MAX) -> str:
    """Return a value as text of one line; names that end in _ms are times."""
    if value is None or value == "":
        return DASH
    if isinstance(name, str) and name.endswith("_ms") and isinstance(value, int) and not isinstance(value, bool):
        if value == 0:
            return DASH
        if value > 10**11:  # since the epoch, not a span
            return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return _line(",".join(map(str, value)) or DASH, width)
    return _line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":")), width)


def _line(text: str, width: int) -> str:
    # What cannot be printed would move the terminal's cursor, or say things in our name.
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return clean if len(clean) <= width else clean[: width - 1] + "…"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
