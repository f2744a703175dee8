"""A base image for deploy/Dockerfile without a registry: Debian's Python, by debootstrap. For `make image-test`.

It has what the Dockerfile asks of an official `python` image: `python` and `pip` by these names, and glibc.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from deploy.cache import cache_directory, install, short_hash

if TYPE_CHECKING:
    from pathlib import Path

BASE = "localhost/python:debian"
_SUITE = "bookworm"
_PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
_PROGRAMS = ("buildah", "debootstrap")
_STORE = cache_directory() / f"image-base-{short_hash(' '.join((_SUITE, *_PACKAGES)))}" / "store"


def why_not() -> str | None:
    """Why the Dockerfile cannot be built here by an engine; None where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "an image is built only by root on Linux"
    if not os.environ.get("IMAGE_TEST") or not _STORE.is_dir():
        return "it takes half a minute: `make image-test` does so (needs buildah and debootstrap)"
    return None


def buildah(store: Path, run: Path, *arguments: str) -> list[str]:
    """The command line: with a storage of its own, beside which the base image is there to read."""
    options = ["--root", str(store), "--runroot", str(run), "--storage-driver", "vfs"]
    if store != _STORE:
        options += ["--storage-opt", f"vfs.imagestore={_STORE}"]
    return ["buildah", *options, *arguments]


def make() -> None:
    """Takes half a minute and 60 MB of Debian's packages, once."""
    if _STORE.is_dir():
        return
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        sys.exit(f"no base image: not installed: {', '.join(missing)}")
    sys.stderr.write(f"making a base image of Debian's Python into {_STORE.parent}: half a minute, once\n")
    install(_STORE.parent, _make)


def _make(directory: Path) -> None:
    root, store, run = directory / "root", directory / _STORE.name, directory / "run"
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(root)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    (root / "usr/bin/python").symlink_to("python3")
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    for package in root.glob("var/cache/apt/archives/*.deb"):
        package.unlink()
    options = ["buildah", "--root", str(store), "--runroot", str(run), "--storage-driver", "vfs"]
    made = subprocess.run([*options, "from", "scratch"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run([*options, "add", "--quiet", made, str(root), "/"], check=True, stdout=sys.stderr)
    subprocess.run([*options, "commit", "--quiet", "--rm", made, BASE], check=True, stdout=sys.stderr)
    for each in (root, run):
        shutil.rmtree(each)


if __name__ == "__main__":
    make()
