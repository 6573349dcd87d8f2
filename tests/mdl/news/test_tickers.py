"""Checks which symbols are found in the text of an article, and above all which are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdl.news.tickers import FOUND_MAX, Companies, read_names
from service.errors import OperatorError

NAMES = {
    "AAPL": "Apple Inc.", "TGT": "Target Corporation", "GS": "The Goldman Sachs Group, Inc.", "GPS": "The Gap, Inc.",
    "GOOGL": "Alphabet Inc.", "GOOG": "Alphabet Inc.", "BRK.B": "Berkshire Hathaway Inc.", "ALL": "Allstate Corp",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$AAPL and $BRK.B rise, $TSLA's fall.", ["AAPL", "BRK.B", "TSLA"]),
        ("Apple (NASDAQ: AAPL) sues Alphabet (Nasdaq:GOOG, GOOGL)", ["AAPL", "GOOG", "GOOGL"]),
        ("(NYSE: BRK.B; TSX: XYZ) (NYSE American: IMO)", ["BRK.B", "IMO"]),
        ("NASDAQ: AAPL, NYSE: IBM and OTCQB: ABCD", ["AAPL", "IBM", "ABCD"]),
        ("The insurer (NYSE: ALL)", ["ALL"]),
        ("$B before (NYSE: A)", ["B", "A"]),
        ("ALL IT NOW: ARE YOU ON IT? A CEO SAYS SO", []),
        ("US$5 A$AAPL $5 $aapl $ABCDEF $ALL-TIME $$AAPL", []),
        ("(TSX: XYZ) (LSE: ABC) Reuters: IBM", []),
        ("(AAPL) [MSFT]", []),
    ],
)
def test_symbols_count_where_writers_mark_them(text: str, found: list[str]) -> None:
    """Never as plain words, and not those of exchanges that are not traded here."""
    assert Companies().find(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Apple Inc. said on Monday", ["AAPL"]),
        ("Apple Inc's phone; Target Corporation's shops", ["AAPL", "TGT"]),
        ("Goldman Sachs’s traders and Goldman Sachs Group", ["GS"]),
        ("Berkshire Hathaway, Alphabet Inc.", ["BRK.B", "GOOGL"]),
        ("Apple pie, a price Target, The Gap is wide, goldman sachs, GOLDMAN SACHS", []),
    ],
)
def test_names_count_when_they_cannot_be_plain_words(text: str, found: list[str]) -> None:
    """Of one word with their legal form, of several without, as they are written; of two symbols of one name the first."""
    assert Companies(NAMES).find(text) == found


def test_the_title_goes_first_and_there_is_an_end() -> None:
    """In the order of the text, each once, at most twenty."""
    assert Companies().find("$B", "$A $B") == ["B", "A"]
    text = " ".join(f"${a}{b}" for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ")
    assert len(Companies().find(text)) == FOUND_MAX


def test_a_table_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    """No file, another header, no text."""
    assert read_names(None) == {}
    table = tmp_path / "names.csv"
    table.write_text("symbol,name\nAAPL, Apple Inc. \n")
    assert read_names(table) == {"AAPL": "Apple Inc."}
    for body in (b"ticker,company\nA,B\n", b"symbol,name\nA\n", b"\xff\xfe"):
        table.write_bytes(body)
        with pytest.raises(OperatorError, match="MDL_NEWS_NAMES"):
            read_names(table)
    with pytest.raises(OperatorError, match="MDL_NEWS_NAMES"):
        read_names(tmp_path / "gone.csv")
