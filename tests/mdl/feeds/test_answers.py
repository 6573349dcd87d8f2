"""What the vendor's answers say of our subscriptions, and whatever else may stand in a frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.feeds.answers import Answers, is_status
from mdl.vendor.protocol import NOT_AUTHORIZED, status
from tests.mdl.calm import calm

REFUSED = status("error", NOT_AUTHORIZED)


def confirmed(topics: str) -> str:
    return status("success", f"subscribed to: {topics}")


def test_what_is_not_confirmed_is_what_was_refused() -> None:
    """The refusal itself names nothing, wherever it comes among the answers."""
    for frames in ([REFUSED, confirmed("T.*"), confirmed("AM.*")], [confirmed("T.*,AM.*"), REFUSED]):
        answers = Answers(("T.*", "Q.*", "AM.*"))
        for frame in frames:
            answers.hear(frame)
        assert answers.refused == ["Q.*"]
        assert answers.reason == "the vendor refuses the subscription Q.*: not authorized"


def test_without_a_refusal_nothing_is_missing() -> None:
    """Confirmations may be late or written otherwise; an error that concerns no subscription is none either."""
    answers = Answers(("T.*", "Q.*"))
    answers.hear(confirmed("T.*"))
    assert answers.reason == ""
    answers.hear(confirmed("Q.*"))
    answers.hear(REFUSED)
    assert (answers.refused, answers.reason) == ([], "")


def test_many_refusals_are_one_short_line() -> None:
    """An options feed has a thousand subscriptions."""
    answers = Answers([f"T.O{n}" for n in range(1000)])
    answers.hear(REFUSED)
    assert answers.reason == "the vendor refuses the subscription T.O0, T.O1, T.O2, T.O3, T.O4 and 995 more: not authorized"


@pytest.mark.parametrize("data", [REFUSED, REFUSED.encode(), confirmed("T.*"), '[{"status":"error","ev":"status"}]'])
def test_a_status_frame_is_told_by_its_beginning(data: bytes | str) -> None:
    """Text or bytes."""
    assert is_status(data)


def test_data_is_no_status() -> None:
    """Nor is damage."""
    assert not is_status('[{"ev":"T","sym":"A","p":1.0,"s":100,"t":1700000000000,"i":"1"}]')
    assert not is_status(b"")


@calm
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80)))
def test_damage_changes_nothing(data: bytes | str) -> None:
    """Whatever arrives."""
    answers = Answers(("T.*",))
    answers.hear(data)
    assert answers.reason == ""
