"""Helm, built from its Go module once and kept by version. `python -m deploy.helm` builds it where it is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from deploy.cache import cache_directory, install

VERSION = "4.3.1"
CHART = Path(__file__).parent / "chart"


def helm() -> Path:
    """Where it is, or would be."""
    return cache_directory() / f"helm-{VERSION}" / "helm"


def build() -> None:
    """Takes about three minutes of two cores. Go verifies the module by its public checksums."""
    if helm().exists():
        return
    sys.stderr.write(f"building Helm {VERSION} into {helm().parent}: about three minutes on two cores, once\n")
    install(helm().parent, _build)


def template(*arguments: str, release: str = "otel-k8s-cgroup", namespace: str = "otel-k8s-cgroup") -> str:
    """What `helm template` prints. Raises `subprocess.CalledProcessError` with what it complains of in ``stderr``."""
    command = [str(helm()), "template", release, str(CHART), "--namespace", namespace, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _build(directory: Path) -> None:
    # Nothing of the user's that changes what is built.
    environ = os.environ | {
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
        "GOBIN": str(directory),
    }
    module = f"helm.sh/helm/v{VERSION.partition('.')[0]}/cmd/helm@v{VERSION}"
    subprocess.run(["go", "install", "-trimpath", "-ldflags", "-s -w", module], env=environ, check=True)


if __name__ == "__main__":
    build()
