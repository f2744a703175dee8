"""What the tests of the demo share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.demo.cgroups import CgroupTree
from otel_k8s_cgroup.demo.claims import leftovers, own_name
from otel_k8s_cgroup.demo.pods import PODS
from otel_k8s_cgroup.errors import CgroupError, CgroupRootError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_k8s_cgroup.model import Reading

CGROUPS = Path("/sys/fs/cgroup")


def demo_cgroups(pid: int) -> list[Path]:
    """The directories of that process's demo, on v1 and on v2."""
    name = own_name(pid)
    return [*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")]


def abandoned_cgroups() -> list[Path]:
    """The directories of demos that are no more; somebody's demo may be running beside the tests."""
    return [path for parent in (CGROUPS, *CGROUPS.glob("*/")) for path in leftovers(parent)]


def read_as_the_exporter(root: Path) -> dict[str, Reading]:
    """What the exporter reads of the demo's pods below ``root``, by cgroup uid; nothing may be amiss."""
    amiss: list[CgroupError] = []
    cgroups = NodeCgroups(str(root), open_files=OpenFiles(100), clock=time.monotonic_ns)
    readings = cgroups.read({pod.cgroup_uid for pod in PODS}, amiss.append)
    cgroups.close()
    assert amiss == []
    return {reading.key: reading for reading in readings}


@pytest.fixture
def real_tree(tmp_path: Path) -> Iterator[CgroupTree]:
    """Cgroups of this machine's own version; skipped with the reason where they cannot be made."""
    try:
        tree = CgroupTree(CGROUPS, tmp_path)
    except CgroupRootError as error:
        pytest.skip(f"no real cgroups: {error}")
    yield tree
    tree.close()
