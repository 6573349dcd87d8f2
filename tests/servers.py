"""Runs private RabbitMQ, Redis and PostgreSQL servers with ports, data and epmd of their own, and stops them by pid."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

START_S_MAX = 90  # a cold Erlang node on a busy machine; 3 s when idle
STOP_S_MAX = 20
INSTALL = "apt-get install rabbitmq-server redis-server postgresql, or set {variable} to a running one"


class ServerMissing(Exception):
    """The server's program is not on this machine; the message says how to get it."""


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Process:
    """One child process and the watchdog that ends it when the test run itself is killed."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path, log: Path, user: str | None = None) -> None:
        self._log = log
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, user=user
            )
        # The pipe closes when this process ends, however it ends; then `read` returns and the server dies with us.
        watch = ["/bin/sh", "-c", 'read _; kill -9 "$1" 2>/dev/null', "watchdog", str(self._child.pid)]
        self._watchdog = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def tail(self) -> str:
        """Return the end of what the process printed."""
        return self._log.read_text(errors="replace")[-2000:]

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """Send `sig`, wait for the end (SIGKILL after 20 s) and dismiss the watchdog."""
        if self.running:
            self._child.send_signal(sig)
        try:
            self._child.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._watchdog.kill()
        self._watchdog.wait()
        if self._watchdog.stdin:
            self._watchdog.stdin.close()


class Server:
    """What RabbitMQ and Redis have in common. All calls block: from a coroutine use `await asyncio.to_thread(...)`."""

    variable = ""

    def __init__(self) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="tapeline-test-"))
        self.port = free_port()
        self._process: Process | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self._process = self._spawn()
        deadline = time.monotonic() + START_S_MAX
        while not self._answers():
            if not self._process.running or time.monotonic() > deadline:
                raise RuntimeError(f"{type(self).__name__} did not start:\n{self._process.tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in order (SIGTERM); data and port are kept for the next `start()`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the process from running without closing its sockets (SIGSTOP): a hung server."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process run again."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start it on the same port."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop it and delete its data."""
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _end(self, sig: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.thaw()
            self._process.stop(sig)
            self._process = None

    def _spawn(self) -> Process:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _ask(self, question: bytes) -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(question)
                return sock.recv(64)
        except OSError:
            return b""


class Redis(Server):
    """A redis-server without files; `restart()` therefore loses everything, `restart(empty=False)` keeps the data."""

    variable = "TEST_MDC_URL"

    def __init__(self) -> None:
        self._program = _find(["redis-server", "valkey-server"], [], self.variable)
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def restart(self, empty: bool = True) -> None:
        """Stop and start it on the same port; `empty` False saves the data before and loads it again."""
        if not empty:
            self._ask(b"SAVE\r\n")
        self.stop()
        if empty:
            (self.dir / "dump.rdb").unlink(missing_ok=True)
        self.start()

    def _spawn(self) -> Process:
        argv = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.dir)]
        argv += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"]
        return Process(argv, dict(os.environ), self.dir, self.dir / "redis.log")

    def _answers(self) -> bool:
        return self._ask(b"PING\r\n").startswith(b"+PONG")


class RabbitMQ(Server):
    """One RabbitMQ node with a home, an epmd, ports and data of its own; user guest. Queues survive `restart()`, not messages.

    `plugins` are names like `rabbitmq_management`; its port is `management_port` then. `settings` are rabbitmq.conf lines.
    """

    variable = "TEST_MDQ_URL"
    places = (
        "/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin",
        "/usr/local/opt/rabbitmq/sbin", "/opt/homebrew/opt/rabbitmq/sbin",
    )  # fmt: skip

    def __init__(self, plugins: tuple[str, ...] = (), settings: str = "") -> None:
        # The distributions' /usr/sbin/rabbitmq-server changes user and drops the environment: the inner script comes first.
        self._program = _find(["rabbitmq-server"], list(self.places), self.variable)
        self._epmd_program = _find(["epmd"], ["/usr/lib/erlang/erts-*/bin", "/usr/local/lib/erlang/erts-*/bin"], self.variable)
        super().__init__()
        self.management_port = free_port()
        self._dist_port, self._epmd_port = free_port(), free_port()
        self._epmd: Process | None = None
        self._write_config(plugins, settings)

    @property
    def url(self) -> str:
        return self.url_of()

    def url_of(self, user: str = "guest", password: str = "guest", vhost: str = "/") -> str:
        """Return an AMQP URL of this node with other credentials or another vhost."""
        return f"amqp://{quote(user)}:{quote(password)}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def remove(self) -> None:
        super().remove()
        if self._epmd is not None:
            self._epmd.stop(signal.SIGKILL)
            self._epmd = None

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against this node (a second each: for what AMQP cannot do) and return what it printed."""
        program = _find(["rabbitmqctl"], list(self.places), self.variable)
        argv = [program, "--node", self._node, *arguments]
        done = subprocess.run(argv, env=self._env(), cwd=self.dir, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {arguments[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    @property
    def _node(self) -> str:
        return f"tapeline{self.port}@localhost"

    def _write_config(self, plugins: tuple[str, ...], settings: str) -> None:
        lines = ["log.console.level = warning", "disk_free_limit.absolute = 1MB", settings]
        if plugins:
            lines += [f"management.tcp.port = {self.management_port}", "management.tcp.ip = 127.0.0.1"]
        (self.dir / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.dir / "plugins").write_text(f"[{','.join(plugins)}].\n")
        (self.dir / "home").mkdir()

    def _env(self) -> dict[str, str]:
        own, loopback = str(self.dir), "127.0.0.1"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        return inherited | {
            "HOME": f"{own}/home",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": loopback,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": loopback,
            "RABBITMQ_MNESIA_BASE": f"{own}/data",
            "RABBITMQ_LOG_BASE": f"{own}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{own}/pid",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{own}/rabbitmq",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{own}/advanced",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{own}/generated",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{own}/plugins",
            # Two schedulers and no busy waiting: the node must leave the few cores of a test machine to the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none",
            # The start script then becomes the Erlang VM (exec), so that our child's pid is the node's pid.
            "RUNNING_UNDER_SYSTEMD": "yes",
        }

    def _spawn(self) -> Process:
        env = self._env()
        if self._epmd is None:  # ours, in the foreground: otherwise Erlang would leave one behind as a daemon
            argv = [self._epmd_program, "-address", "127.0.0.1", "-port", str(self._epmd_port)]
            self._epmd = Process(argv, env, self.dir, self.dir / "epmd.log")
            _wait_for_port(self._epmd_port)
        return Process([self._program], env, self.dir, self.dir / "rabbitmq.log")

    def _answers(self) -> bool:
        return self._ask(b"AMQP\x00\x00\x09\x01").startswith(b"\x01\x00\x00")


class Postgres(Server):
    """One PostgreSQL cluster with a superuser `tapeline`. It refuses to be root: then it runs as postgres, or as nobody."""

    variable = "TEST_POSTGRES_URL"
    places = ("/usr/lib/postgresql/*/bin", "/usr/local/opt/postgresql*/bin", "/opt/homebrew/opt/postgresql*/bin")

    def __init__(self) -> None:
        self._program = _find(["postgres"], list(self.places), self.variable)
        self._initdb = _find(["initdb"], list(self.places), self.variable)
        super().__init__()
        self._user = None
        if os.getuid() == 0:
            self._user = next(user.pw_name for name in ("postgres", "nobody") for user in pwd.getpwall() if user.pw_name == name)
            shutil.chown(self.dir, self._user)

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the URL of one database of this server."""
        return f"postgresql://tapeline@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it; after a `kill` it refuses until the last of its orphaned processes has noticed and let go of the memory."""
        deadline = time.monotonic() + STOP_S_MAX
        while True:
            try:
                super().start()
                return
            except RuntimeError as error:
                if "shared memory block" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _spawn(self) -> Process:
        data = self.dir / "data"
        if not data.exists():
            argv = [self._initdb, "--pgdata", str(data), "--username", "tapeline", "--auth", "trust", "--encoding", "UTF8"]
            argv += ["--locale", "C", "--no-sync"]
            subprocess.run(argv, cwd=self.dir, check=True, capture_output=True, timeout=START_S_MAX, user=self._user)
        argv = [self._program, "-D", str(data), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.dir)]
        argv += ["-c", "shared_buffers=16MB", "-c", "max_connections=20"]
        return Process(argv, dict(os.environ), self.dir, self.dir / "postgres.log", self._user)

    def _answers(self) -> bool:
        # A startup packet of protocol 3.0 for a user; the answer R asks for (no) authentication, E says "starting up".
        body = b"\x00\x03\x00\x00user\x00tapeline\x00database\x00postgres\x00\x00"
        return self._ask((len(body) + 4).to_bytes(4, "big") + body).startswith(b"R")


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.01)


def _find(names: list[str], places: list[str], variable: str) -> str:
    """Return the program's path: from `places` (globs) first, then from PATH and the system folders."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin"])
    for name in names:
        for place in places:
            for found in sorted(glob.glob(f"{place}/{name}"), reverse=True):
                return found
        if which := shutil.which(name, path=search):
            return which
    raise ServerMissing(f"{names[0]} is not installed: {INSTALL.format(variable=variable)}")
