"""Checks that wrong variables, broken tapes and refusing or absent servers are reported in one line that says what to do.

Exit code 2 is a matter of configuration, 3 of a dependency that refuses; what can come back is waited for.
"""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.admin import bind
from tests.local_run import ROOT, LocalRun
from tests.servers import RabbitMQ, Redis, free_port
from tests.waiting import until_sync

pytestmark = pytest.mark.live
SMALL = {"SYMBOLS": "20", "RATE": "200"}
TRADE = '[{{"ev":"T","sym":"REEL","x":4,"p":10,"s":100,"t":{at},"q":{number},"i":"{number}"}}]\n'

Run = Callable[..., LocalRun]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start a Tapeline with the given variables; it is gone after the test."""
    started: list[LocalRun] = []

    def start(**variables: str) -> LocalRun:
        started.append(LocalRun(tmp_path / "run", **(SMALL | variables)))
        return started[-1]

    yield start
    for one in started:
        one.__exit__()


def trades(count: int) -> bytes:
    return "".join(TRADE.format(at=1_700_058_600_000 + n, number=n) for n in range(1, count + 1)).encode()


def refused(run: LocalRun, code: int, *says: str) -> None:
    """The run ends with `code`, its last line is the one error line and holds every text."""
    assert run.ends() == code, run.output
    errors = [line for line in run.lines if ": error: " in line]
    assert len(errors) == 1, run.output
    assert "Traceback" not in run.output
    for text in says:
        assert text in errors[0]


def test_a_missing_tape_is_one_line(run: Run) -> None:
    """The path and the variable are named."""
    refused(run(FEED="replay", TAPE="/no/such/day.ndjson.gz"), 2, "/no/such/day.ndjson.gz", "Set TAPE")


def test_a_tape_of_another_kind_is_one_line(run: Run, tmp_path: Path) -> None:
    """A file that is called .gz and is none is refused at the start."""
    (tmp_path / "day.ndjson.gz").write_bytes(b"PK not a gzip file")
    refused(run(TAPE=str(tmp_path / "day.ndjson.gz")), 2, "day.ndjson.gz", "Set MDL_TAPE")


def test_a_tape_that_breaks_off_is_played_as_far_as_it_goes(run: Run, tmp_path: Path) -> None:
    """Half a gz file gives its first half; that it breaks off is said, and the run stays up."""
    packed = gzip.compress(trades(5000), mtime=0)
    (tmp_path / "day.ndjson.gz").write_bytes(packed[: len(packed) // 2])
    one = run(TAPE=str(tmp_path / "day.ndjson.gz"), SPEED="max")
    assert "day.ndjson.gz" in one.says("tape breaks off")
    events = int(one.says("replay finished").split("finished: ")[1].split(" ")[0].replace(",", ""))
    assert 1000 < events < 5000
    assert one.process.poll() is None


def test_a_bad_line_of_a_tape_is_skipped_and_said(run: Run, tmp_path: Path) -> None:
    """The line's number is told; every good line is played."""
    lines = trades(100).splitlines(keepends=True)
    (tmp_path / "day.ndjson").write_bytes(b"".join([*lines[:50], b'[{"ev":"T", torn\n', *lines[50:]]))
    one = run(TAPE=str(tmp_path / "day.ndjson"), SPEED="max")
    assert "100 events" in one.says("replay finished")
    assert any("line" in line and "torn" in line for line in one.lines), one.output


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"FEED": "telegraph"}, "FEED='telegraph'"),
        ({"FEED": "massive"}, "Set API_KEY"),
        ({"MDQ_URL": "http://127.0.0.1:5672"}, "amqp://guest:guest@127.0.0.1:5672/"),
        ({"MDC_URL": "127.0.0.1:6379"}, "redis://127.0.0.1:6379/0"),
        ({"RATE": "fast"}, "RATE='fast'"),
    ],
)
def test_a_value_that_cannot_work_is_one_line(run: Run, variables: dict[str, str], says: str) -> None:
    """The variable is named with what it may be; nothing is started."""
    one = run(**variables)
    refused(one, 2, says)
    assert len(one.lines) == 1


@pytest.mark.parametrize("variable", ["SCP_PORT", "WDS_PORT", "MDL_ADMIN_PORT", "SCP_ADMIN_PORT"])
def test_a_taken_port_is_one_line(run: Run, variable: str) -> None:
    """Port and variable are named before anything starts."""
    with bind("127.0.0.1", 0, "X") as holder:
        port = holder.getsockname()[1]
        refused(run(**{variable: str(port)}), 2, f"127.0.0.1:{port}: address already in use", variable)


@pytest.mark.parametrize("component", ["mdl", "mdp", "wds", "scp"])
def test_a_component_alone_is_as_clear(component: str, tmp_path: Path) -> None:
    """Started by itself with a taken admin port, each says one line and ends with 2."""
    with bind("127.0.0.1", 0, "X") as holder:
        port = str(holder.getsockname()[1])
        variables = {"RUN_DIR": str(tmp_path), f"{component.upper()}_ADMIN_PORT": port, "WDS_PORT": "0", "SCP_PORT": "0"}
        done = subprocess.run(
            [sys.executable, "-m", component], cwd=ROOT, env=LocalRun.clean_environment() | variables,
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1
    assert errors[0].startswith(f"tapeline {component}: error: cannot listen on 127.0.0.1:{port}")
    assert f"{component.upper()}_ADMIN_PORT" in errors[0]


def test_a_wrong_vendor_key_is_said_and_not_tried_in_a_loop(run: Run, tmp_path: Path) -> None:
    """The listener is unready with the reason, the page stays up, and the vendor is asked once."""
    port, admin = free_port(), free_port()
    env = {
        "MDL_VENDOR_PORT": str(port),
        "MDL_VENDOR_ADMIN_PORT": str(admin),
        "MDL_VENDOR_KEYS": "right",
        "RUN_DIR": str(tmp_path),
    }
    vendor = subprocess.Popen(
        [sys.executable, "-m", "mdl", "vendor-server"], cwd=ROOT, env=LocalRun.clean_environment() | env | {"MDL_SYMBOLS": "20"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until_sync(lambda: _listens(port), seconds=20)
        one = run(FEED="massive", API_KEY="wrong", MDL_MASSIVE_URL=f"ws://127.0.0.1:{port}")
        assert "key" in one.says("refused").lower()
        one.says("still waiting for mdl (feed refused")
        assert one.process.poll() is None
    finally:
        vendor.terminate()
        vendor.wait(10)


def test_a_rabbitmq_that_is_down_is_waited_for(run: Run) -> None:
    """The line says what to start; when it is there, everything goes on by itself."""
    server = RabbitMQ()
    try:
        one = run(MDQ_URL=server.url)
        assert "waiting for" in one.says("Start RabbitMQ", 60)
        server.start()
        one.says("ready after", 90)
        one.interrupt()
        assert one.ends(15) == 0
    finally:
        server.remove()


def test_a_redis_that_is_down_is_waited_for(run: Run) -> None:
    """The line says what to start; when it is there, everything goes on by itself."""
    server = Redis()
    try:
        one = run(MDC_URL=server.url)
        assert "waiting for" in one.says("Start Redis", 60)
        server.start()
        one.says("ready after", 60)
        one.interrupt()
        assert one.ends(15) == 0
    finally:
        server.remove()


def test_wrong_rabbitmq_credentials_end_the_run(run: Run, rabbitmq_server: RabbitMQ) -> None:
    """One line names MDQ_URL and shows no password; exit code 3."""
    one = run(MDQ_URL=rabbitmq_server.url_of("guest", "hunter2"))
    refused(one, 3, "refused", "MDQ_URL")
    assert "hunter2" not in one.output


def test_a_vhost_that_is_not_there_ends_the_run(run: Run, rabbitmq_server: RabbitMQ) -> None:
    """The virtual host is named; exit code 3."""
    refused(run(MDQ_URL=rabbitmq_server.url_of(vhost="nowhere")), 3, "nowhere", "MDQ_URL")


def test_a_wrong_redis_password_ends_the_run(run: Run, tmp_path: Path) -> None:
    """One line names MDC_URL and shows no password; exit code 3."""
    with Redis() as server:
        assert isinstance(server, Redis)
        assert server._ask(b"CONFIG SET requirepass right\r\n") == b"+OK\r\n"
        one = run(MDC_URL=server.url.replace("redis://", "redis://:hunter2@"))
        refused(one, 3, "refused the credentials", "MDC_URL")
        assert "hunter2" not in one.output
        server._ask(b"AUTH right\r\nCONFIG SET requirepass ''\r\n")


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
