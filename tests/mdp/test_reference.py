"""Checks how a reference CSV is read, and that a wrong or absent file is an operator's error."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdp.reference import Known, read_reference
from service.errors import OperatorError


def test_a_file_is_read(tmp_path: Path) -> None:
    """Empty cells are not known; other columns are passed over."""
    path = tmp_path / "r.csv"
    path.write_text("symbol,prev_close,avg_volume,name\nAAPL,189.5,5e7,Apple\nMSFT,,,\n")
    assert read_reference(path) == {"AAPL": Known(189.5, 5e7), "MSFT": Known(None, None)}
    assert read_reference(None) == {}
    path.write_text("symbol,prev_close,avg_volume,float,prev_low,prev_volume\nAAPL,189.5,5e7,15e9,188,4e7\n")
    assert read_reference(path) == {"AAPL": Known(189.5, 5e7, 15e9, prev_low=188, prev_volume=4e7)}


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "symbol,prev_close,avg_volume\nAAPL,x,1\n",
        "symbol,prev_close,avg_volume\nAAPL,-1,1\n",
        "symbol,prev_close,avg_volume\nAAPL,nan,1\n",
    ],
)
def test_a_wrong_file_is_an_operators_matter(tmp_path: Path, text: str) -> None:
    """One line says which file, what is wrong and what its header is."""
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(OperatorError, match=r"MDP_REFERENCE=.*symbol,prev_close,avg_volume"):
        read_reference(path)


def test_an_absent_file_is_told(tmp_path: Path) -> None:
    """The operator learns which path."""
    with pytest.raises(OperatorError, match=r"cannot read MDP_REFERENCE=.*gone\.csv"):
        read_reference(tmp_path / "gone.csv")
