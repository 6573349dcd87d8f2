"""Checks that a ticket opens once, for whom it was made, and not for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from wds.access.tickets import TTL_S, Tickets
from wds.access.tokens import Claims, TokenRefused

CLAIMS = Claims("ann", 2_000_000_000, "j", ("quote:*",))


def test_a_ticket_is_good_once(tmp_path: Path) -> None:
    """In any worker of the machine, but in one of them only."""
    issuer, other = Tickets(tmp_path / "t", 5), Tickets(tmp_path / "t", 5)
    ticket = issuer.issue(CLAIMS, 100.0)
    assert other.redeem(ticket, 101.0) == CLAIMS
    for tickets in (issuer, other):
        with pytest.raises(TokenRefused, match="no such ticket"):
            tickets.redeem(ticket, 101.0)


def test_a_ticket_expires(tmp_path: Path) -> None:
    """After half a minute it is worth nothing, whether its file is still there or not."""
    tickets = Tickets(tmp_path / "t", 5)
    late = tickets.issue(CLAIMS, 100.0)
    with pytest.raises(TokenRefused, match="older than"):
        tickets.redeem(late, 100.0 + TTL_S)
    tickets.issue(CLAIMS, 100.0)
    tickets.sweep(100.0 + TTL_S)
    assert not list((tmp_path / "t").iterdir())


@pytest.mark.parametrize("ticket", ["", "x", "../wds.key", "a/b", "\0", "é" * 400])
def test_what_is_no_ticket_opens_nothing(tmp_path: Path, ticket: str) -> None:
    """Whatever it says, it names no file but by its hash."""
    tickets = Tickets(tmp_path / "t", 5)
    tickets.issue(CLAIMS, 0.0)
    with pytest.raises(TokenRefused):
        tickets.redeem(ticket, 0.0)


def test_nobody_hoards_tickets(tmp_path: Path) -> None:
    """A user has as many at once as connections; expired ones make room. The secret is not on the disk."""
    tickets = Tickets(tmp_path / "t", 2)
    made = [tickets.issue(CLAIMS, 0.0) for _ in range(2)]
    with pytest.raises(TokenRefused, match="too many"):
        tickets.issue(CLAIMS, 1.0)
    written = "".join(path.name + path.read_text() for path in (tmp_path / "t").iterdir())
    assert not any(ticket in written for ticket in made)
    tickets.issue(CLAIMS, float(TTL_S))
    tickets.close()
    assert not list((tmp_path / "t").iterdir())


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """The client hears `unavailable`, and nothing breaks."""
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenRefused) as refused:
        Tickets(tmp_path / "file" / "t", 2).issue(CLAIMS, 0.0)
    assert refused.value.code == "unavailable"
