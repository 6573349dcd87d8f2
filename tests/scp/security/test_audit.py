"""scp/security/audit.py: entries that were changed, taken out, cut off or put in between show."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from scp.security import audit
from tests.scp.security.conftest import Rig


def fault(rig: Rig) -> str | None:
    with rig.store.transaction() as db:
        return audit.fault_of(db)


def test_entries_of_many_at_once_make_one_chain(rig: Rig) -> None:
    """No two have the same number or the same one before them."""

    def note(number: int) -> None:
        with rig.store.transaction() as db:
            audit.note(db, rig.asked(), f"person {number}", "test", detail=number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(note, range(60)))
    assert fault(rig) is None
    with rig.store.transaction() as db:
        assert [entry["id"] for entry in audit.everything(db)] == list(range(1, 61))
        assert [entry["id"] for entry in audit.page(db, 10, 3)] == [9, 8, 7]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE audit_entry SET who = 'mallory' WHERE id = 3", "entry 3 (test by mallory) is not what was written"),
        ("DELETE FROM audit_entry WHERE id = 3", "entry 3 is missing"),
        ("DELETE FROM audit_entry WHERE id = 5", "the last ones are missing"),
        ("UPDATE audit_entry SET at_ms = at_ms - 1 WHERE id = 1", "entry 1 (test by ann) is not what was written"),
    ],
)
def test_what_was_changed_shows(rig: Rig, change: str, said: str) -> None:
    """The check names the entry."""
    for _ in range(5):
        with rig.store.transaction() as db:
            audit.note(db, rig.asked(), "ann", "test")
    assert fault(rig) is None
    with rig.store.transaction() as db:
        db.executesql(change)
    assert said in str(fault(rig))


def test_what_is_rolled_back_leaves_no_entry(rig: Rig) -> None:
    """The log says what was done, not what was tried and failed half-way."""

    def half() -> None:
        with rig.store.transaction() as db:
            audit.note(db, rig.asked(), "ann", "test")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert fault(rig) is None
    with rig.store.transaction() as db:
        assert list(audit.everything(db)) == []
