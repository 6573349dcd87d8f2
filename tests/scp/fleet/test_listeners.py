"""Checks the versions of a listener's configuration, what differs between them, and where its keys may go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from scp.fleet import listeners
from scp.fleet.keeper import in_force, label, out_of_step
from scp.fleet.listeners import Wanted
from scp.security.second_factor import Box
from scp.store.database import Store
from tests.scp.fleet.test_inventory import LOOPBACK, NOW, TOKEN, inventory, kept

BOX = Box(Fernet.generate_key())


def opened(folder: Path) -> Store:
    """Return a new database."""
    store = Store("", folder)
    store.migrate()
    return store


def test_versions_are_kept_newest_first(tmp_path: Path) -> None:
    """Each listener counts for itself; nothing wanted is version 0."""
    with opened(tmp_path).transaction() as db:
        assert listeners.newest(db, "mdl") == Wanted("mdl")
        for number in (1, 2, 3):
            listeners.add(db, Wanted("mdl", number, number != 3, {"rate": number}, f"n{number}", "ann", number))
        listeners.add(db, Wanted("other", 1, True, {}))
        assert listeners.newest(db, "mdl").version == 3
        assert not listeners.newest(db, "mdl").managed
        assert [one.version for one in listeners.versions(db, "mdl", None, 2)] == [3, 2]
        assert [one.version for one in listeners.versions(db, "mdl", 2, 5)] == [1]
        second = listeners.version(db, "mdl", 2)
        assert second is not None
        assert second.fields == {"rate": 2}
        assert listeners.version(db, "mdl", 9) is None
        assert listeners.names(db) == ["mdl", "other"]


def test_a_difference_names_what_changes() -> None:
    """What is left out is the listener's own."""
    before: dict[str, Any] = {"rate": 5, "symbols": 9, "feed": "simulator"}
    assert listeners.difference(before, {"rate": 6, "feed": "simulator", "loop": False}) == [
        {"field": "loop", "before": None, "after": False},
        {"field": "rate", "before": 5, "after": 6},
        {"field": "symbols", "before": 9, "after": None},
    ]


def test_a_key_goes_only_with_the_address_it_was_given_for(tmp_path: Path) -> None:
    """Whoever points the listener elsewhere does not get the key there; with the old address it counts again."""
    mine = {"massive_url": "wss://one.example"}
    store = opened(tmp_path)
    with store.transaction() as db:
        listeners.keep_secret(db, BOX, "mdl", "api_key", "hush", "wss://one.example", 1)
        assert listeners.secrets_of(db, BOX, "mdl", mine) == {"api_key": "hush"}
        for fields in ({"massive_url": "wss://evil.example"}, {}, {"massive_url": ""}):
            assert listeners.secrets_of(db, BOX, "mdl", fields) == {}
        assert listeners.secrets_of(db, BOX, "other", mine) == {}
        assert listeners.secrets_of(db, Box(Fernet.generate_key()), "mdl", mine) == {}, "closed with another key"
        assert listeners.secrets_kept(db, "mdl") == ["api_key"]
        assert "hush" not in str(db.executesql("SELECT * FROM listener_secret"))
        listeners.keep_secret(db, BOX, "mdl", "api_key", "", "", 2)
        assert listeners.secrets_kept(db, "mdl") == []


def test_a_listener_is_out_of_step_when_it_says_another_version() -> None:
    """Also when nothing is wanted any more and it still has the old one; never when nothing was ever wanted."""
    (fresh,) = inventory({"mdl-a-1": kept()}, NOW, TOKEN, LOOPBACK)
    fresh.more = {"configuration": ""}
    assert not out_of_step(fresh, Wanted("mdl"))
    assert out_of_step(fresh, Wanted("mdl", 4, True))
    assert not out_of_step(fresh, Wanted("mdl", 5, False))
    fresh.more = {"configuration": "mdl/4"}
    assert not out_of_step(fresh, Wanted("mdl", 4, True))
    assert out_of_step(fresh, Wanted("mdl", 5, False))
    assert (label(Wanted("mdl", 4, True)), in_force(Wanted("mdl", 5, False))) == ("mdl/4", {"replace": "true", "version": ""})
