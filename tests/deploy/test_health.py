"""deploy/health.py: what the image's health check finds at a real admin port."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.health import PORTS, answer, ports
from mdl.settings import MdlSettings, VendorSettings
from mdp.settings import MdpSettings
from scp.settings import ScpSettings
from service.admin import AdminServer
from service.settings import load
from tests.servers import free_port
from wds.settings import WdsSettings

SCRIPT = Path(__file__).resolve().parent.parent.parent / "deploy" / "health.py"


@pytest.fixture
async def admin() -> AsyncIterator[tuple[AdminServer, list[str]]]:
    """An admin port that says what the list says."""
    reasons: list[str] = []
    server = AdminServer("engine", "127.0.0.1", 0, "token", lambda: reasons)
    await server.start()
    yield server, reasons
    await server.stop()


async def ask(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run the script as Docker does."""

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-IS", str(SCRIPT), *arguments, env={**os.environ, **environment}, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_a_component_is_healthy_while_it_is_ready(admin: tuple[AdminServer, list[str]]) -> None:
    """The reason is what `docker inspect` shows of a container that is not."""
    server, reasons = admin
    assert (await ask(ENGINE_ADMIN_PORT=str(server.port)))[0] == 0
    reasons.append("RabbitMQ cannot be reached")
    code, told = await ask(ENGINE_ADMIN_PORT=str(server.port))
    assert code == 1
    assert "RabbitMQ cannot be reached" in told


async def test_other_places_answer_or_do_not(admin: tuple[AdminServer, list[str]]) -> None:
    """`helm test` asks the services by name."""
    server, _ = admin
    code, told = await ask(f"127.0.0.1:{server.port}/livez", f"127.0.0.1:{server.port}/nothing")
    assert (code, "200" in told, "404" in told) == (0, True, True)
    code, told = await ask(f"127.0.0.1:{free_port()}/")
    assert (code, "nobody answers" in told) == (1, True)


def test_a_closed_port_is_no_answer() -> None:
    """A component that starts has no port yet."""
    assert answer("127.0.0.1", free_port(), "/readyz") is None


def test_the_ports_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A default that moves moves here, too; no two components share one."""
    from engine.bots.runner import BotsSettings
    from engine.oms.consumer import OmsSettings
    from engine.risk.service import RiskSettings
    from engine.settings import EngineSettings

    for name in PORTS:
        monkeypatch.delenv(f"{name}_ADMIN_PORT", raising=False)
    classes = {
        "MDL": MdlSettings, "MDP": MdpSettings, "WDS": WdsSettings, "SCP": ScpSettings, "ENGINE": EngineSettings,
        "BOTS": BotsSettings, "OMS": OmsSettings, "RISK": RiskSettings,
    }  # fmt: skip
    found = {name: load(cls).admin_port for name, cls in classes.items()} | {"MDL_VENDOR": load(VendorSettings).vendor_admin_port}
    assert found == PORTS
    assert len(set(PORTS.values())) == len(PORTS)
    assert ports({"WDS_ADMIN_PORT": "7777", "MDL_ADMIN_PORT": "x"})[0] == 7777
