"""Asks one operation of the API's OpenAPI document with made-up requests, and checks each answer against the document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.control import SkipTest
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

DOCUMENTED = [status_code_conformance, content_type_conformance, response_schema_conformance]
STREAMS = "text/event-stream"


def probe(operation: Any, mode: GenerationMode, url: str, headers: dict[str, str], checks: Sequence[Any], examples: int) -> int:
    """Ask an operation some times, always with the same requests; return how often. `checks` come on top of the documented shapes."""
    asked = 0

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        case.cookies = {}
        case.validate_response(case.call(base_url=url, headers=headers), checks=[*checks, *DOCUMENTED])

    try:
        ask()
    except (Unsatisfiable, SkipTest):  # nothing can be wrong about a request without parameters
        assert mode is GenerationMode.NEGATIVE
    return asked


def streams(operation: Any) -> bool:
    """Whether its answer has no end."""
    return STREAMS in operation.definition.raw["responses"].get("200", {}).get("content", {})
