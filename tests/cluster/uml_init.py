"""The first process of a User-Mode-Linux kernel: a node on cgroup v2 in it, and tests in that node.

Started by ``test_uml.py``, as ``tests/kernel/uml_init.py`` is by its own test.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))  # it is started in isolation

from tests.cluster.node import Node  # noqa: E402 after the path is set
from tests.kernel import uml_init  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

_MODULES = ("kernel/fs/overlayfs/overlay.ko", "kernel/net/bridge/bridge.ko", "kernel/drivers/net/veth.ko")


def _run(arguments: Sequence[str]) -> None:
    host_directory, cache, *tests = arguments[:-1]  # the last one is the kernel's
    for kind, target in (
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
        ("tmpfs", "/run"),
    ):
        uml_init.mount(kind, target)
    # Not below /run, which the node has its own of.
    uml_init.mount("tmpfs", "/tmp")
    uml_init.mount("hostfs", "/tmp/host", host_directory)
    uml_init.mount("tmpfs", "/tmp/work")
    Path("/dev/fd").symlink_to("/proc/self/fd")
    uml_init.mount("cgroup2", "/sys/fs/cgroup")
    root = Path("/sys/fs/cgroup")
    for controller in (root / "cgroup.controllers").read_text(encoding="ascii").split():
        (root / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")
    _load_modules(Path("/usr/lib/uml/modules", os.uname().release))
    os.environ.clear()
    os.environ.update(
        {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/tmp/work",
            "XDG_CACHE_HOME": cache,
            "TMPDIR": "/tmp/work",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
    )
    os.chdir(REPOSITORY)
    node = Node(Path("/tmp/host/node"))
    with node.running():
        report = f"--junitxml=/tmp/host/{uml_init.REPORT}"
        node.run(
            [
                sys.executable,
                "-m",
                "pytest",
                report,
                "-p",
                "no:cacheprovider",
                "--color=no",
                "--override-ini=truncation_limit_lines=0",
                *tests,
            ]
        )


def _load_modules(directory: Path) -> None:
    """Each after those that it needs. The last one in its line of modules.dep needs none of the others."""
    needs = dict(line.split(":") for line in (directory / "modules.dep").read_text(encoding="utf-8").splitlines())
    for module in _MODULES:
        for each in (*reversed(needs[module].split()), module):
            subprocess.run(["busybox", "insmod", directory / each], check=True)


if __name__ == "__main__":
    uml_init.run(_run)
