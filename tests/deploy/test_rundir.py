"""Checks that a directory holds one run at a time, and which ports that run gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import rundir
from deploy.settings import LocalSettings
from service.admin import bind
from service.errors import OperatorError

PORTS = ("scp", "wds", "mdl_admin", "mdp_admin", "wds_admin", "scp_admin", "engine", "engine_admin", "bots_admin")
FREE = dict.fromkeys((f"{name}_port" for name in PORTS), 0)


def settings(**given: object) -> LocalSettings:
    return LocalSettings.model_validate({"mdq_url": "memory://", "mdc_url": "memory://", **FREE, **given})


def test_free_ports_are_all_different() -> None:
    """Zeros become numbers, one for each process."""
    ports = rundir.assign(settings(mdq_url="amqp://127.0.0.1/", mdp_workers=4))
    assert len(ports) == 13
    assert len(set(ports.values())) == 13
    assert all(ports.values())


def test_workers_of_the_data_service_get_ports_in_a_row() -> None:
    """They count up from the first by themselves, so nobody else may have one of them."""
    ports = rundir.assign(settings(wds_workers=3))
    row = set(range(ports["WDS_ADMIN_PORT"], ports["WDS_ADMIN_PORT"] + 3))
    assert len(row & set(ports.values())) == 1


def test_a_taken_port_names_its_variable() -> None:
    """The line says which port, and what to set."""
    with bind("127.0.0.1", 0, "X") as holder:
        port = holder.getsockname()[1]
        with pytest.raises(OperatorError, match=f"127.0.0.1:{port}: address already in use.*WDS_PORT"):
            rundir.assign(settings(wds_port=port))


def test_one_port_for_two_is_refused() -> None:
    """Both variables are named."""
    with pytest.raises(OperatorError, match="SCP_PORT and WDS_PORT are both 8123"):
        rundir.assign(settings(scp_port=8123, wds_port=8123))


def test_a_second_run_in_the_same_place_is_refused(tmp_path: Path) -> None:
    """The line tells where the first one is; when that ended, the place is free."""
    with rundir.occupied(tmp_path):
        rundir.write(tmp_path, {"ports": {"SCP_PORT": 8000}})
        with (
            pytest.raises(OperatorError, match=r"already runs in .*http://127\.0\.0\.1:8000.*RUN_DIR"),
            rundir.occupied(tmp_path),
        ):
            pass
    with rundir.occupied(tmp_path):
        pass


def test_an_unusable_run_dir_is_one_line(tmp_path: Path) -> None:
    """A file in the way names RUN_DIR."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="RUN_DIR="), rundir.occupied(tmp_path / "file"):
        pass


def test_what_runs_can_be_read_and_forgotten(tmp_path: Path) -> None:
    """local.json holds pid and ports; nothing or nonsense reads as nothing."""
    assert rundir.read(tmp_path) == {}
    rundir.write(tmp_path, {"ports": {"SCP_PORT": 1}})
    assert rundir.read(tmp_path)["ports"] == {"SCP_PORT": 1}
    (tmp_path / "local.json").write_text("{")
    assert rundir.read(tmp_path) == {}
    rundir.forget(tmp_path)
    rundir.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []
