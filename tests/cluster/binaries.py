"""The programs of a node that no package has: built once, and kept outside the checkout by version and recipe."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cache import cache_directory, install, short_hash
from tests.cluster import nest
from tests.cluster.versions import KUBERNETES

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAMS = ("kube-apiserver", "kubelet", "kubectl")
_WORKLOAD = Path(__file__).with_name("workload.c")

# What must be there, and the package of Debian's that has it.
_FROM_PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "gcc": "gcc and libc6-dev",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
CNI_PLUGINS = Path("/usr/lib/cni")
BUSYBOX = Path("/bin/busybox")


def why_not() -> str | None:
    """Why no node can be run on this machine; None where it can (its programs may still have to be built)."""
    if sys.platform != "linux":
        return "a Kubernetes node needs Linux"
    if os.geteuid() != 0:
        return "a Kubernetes node needs root"
    missing = sorted({package for program, package in _FROM_PACKAGES.items() if shutil.which(program) is None})
    missing += [] if (CNI_PLUGINS / "bridge").exists() else ["containernetworking-plugins"]
    missing += [] if BUSYBOX.exists() else ["busybox-static"]
    if missing:
        return f"not installed (Debian and Ubuntu: apt-get install): {', '.join(missing)}"
    if reason := _why_not_isolated():
        return reason
    if shutil.which("go") is None and not _kubernetes(_here()).is_dir():
        return "Go is not installed, which kube-apiserver and kubelet are built with"
    return None


def _why_not_isolated() -> str | None:
    if not nest.hierarchies():
        return f"no cgroups are mounted below {nest.ROOT}"
    probe = nest.Nest(f"otel-k8s-cgroup-probe-{os.getpid()}")
    try:
        probe.make()
        probe.remove()
    except OSError as error:
        return f"no cgroup can be made: {error}"
    command = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "mount", "-t", "tmpfs"]
    done = subprocess.run([*command, "none", "/mnt"], capture_output=True, text=True, check=False)
    return f"namespaces cannot be made: {done.stderr.strip()}" if done.returncode != 0 else None


def kubernetes(version: str | None = None) -> Path:
    """The directory of ``PROGRAMS``, built (minutes of two cores) where it is not there yet; None: those for here."""
    version = version or _here()
    directory = _kubernetes(version)
    if not directory.is_dir():
        sys.stderr.write(f"building Kubernetes {version} into {directory}: about six minutes on two cores, once\n")
        install(directory, lambda unfinished: _build_kubernetes(unfinished, version))
    return directory


def workload() -> Path:
    """The program that the tests' containers run (``workload.c``)."""
    directory = cache_directory() / f"workload-{short_hash(_WORKLOAD.read_text())}"
    if not directory.is_dir():
        install(directory, _build_workload)
    return directory / "workload"


def _here() -> str:
    """The version that is run on this machine's cgroups."""
    return KUBERNETES[nest.version()]


def _kubernetes(version: str) -> Path:
    recipe = json.dumps([_go_mod(version, []), _build_command(version, Path()), _GO])
    return cache_directory() / f"kubernetes-{version}-{short_hash(recipe)}"


# Nothing of the user's that changes what is built.
_GO = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0", "GOWORK": "off"}


def _go_mod(version: str, staging: Sequence[str]) -> str:
    """A module of our own. Kubernetes' own names its parts by folders of its repository, which no proxy has."""
    lines = ["module node", "go 1.24.0", f"require k8s.io/kubernetes v{version}"]
    lines += [f"replace {name} => {name} {re.sub(r'^1', 'v0', version)}" for name in staging]
    return "\n".join(lines) + "\n"


def _build_command(version: str, output: Path) -> list[str]:
    # Without its version the components refuse each other.
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion=v{version}"
    packages = [f"k8s.io/kubernetes/cmd/{program}" for program in PROGRAMS]
    return ["go", "build", "-trimpath", "-ldflags", flags, "-o", f"{output}/", *packages]


def _build_kubernetes(directory: Path, version: str) -> None:
    environ = os.environ | _GO
    with tempfile.TemporaryDirectory(prefix="otel-k8s-cgroup-go-") as made:
        module = f"k8s.io/kubernetes@v{version}"
        download = subprocess.run(
            ["go", "mod", "download", "-json", module], cwd=made, env=environ, stdout=subprocess.PIPE, check=True
        )
        text = Path(json.loads(download.stdout)["GoMod"]).read_text()
        staging = re.findall(r"^\s*(k8s\.io/\S+) => \./staging/", text, re.MULTILINE)
        Path(made, "go.mod").write_text(_go_mod(version, staging))
        subprocess.run(_build_command(version, directory), cwd=made, env=environ, check=True)


def _build_workload(directory: Path) -> None:
    subprocess.run(["gcc", "-O1", "-Wall", "-static", "-o", directory / "workload", _WORKLOAD], check=True)
