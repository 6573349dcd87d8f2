"""Drives the stack of deploy/compose.yaml with the Docker command, under a project name, ports, a subnet and secrets of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers import free_port
from tests.signing import ADMIN, PASSWORD

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGE = os.environ.get("TAPELINE_IMAGE", "tapeline")
OURS = ("mdl", "mdp", "wds", "scp")


def run(*arguments: str | Path, check: bool = True, given: str = "", **environment: str) -> str:
    """Return what a command prints.  Raises: RuntimeError with the end of its errors."""
    done = subprocess.run(
        [str(a) for a in arguments], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900,
        input=given,
    )  # fmt: skip
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments[:8]))} …: {done.stderr[-2000:]}")
    return done.stdout


class Stack:
    """One stack; `secrets` is the folder of its secrets, `variables` what compose.yaml reads."""

    def __init__(
        self, folder: Path, profiles: tuple[str, ...] = (), name: str = "tapeline-test", own: str = "", **variables: str
    ) -> None:
        self.name, self.folder, self.secrets = name, folder, folder / "secrets"
        self.page_port, self.stream_port = free_port(), free_port()
        tls = ["-f", "deploy/compose.tls.yaml"] if "tls" in profiles else []
        self._compose = ["docker", "compose", "-p", name, "-f", "deploy/compose.yaml", *tls]
        if own:  # a compose file on top
            (folder / "own.yaml").write_text(own)
            self._compose += ["-f", str(folder / "own.yaml")]
        self._own = {"OWN": str(folder / "own.yaml")} if own else {}
        self._profiles = [f"--profile={profile}" for profile in profiles if profile != "tls"]
        self._tls = bool(tls)
        self._cookie = ""  # of the administrator's session
        self.replica = ""  # the container that took the place of the cache
        self.lasting = folder / "stack.env"  # what every `make up` reads
        self.variables = {
            "TAPELINE_IMAGE": IMAGE, "SECRETS": str(self.secrets), "INSIDE_SUBNET": "172.31.249.0/24", "OUTSIDE_SUBNET": "172.31.248.0/24",
            "SCP_PORT": str(self.page_port), "WDS_PORT": str(self.stream_port), "HTTPS_PORT": str(self.page_port),
            "PUBLIC_URL": self.page_url, "WDS_PUBLIC_URL": self.stream_url, "BIND": "127.0.0.1",
            "NOFILE": str(min(65_536, int(run("sh", "-c", "ulimit -Hn | sed s/unlimited/65536/")))), **variables,
        }  # fmt: skip

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Return what `docker compose …` prints."""
        return run(*self._compose, *self._profiles, *arguments, check=check, **self.variables)

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which deploy/README.md's commands concern this stack."""
        own = {"COMPOSE_PROJECT_NAME": self.name, "STACK": str(self.lasting), "BUILD": "no", **self._own}
        return {**os.environ, **self.variables, **own}

    def make_up(self, target: str = "up", **lasting: str) -> float:
        """Run `make up`, with these variables for this time and all later ones; return the seconds that took."""
        began_s = time.monotonic()
        with self.lasting.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in lasting.items())
        run("make", target, **self.environment)
        return time.monotonic() - began_s

    def make_secrets(self) -> None:
        """Have the image make the secrets, as `make up` does."""
        self.secrets.mkdir(parents=True, exist_ok=True)
        user, extra = f"{os.getuid()}:{os.getgid()}", ["--tls"] if self._tls else []
        run("docker", "run", "--rm", "--network=none", f"--user={user}", "-v", f"{self.secrets}:/secrets", IMAGE,
            "python", "-m", "deploy.credentials", "/secrets", *extra)  # fmt: skip

    def up(self, *services: str, scale: dict[str, int] | None = None) -> float:
        """Start services, wait until all are healthy, return the seconds that took."""
        began_s = time.monotonic()
        scales = [f"--scale={name}={n}" for name, n in (scale or {}).items()]
        self.compose("up", "-d", "--wait", "--wait-timeout", "120", *scales, *services)
        return time.monotonic() - began_s

    def down(self) -> None:
        """Remove containers, networks and volumes."""
        if self.replica:
            run("docker", "rm", "-f", self.replica, check=False)
        run(*self._compose, "--profile=*", "down", "--volumes", "--remove-orphans", "--timeout", "5", **self.variables)

    def containers(self, service: str = "") -> list[str]:
        """Return the ids of the running containers, or of those of one service."""
        return self.compose("ps", "-q", *([service] if service else [])).split()

    def inspect(self, *ids: str) -> list[dict[str, Any]]:
        """Return what Docker knows of containers."""
        return list(json.loads(run("docker", "inspect", *ids)))

    def counts(self) -> dict[str, int]:
        """Return what the processors have counted over all partitions: events, expired, dropped, redelivered, bad."""
        tls = "--tls --cacert /run/secrets/ca.pem" if self._tls else ""
        ask = f"REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli {tls} --json hvals part:counts"
        total = dict.fromkeys(("events", "expired", "dropped", "redelivered", "bad"), 0)
        (cache,) = [self.replica] if self.replica else self.containers("redis")
        for body in json.loads(run("docker", "exec", cache, "sh", "-c", ask) or "[]"):
            part = json.loads(body)
            for name in total:
                value = part[name] if isinstance(part[name], dict) else {"": part[name]}
                total[name] += sum(n for key, n in value.items() if key.rpartition("/")[2] != "status")
        return total

    @property
    def page_url(self) -> str:
        """Where the door's page is."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.page_port}"

    @property
    def stream_url(self) -> str:
        """Where the door's stream is: with TLS on the page's own origin."""
        return f"wss://127.0.0.1:{self.page_port}/v1/stream" if self._tls else f"ws://127.0.0.1:{self.stream_port}/v1/stream"

    def stream_token(self) -> str:
        """Return a token for the stream, as a browser gets it through the door: by the first link, later by name and password."""
        if self._tls:
            os.environ["SSL_CERT_FILE"] = str(self.secrets / "ca.pem")  # what this process's clients trust from now on
        if not self._cookie:
            link = self.compose("exec", "-T", "scp", "sh", "-c", "cat $RUN_DIR/welcome.url || true").strip()
            who = {"username": ADMIN, "password": PASSWORD}
            if link:
                assert link.startswith(f"{self.page_url}/welcome#"), link
                who["link"] = link.partition("#")[2]
            path, headers = "links/use" if link else "sign-in", {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{self.page_url}/api/v1/{path}", json.dumps(who).encode(), headers)
            self._cookie = self._ask(request)[0].partition(";")[0]
        answer = self._ask(urllib.request.Request(f"{self.page_url}/api/session", headers={"Cookie": self._cookie}))[1]
        return str(json.loads(answer)["token"])

    def page(self, path: str) -> tuple[int, Any]:
        """Return status and document of what a browser asks the page for, signed in as the administrator."""
        self.stream_token()
        request = urllib.request.Request(f"{self.page_url}{path}", headers={"Cookie": self._cookie})
        try:
            return 200, json.loads(self._ask(request)[1])
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read() or b"null")

    def sign_out(self) -> None:
        """Forget the session."""
        self._cookie = ""

    def _ask(self, request: urllib.request.Request) -> tuple[str, bytes]:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.headers.get("Set-Cookie", ""), answer.read()
