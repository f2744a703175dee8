"""deploy/Dockerfile, built by a real engine: Buildah, from a base image that no registry is needed for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.image.dockerfile import DOCKERFILE, REPOSITORY, dockerfile
from otel_k8s_cgroup import __version__
from tests.deploy.base_image import BASE, buildah, why_not
from tests.deploy.files import container
from tests.deploy.test_image import IMPORT_ALL, LARGEST_BYTES, Image, contained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

NAME = "localhost/otel-k8s-cgroup:test"
# How this machine reaches its package index; nothing of it is in the image.
MOUNTED = [path for path in ("/etc/pip.conf", "/etc/ssl/certs") if Path(path).exists()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Image, str]]:
    """The image, mounted, and what the engine wrote while it built it; twenty seconds."""
    directory = tmp_path_factory.mktemp("engine")

    def run(*arguments: str) -> str:
        command = buildah(directory / "store", directory / "run", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    volumes = [word for path in MOUNTED for word in ("--volume", f"{path}:{path}:ro")]
    output = run(
        *("build", "--isolation", "chroot", "--layers=false", "--file", str(DOCKERFILE), "--tag", NAME),
        *("--build-arg", f"BASE={BASE}", "--build-arg", "REVISION=abc", *volumes, str(REPOSITORY)),
    )
    config: dict[str, Any] = json.loads(run("inspect", "--type", "image", NAME))["OCIv1"]
    working = run("from", NAME).strip()
    root = Path(run("mount", working).strip())
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    size_bytes = sum(path.stat().st_size for path in files)
    try:
        yield Image(root, config, frozenset(str(path.relative_to(root)) for path in files), size_bytes), output
    finally:
        remove(run, working)


def remove(run: Callable[..., str], working: str) -> None:
    run("umount", working)
    run("rm", working)
    run("rmi", "--all", "--force")


def test_each_instruction_is_carried_out(built: tuple[Image, str]) -> None:
    """In its stage, in order, and once."""
    _, output = built
    steps = [line.partition(": ")[2] for line in output.splitlines() if "STEP " in line]
    wanted = [each.word for stage in dockerfile() for each in stage]
    assert [step.split()[0] for step in steps] == wanted


def test_the_image_is_the_dockerfiles(built: tuple[Image, str]) -> None:
    """Small, with the user, the command and the labels that it names; neither a shell nor pip."""
    image, _ = built
    config = image.config["config"]
    context = container().pod["securityContext"]
    assert config["User"] == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert (config["Entrypoint"], config["Cmd"]) == (["otel-k8s-cgroup"], ["run"])
    prefix = "org.opencontainers.image."
    labels = {key.removeprefix(prefix): value for key, value in config["Labels"].items()}
    assert (labels["version"], labels["revision"], labels["base.name"]) == (__version__, "abc", BASE)
    assert image.size_bytes < LARGEST_BYTES
    assert not {Path(name).name for name in image.files} & {"sh", "bash", "dash", "pip", "apt", "dpkg"}


def test_the_program_runs_in_it(built: tuple[Image, str]) -> None:
    """As the manifest's user, on a read-only root: the command, and every module but the demo's."""
    image, _ = built
    for words, said in (
        ([*image.config["config"]["Entrypoint"], "--version"], f"otel-k8s-cgroup {__version__}"),
        (["python", "-W", "error", "-c", IMPORT_ALL], "all of them"),
    ):
        with contained(image, words, {}, {}) as program:
            assert program.wait() == 0, program.output
        assert program.lines[-1] == said
