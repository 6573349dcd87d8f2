"""Drives the stack of deploy/compose.yaml with the Docker command, under a project name, ports, a subnet and secrets of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers import free_port
from tests.signing import first_admin

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

    def __init__(self, folder: Path, profiles: tuple[str, ...] = (), name: str = "tapeline-test", **variables: str) -> None:
        self.name, self.folder, self.secrets = name, folder, folder / "secrets"
        self.page_port, self.stream_port = free_port(), free_port()
        tls = ["-f", "deploy/compose.tls.yaml"] if "tls" in profiles else []
        self._compose = ["docker", "compose", "-p", name, "-f", "deploy/compose.yaml", *tls]
        self._profiles = [f"--profile={profile}" for profile in profiles if profile != "tls"]
        self._tls = bool(tls)
        self.variables = {
            "TAPELINE_IMAGE": IMAGE, "SECRETS": str(self.secrets), "INSIDE_SUBNET": "172.31.249.0/24", "OUTSIDE_SUBNET": "172.31.248.0/24",
            "SCP_PORT": str(self.page_port), "WDS_PORT": str(self.stream_port), "HTTPS_PORT": str(self.page_port),
            "PUBLIC_URL": f"http://127.0.0.1:{self.page_port}", "WDS_PUBLIC_URL": f"ws://127.0.0.1:{self.stream_port}/v1/stream",
            "NOFILE": str(min(65_536, int(run("sh", "-c", "ulimit -Hn | sed s/unlimited/65536/")))), **variables,
        }  # fmt: skip

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Return what `docker compose …` prints."""
        return run(*self._compose, *self._profiles, *arguments, check=check, **self.variables)

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
        run(*self._compose, "--profile=*", "down", "--volumes", "--remove-orphans", "--timeout", "5", **self.variables)

    def containers(self, service: str = "") -> list[str]:
        """Return the ids of the running containers, or of those of one service."""
        return self.compose("ps", "-q", *([service] if service else [])).split()

    def inspect(self, *ids: str) -> list[dict[str, Any]]:
        """Return what Docker knows of containers."""
        return list(json.loads(run("docker", "inspect", *ids)))

    def counts(self) -> dict[str, int]:
        """Return what the processors have counted over all partitions: events, expired, dropped, redelivered, bad."""
        ask = "REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli --json hvals part:counts"
        total = dict.fromkeys(("events", "expired", "dropped", "redelivered", "bad"), 0)
        for body in json.loads(self.compose("exec", "-T", "redis", "sh", "-c", ask) or "[]"):
            part = json.loads(body)
            for name in total:
                value = part[name] if isinstance(part[name], dict) else {"": part[name]}
                total[name] += sum(n for key, n in value.items() if key.rpartition("/")[2] != "status")
        return total

    @property
    def stream_url(self) -> str:
        """Where the door's stream is."""
        return f"ws://127.0.0.1:{self.stream_port}/v1/stream"

    def stream_token(self) -> str:
        """Make the first administrator as a browser would, through the door, and return a token for the stream."""
        link = self.compose("exec", "-T", "scp", "cat", "/var/lib/tapeline/welcome.url")
        (self.folder / "welcome.url").write_text(link)
        cookie = first_admin(self.page_port, self.folder)
        request = urllib.request.Request(f"http://127.0.0.1:{self.page_port}/api/session")
        request.add_header("Cookie", f"{cookie['name']}={cookie['value']}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(json.load(answer)["token"])
