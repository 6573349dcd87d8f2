"""mdp/plugins/reports.py: each report once, in order, with those of its symbol."""

from __future__ import annotations

import pytest

from mdc.writer import Flush
from mdp.plugins.reports import REPORTS_MAX, Reports, Unusable


def test_a_flush_has_the_reports_of_its_symbols_alone() -> None:
    """The others wait for theirs; what is dropped or forgotten makes room."""
    reports = Reports("p")
    for n in range(6):
        reports.add("AB"[n % 2], n, b'{"n":%d}' % n)
    flush = Flush(0, "e")
    flush.only = {"A"}
    reports.collect(flush)
    assert [doc.rpartition(b'"data":')[2] for doc in flush.documents()] == [b'{"n":0}}', b'{"n":2}}', b'{"n":4}}']
    assert flush.checkpoint == ["ownlog:p:A", 3]
    reports.forget("B")
    for n in range(REPORTS_MAX):
        reports.add("A", n, b"{}")
    with pytest.raises(Unusable, match="more than 10000"):
        reports.add("A", 1, b"{}")
    reports.drop()
    reports.add("A", 1, b"{}")
    whole = Flush(0, "e")
    reports.collect(whole)
    assert [doc.rpartition(b'"data":')[2] for doc in whole.documents()] == [b"{}}"]
    assert whole.checkpoint == ["ownlog:p:A", 4]
