"""Metrics of enrichment."""

from __future__ import annotations

from service import metrics

QUESTIONS = metrics.counter("mdp", "enrichment_questions", "Questions to the vendor's REST service", ["outcome"])
BAD_ROWS = metrics.counter("mdp", "enrichment_bad_rows", "Rows of its answers that could not be used")
SYMBOLS = metrics.gauge("mdp", "enrichment_symbols", "Symbols of the newest sheet of facts", ["sheet"])
TAKEN = metrics.counter("mdp", "enrichment_taken", "Facts of symbols that this worker took in")
