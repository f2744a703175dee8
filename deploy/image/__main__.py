"""Builds the image with the engine that is there, or without one: `make image`.

With Docker, Podman, nerdctl or Buildah, whichever answers first, deploy/Dockerfile is built as it stands. Where none
does, root on Linux gets an archive of the image for its own architecture, made of the Python that runs this.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.image import engine
from deploy.image.dockerfile import DOCKERFILE, REPOSITORY
from otel_k8s_cgroup import __version__

_ENGINES = ("docker", "podman", "nerdctl", "buildah")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.image", description=__doc__, allow_abbrev=False)
    parser.add_argument("--name", default=f"otel-k8s-cgroup:{__version__}", help="name and tag (default: %(default)s)")
    parser.add_argument("--base", default="", help="base image, such as python:3.13-slim@sha256:…")
    parser.add_argument("--platform", default="", help="such as linux/amd64,linux/arm64 (with Docker: --push as well)")
    parser.add_argument("--push", action="store_true", help="to the registry of the name, once it is built")
    parser.add_argument("--without-engine", metavar="ARCHIVE", type=Path, help="assemble it into this file in any case")
    arguments = parser.parse_args()
    found = None if arguments.without_engine else engine_here()
    if found is None:
        if arguments.base or arguments.platform or arguments.push:
            sys.stderr.write("--base, --platform and --push need a container engine, and none answers here\n")
            return 2
        return assemble(arguments.without_engine, arguments.name)
    sys.stderr.write(f"building {arguments.name} with {found}\n")
    command = build_command(found, arguments.name, arguments.base, arguments.platform, push=arguments.push)
    code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    if code != 0:
        sys.stderr.write("without an engine and a registry: make image FLAGS='--without-engine FILE'\n")
    if code == 0 and arguments.push and "--push" not in command:
        code = subprocess.run([found, "push", arguments.name], check=False).returncode
    return code


def engine_here() -> str | None:
    """The first engine that is installed and, where it needs a daemon, reaches it."""
    for name in _ENGINES:
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return None


def builds_and_pushes(found: str, platforms: str) -> bool:
    """Whether the build has to push: Docker keeps no image of several platforms by itself."""
    return found == "docker" and bool(platforms)


def build_command(found: str, name: str, base: str, platforms: str, *, push: bool) -> list[str]:
    """What builds deploy/Dockerfile with that engine."""
    command = [found, "buildx", "build"] if builds_and_pushes(found, platforms) else [found, "build"]
    command += ["--file", str(DOCKERFILE), "--build-arg", f"REVISION={engine.revision()}"]
    if base:
        command += ["--build-arg", f"BASE={base}"]
    if platforms:
        command += ["--platform", platforms]
    if platforms and found in ("podman", "buildah"):
        command += ["--manifest", name]
    else:
        command += ["--tag", name]
    return [*command, *(["--push"] if push and builds_and_pushes(found, platforms) else []), str(REPOSITORY)]


def assemble(archive: Path | None, name: str) -> int:
    """Without an engine, into ``archive``, else below dist/."""
    if reason := engine.why_not():
        sys.stderr.write(f"no container engine answers here ({', '.join(_ENGINES)}), and {reason}\n")
        return 1
    archive = (archive or REPOSITORY / "dist" / f"otel-k8s-cgroup-{__version__}-{platform.machine()}.tar").absolute()
    archive.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(
        f"without a container engine: assembling {name} of this machine's Python {platform.python_version()}\n"
    )
    engine.assemble(archive, name)
    sys.stderr.write(f"{archive}: kind load image-archive, minikube image load, k3s ctr images import, docker load\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
