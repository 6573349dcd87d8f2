"""Installs plug-ins as an operator does, into a throw-away folder on PYTHONPATH: the example, and one that misbehaves on demand."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.stack import ROOT

EXAMPLE = ROOT / "mdp" / "plugins" / "example"


def install(folder: Path, target: Path) -> None:
    """`pip install FOLDER`, without any index; the folder itself stays as it is."""
    copy = target.parent / f"{folder.name}-source"
    shutil.copytree(folder, copy)
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    argv += ["--no-build-isolation", "--target", str(target), str(copy)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(copy)


def package(target: Path, name: str, points: dict[str, str], code: str, version: str = "1.0") -> None:
    """Put what an installer would leave of a package with this one module into `target`: far quicker than to build it."""
    module = name.replace("-", "_")
    (target / f"{module}.py").write_text(code)
    info = target / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = "".join(f"{point} = {where}\n" for point, where in points.items())
    (info / "entry_points.txt").write_text(f"[tapeline.analyzers]\n{lines}")
