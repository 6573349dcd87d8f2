"""Traces: nothing when off, spans with their parents at a collector, and a collector that hangs costs nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.errors import OperatorError
from service.settings import ComponentSettings, load
from service.tracing import Tracer, open_tracer
from tests.stack import ROOT
from tests.waiting import until

if TYPE_CHECKING:
    from tests.traces.collector import Collector


@pytest.mark.parametrize(
    "settings", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_SAMPLER_ARG": "0"}]
)
def test_off_there_is_no_tracer(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a collector, or with nothing to sample, whether the packages are installed or not."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert open_tracer("mdl", load(ComponentSettings)) is None


def test_off_nothing_is_imported() -> None:
    """Listener, processors and data service load no exporter, installed or not (redis-py loads the SDK where it finds one)."""
    code = "import sys, mdl.listener, mdp.worker, wds.server; sys.exit(any('opentelemetry.exporter' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_data_service_without_the_packages_ends_with_one_line(workers: str, tmp_path: Path) -> None:
    """However many workers it was to have: none is started only to end, and to be started again."""
    (tmp_path / "opentelemetry.py").write_text("")  # found first, and no package: as if nothing was installed
    settings = {"WDS_WORKERS": workers, "WDS_PORT": "0", "WDS_ADMIN_PORT": "0", "RUN_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "wds", "serve"], cwd=ROOT,
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "PYTHONPATH": str(tmp_path)} | settings,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "OpenTelemetry is not installed" in done.stderr.splitlines()[-1]
    assert "worker_died" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://127.0.0.1:4317"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_TRACES_SAMPLER_ARG", "often"),
    ],
)
def test_a_wrong_setting_is_one_line(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another scheme and a rate that is none are refused with the variable's name."""
    monkeypatch.setenv(name, value)
    with pytest.raises(OperatorError, match=name):
        load(ComponentSettings)


async def test_spans_arrive_with_their_parents(collector: Collector) -> None:
    """Times, attributes and parents are what was told, across two components; what is no traceparent begins a trace of its own."""
    first, second = Tracer("mdl", collector.url, 1), Tracer("mdp", f"{collector.url}/", 1)
    root = first.span("mdl.frame", None, 1_000, 2_000, source="s", events=3)
    begun = first.begin("mdl.publish", root, 2_000)
    second.span("mdq.wait", begun.context, 2_500, 3_000)
    begun.end(4_000, confirmed=True)
    strange: Any = 7
    for parent in ("", "00-nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01x", str(strange)):
        second.span("odd", parent, 1, 2)
    await first.close()
    await second.close()
    by_name = {span.name: span for span in collector.spans}
    frame, publish, wait = by_name["mdl.frame"], by_name["mdl.publish"], by_name["mdq.wait"]
    assert (frame.service, publish.service, wait.service) == ("tapeline-mdl", "tapeline-mdl", "tapeline-mdp")
    assert (frame.parent, publish.parent, wait.parent) == ("", frame.id, publish.id)
    assert frame.trace == publish.trace == wait.trace
    assert (frame.start_ns, frame.end_ns, publish.end_ns) == (1_000, 2_000, 4_000)
    assert frame.attributes == {"source": "s", "events": 3}
    assert publish.attributes == {"confirmed": True}
    odd = [span for span in collector.spans if span.name == "odd"]
    assert len({span.trace for span in odd}) == 4


async def test_every_so_many_calls_draw(collector: Collector) -> None:
    """The first, and then each of the same distance."""
    tracer = Tracer("mdl", collector.url, 3)
    assert [tracer.draws() for _ in range(7)] == [True, False, False, True, False, False, True]
    await tracer.close()


async def test_a_collector_that_is_away_holds_nobody(collector: Collector) -> None:
    """Spans are made without waiting, more than the queue holds are dropped, and closing takes seconds at the most."""
    tracer = Tracer("mdl", "http://127.0.0.1:1", 1)
    began_s = time.monotonic()
    for _ in range(5_000):
        tracer.span("mdl.frame", None, 1, 2)
    assert time.monotonic() - began_s < 5
    began_s = time.monotonic()
    await tracer.close()
    assert time.monotonic() - began_s < 8
    assert await until(lambda: not collector.spans)
