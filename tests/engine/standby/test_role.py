"""Who leads and who follows survives restarts; a folder says what it is before two engines lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.standby.role import ROLE, Promotion, Role, forget_promotion, read, read_promotion, to_follow, write, write_promotion
from service.errors import OperatorError

URL = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("found", "follow", "expected"),
    [
        (None, "", ""), (None, URL, URL), (Role("standby", 0, URL), URL, URL), (Role("leader", 2), URL, ""),
        (Role("leader", 2), "", ""), (Role("deposed", 2), URL, URL),
        (Role("standby", 0, URL), "", "python -m engine promote"), (Role("deposed", 2), "", "set ENGINE_FOLLOW"),
    ],
)  # fmt: skip
def test_a_start_knows_whom_to_follow(found: Role | None, follow: str, expected: str, tmp_path: Path) -> None:
    """Who was promoted leads, whatever it was started with; a standby and a deposed leader never lead by a mistake."""
    if " " in expected:
        with pytest.raises(OperatorError, match=expected):
            to_follow(found, follow, tmp_path)
    else:
        assert to_follow(found, follow, tmp_path) == expected


def test_roles_and_promotions_are_kept(tmp_path: Path) -> None:
    """Whole or not at all; a file that makes no sense stops the start."""
    assert read(tmp_path) is None
    write(tmp_path, Role("standby", 3, URL, filling=True))
    assert read(tmp_path) == Role("standby", 3, URL, filling=True)
    write_promotion(tmp_path, Promotion("sync"))
    assert read_promotion(tmp_path) == Promotion("sync")
    forget_promotion(tmp_path)
    assert read_promotion(tmp_path) is None
    (tmp_path / ROLE).write_text("{}")
    with pytest.raises(OperatorError, match="Restore it"):
        read(tmp_path)
