"""The image, as far as it can be known without a container engine: its instructions, and the wheel that they build."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from typing import TYPE_CHECKING

import pytest

from deploy.image.dockerfile import copied_from_context, dockerfile
from otel_k8s_cgroup import __version__
from tests.deploy.files import DEPLOY, REPOSITORY, container, pins
from tests.programs import clean_environ

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the Dockerfile's own command, of nothing but what it copies."""
    directory = tmp_path_factory.mktemp("image")
    for source in copied_from_context(dockerfile()[:1]):
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, directory / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / source, directory / source)
    (command,) = (each.arguments for each in dockerfile()[0] if each.arguments.startswith("pip wheel"))
    program, *arguments = command.replace("/wheel", str(directory / "wheel")).split()
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = (directory / "wheel").iterdir()
    return built


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    """A build's context has each file that the instructions name; .dockerignore lets through those and no others."""
    kept = {
        line.removeprefix("!")
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    sources = {source.rstrip("/") for source in copied_from_context(dockerfile())}
    assert sources == kept
    for source in sources:
        assert (REPOSITORY / source).exists()


def test_the_program_runs_as_the_user_of_the_manifest() -> None:
    """By number, as ``runAsNonRoot`` needs it, and not root; what it starts is the exporter."""
    final = {instruction.word: instruction.arguments for instruction in dockerfile()[-1]}
    context = container().pod["securityContext"]
    assert final["USER"] == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert final["ENTRYPOINT"] == '["otel-k8s-cgroup"]'
    assert final["CMD"] == '["run"]'


def test_every_package_is_installed_by_its_hash() -> None:
    """Nothing comes from an index but what is pinned with hashes, and the image's pins are those of development."""
    installs = [
        command
        for stage in dockerfile()
        for instruction in stage
        if instruction.word == "RUN"
        for command in instruction.arguments.split("&&")
        if re.search(r"\bpip (\S+ )*(install|download|wheel)\b", command)
    ]
    assert installs
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command or "--no-build-isolation" in command, command
    assert pins(DEPLOY / "constraints.txt").items() <= pins(REPOSITORY / "constraints.txt").items()


def test_the_image_has_what_the_wheel_requires_and_not_the_demos(wheel: Path) -> None:
    """Each requirement without an extra is pinned for the image; rich is the demo's, and is not."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    requirements = metadata.get_all("Requires-Dist") or []
    required = {re.split(r"[^A-Za-z0-9_-]", each)[0] for each in requirements if "extra ==" not in each}
    assert required
    assert required <= pins(DEPLOY / "constraints.txt").keys()
    assert "rich" not in pins(DEPLOY / "constraints.txt")


def test_the_wheel_has_the_whole_package(wheel: Path) -> None:
    """Every module, its type marker, the licence and the command."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (each for each in names if each.endswith("entry_points.txt"))
        commands = archive.read(entry_points).decode()
    of_package = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "otel_k8s_cgroup").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert of_package <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "otel-k8s-cgroup = otel_k8s_cgroup.__main__:main" in commands


def test_no_secret_is_baked_in() -> None:
    """No argument or variable that would hold one, and nothing fetched by address."""
    for stage in dockerfile():
        for instruction in stage:
            assert instruction.word != "ADD"
            assert not re.search(r"(?i)token|password|secret|https?://", instruction.arguments), instruction


def test_each_stage_has_the_base_that_is_asked_for() -> None:
    """One argument names it, by digest too; the image itself has nothing below it, and no instruction that would need a
    shell.
    """
    *building, final = [[each.word for each in stage] for stage in dockerfile()]
    origins = [stage[0].arguments.partition(" AS ")[0] for stage in dockerfile()]
    assert origins == ["${BASE}"] * len(building) + ["scratch"]
    assert "RUN" not in final


def fake_engine(directory: Path, name: str, *, answers: bool) -> None:
    """A program that notes what it is asked, and reaches its daemon or not."""
    program = directory / name
    program.write_text(
        f'#!/bin/sh\n[ "$1" = info ] && exit {int(not answers)}\necho "{name} $*" >> "$(dirname "$0")/asked"\n'
    )
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("answering", "flags", "asked"),
    [
        ("docker", [], ["docker build FILE --tag otel-k8s-cgroup:VERSION ."]),
        (
            "docker",
            ["--name", "r/x:1", "--platform", "linux/amd64,linux/arm64", "--push", "--base", "b"],
            ["docker buildx build FILE --build-arg BASE=b --platform linux/amd64,linux/arm64 --tag r/x:1 --push ."],
        ),
        (
            "podman",
            ["--name", "r/x:1", "--push"],
            [
                "podman build FILE --tag r/x:1 .",
                "podman push r/x:1",
            ],
        ),
    ],
)
def test_the_engine_that_answers_builds_it(answering: str, flags: list[str], asked: list[str], tmp_path: Path) -> None:
    """One that is installed but has no daemon is passed over."""
    for name in ("docker", "podman"):
        fake_engine(tmp_path, name, answers=name == answering)
    environ = clean_environ()
    done = subprocess.run(
        [sys.executable, "-m", "deploy.image", *flags],
        cwd=REPOSITORY,
        env=environ | {"PATH": f"{tmp_path}:{environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file = f"--file {REPOSITORY / 'deploy/Dockerfile'} --build-arg REVISION="
    said = re.sub(re.escape(file) + r"\w+", "FILE", (tmp_path / "asked").read_text()).replace(str(REPOSITORY), ".")
    assert said.replace(__version__, "VERSION").splitlines() == asked
