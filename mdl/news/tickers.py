"""Finds the symbols that an article is about when its source names none. Pure.

Invariant: never a plain word, however much it looks like a ticker (ALL, IT, NOW). What counts is what writers mark themselves:
`$AAPL`; `(NASDAQ: AAPL)`, also several and of other American exchanges; and names of a table that the operator gives. Of these, a
name of one word counts only with its legal form ("Target Corporation", not "Target"), one of several also without.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from service.errors import OperatorError

FOUND_MAX = 20
TICKER = r"[A-Z]{1,5}(?:\.[A-Z])?\b(?!\s*:)"
CASHTAG = re.compile(rf"(?<![\w$])\$({TICKER})(?![\w$-])")
EXCHANGE = r"(?:NASDAQ(?:GS|GM|CM)?|Nasdaq|NYSE(?: American| Arca|MKT)?|AMEX|CBOE|OTC(?:QB|QX|MKTS|PK)?)"
LISTED = re.compile(rf"\b{EXCHANGE}\s*:\s*({TICKER}(?:\s*(?:,|and|&)\s*{TICKER})*)")
ONE = re.compile(TICKER)
WORD = re.compile(r"[^\s,;:()\"“”]+")
FORMS = {
    "inc", "incorporated", "corp", "corporation", "co", "company", "companies", "ltd", "limited", "plc", "llc", "lp", "nv", "n.v",
    "sa", "s.a", "ag", "se", "group", "holdings", "trust",
}  # fmt: skip
Name = tuple[str, ...]


class Companies:
    """The names of companies, as articles write them. `names` = symbol → name, the first symbol of a name has it."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._by_first: dict[str, list[tuple[Name, str]]] = {}
        for symbol, name in (names or {}).items():
            self._add(_words(name), symbol)

    def find(self, *texts: str) -> list[str]:
        """Return the symbols that the texts name, in the order in which they stand, at most FOUND_MAX."""
        found: dict[str, None] = {}
        for text in texts:
            places = [(match.start(), [match[1]]) for match in CASHTAG.finditer(text)]
            places += [(match.start(), ONE.findall(match[1])) for match in LISTED.finditer(text)]
            places += self._named(text)
            for _, symbols in sorted(places):
                found.update(dict.fromkeys(symbols))
        return list(found)[:FOUND_MAX]

    def _add(self, words: Name, symbol: str) -> None:
        words = words[1:] if words[:1] == ("The",) else words
        bare = words
        while len(bare) > 1 and _is_form(bare[-1]):
            bare = bare[:-1]
        spellings = {words} | ({bare} if len(bare) > 1 else set())
        for spelling in spellings:
            if len(spelling) > 1:
                self._by_first.setdefault(spelling[0], []).append((spelling, symbol))

    def _named(self, text: str) -> list[tuple[int, list[str]]]:
        if not self._by_first:
            return []
        places = [match.start() for match in WORD.finditer(text)]
        words, found = _words(text), []
        for at, first in enumerate(words):
            for spelling, symbol in self._by_first.get(first, ()):
                if words[at : at + len(spelling)] == spelling:
                    found.append((places[at], [symbol]))
                    break
        return found


def read_names(path: Path | None) -> dict[str, str]:
    """Return symbol → name of a CSV (symbol,name), empty without a path.  Raises: OperatorError."""
    if path is None:
        return {}
    try:
        with path.open(newline="") as file:
            return {row["symbol"].strip(): row["name"].strip() for row in csv.DictReader(file)}
    except OSError as error:
        raise OperatorError(f"cannot read MDL_NEWS_NAMES={path}: {error.strerror}", "Give an existing CSV or unset it") from None
    except (KeyError, ValueError, AttributeError) as error:
        raise OperatorError(f"MDL_NEWS_NAMES={path} is no table of names ({error})", "Its header is symbol,name") from None


def _words(text: str) -> Name:
    return tuple(_plain(match.group()) for match in WORD.finditer(text))


def _plain(word: str) -> str:
    """Return a word as names are compared: without a full stop at its end and without what makes it a genitive."""
    return re.sub(r"['’]s$", "", word).rstrip(".’'")


def _is_form(word: str) -> bool:
    return word.lower() in FORMS
