"""`make build`: a wheel and a source distribution that install into an empty environment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup import __version__
from tests.deploy.files import DEPLOY, REPOSITORY
from tests.programs import clean_environ

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SOURCES = {
    str(path.relative_to(REPOSITORY))
    for path in (REPOSITORY / "otel_k8s_cgroup").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=REPOSITORY,
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Makefile's own command, into another directory."""
    directory = tmp_path_factory.mktemp("dist")
    (command,) = re.findall(
        r"^\t@\$\(BIN\)/python (-m hatchling build .*)$", (REPOSITORY / "Makefile").read_text(), re.M
    )
    run(sys.executable, *command.replace("--directory dist", f"--directory {directory}").split())
    return directory


def names(wheel: Path) -> Sequence[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_both_have_the_programs_version_and_its_sources(built: Path) -> None:
    """The version is written once, in the package; the source distribution has the package and its documents alone."""
    wheel, sdist = (
        built / f"otel_k8s_cgroup-{__version__}-py3-none-any.whl",
        built / f"otel_k8s_cgroup-{__version__}.tar.gz",
    )
    assert sorted(built.iterdir()) == [wheel, sdist]
    with tarfile.open(sdist) as tar:
        inside = {each.partition("/")[2] for each in tar.getnames()}
    assert inside == SOURCES | {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert set(names(wheel)) >= SOURCES
    of_version = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])")
    assert not of_version.search((REPOSITORY / "pyproject.toml").read_text())


def test_the_source_distribution_makes_the_same_wheel(built: Path, tmp_path: Path) -> None:
    """Without the repository around it."""
    (sdist,) = built.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", tmp_path, sdist)
    (again,) = tmp_path.glob("*.whl")
    (wheel,) = built.glob("*.whl")
    assert names(again) == names(wheel)


def test_it_installs_into_an_empty_environment(built: Path, tmp_path: Path) -> None:
    """With what is pinned for the image and nothing else, every requirement is met, and its command runs."""
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path)
    python = tmp_path / "bin/python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--require-hashes", "--no-deps", "--no-compile", "-r", DEPLOY / "constraints.txt")
    run(*pip, "install", "--no-index", wheel)  # resolves its requirements against what is there
    run(*pip, "check")
    assert run(tmp_path / "bin/otel-k8s-cgroup", "--version") == f"otel-k8s-cgroup {__version__}\n"
    assert "--otlp-endpoint" in run(tmp_path / "bin/otel-k8s-cgroup", "run", "--help")
    installed = {each["name"] for each in json.loads(run(*pip, "list", "--format", "json"))}
    assert "otel-k8s-cgroup" in installed
    assert not installed & {"rich", "pytest", "hatchling"}
